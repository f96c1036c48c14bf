"""The identity of a run: all that determines its result, and nothing else, with a hash stable across versions."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

from nextfail import source
from nextfail.config import HARMLESS
from nextfail.errors import UserError
from nextfail.files import open_regular

SCHEMA = 3
"""Current schema version of run folders."""

READABLE = (1, 2, SCHEMA)
"""Schema versions that can still be read: found as done, evaluated and reported."""

SECTIONS = ("task", "data", "model", "objective", "optimizer", "scheduler", "seed")
KEYS = (*SECTIONS, "budget", "precision", "threads")
"""The keys of an identity in run.json."""


def keys(schema: Any) -> tuple[str, ...]:
    """The keys of an identity in run.json of a given schema."""
    return KEYS if schema == SCHEMA else ("graph", *KEYS[1:])


BUDGET = ("max_steps", "val_every", "stop_at", "gradient_clip")

ABSENT: dict[str, Any] = {
    "seed": 0,
    "budget": {"max_steps": 500, "val_every": 100, "stop_at": None, "gradient_clip": 1.0},
    "precision": "32-true",
    "threads": 1,
}
"""Defaults of keys outside any class, which the hash omits. Never changed, regardless of conf/."""

WITH_DATA = ("goals", "edges_as")
"""Task settings that are hashed under `data`, their section up to schema 2."""

OF_THE_TASK = ("query", "edges", "direction", *WITH_DATA)
"""Data settings up to schema 2 that now belong to the task."""

PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
"""Lightning's short forms of precisions, and their full names."""

PATH_STAR = {"_target_": "nextfail.tasks.path_star.task.PathStar"}
"""The class of the section `graph` in schemas 1 and 2, which had no _target_."""

SCHEMA_1 = {
    "nextfail.models.mamba.Mamba": "mamba",
    "nextfail.models.pretrained.Pretrained": "pretrained",
    "nextfail.models.transformer.Transformer": "transformer",
    "nextfail.objectives.any_order.AnyOrder": "any_order",
    "nextfail.objectives.belief_state.BeliefState": "belief_state",
    "nextfail.objectives.first_hop_only.FirstHopOnly": "first_hop_only",
    "nextfail.objectives.future_summary.FutureSummary": "future_summary",
    "nextfail.objectives.multi_token.MultiToken": "multi_token",
    "nextfail.objectives.next_latent.NextLatent": "next_latent",
    "nextfail.objectives.reverse.Reverse": "reverse",
    "nextfail.objectives.scratchpad.Scratchpad": "scratchpad",
    "nextfail.objectives.teacher_forcing.TeacherForcing": "teacher_forcing",
    "nextfail.objectives.teacherless.Teacherless": "teacherless",
    "nextfail.objectives.token_masking.TokenMasking": "token_masking",
    "nextfail.objectives.token_order.TokenOrder": "token_order",
    "nextfail.task.datamodule.DrawnData": "drawn",
    "nextfail.task.datamodule.FileData": "files",
    "nextfail.training.optim.MuonAdamW": "muon",
    "nextfail.training.optim.adamw": "adamw",
    "nextfail.training.optim.constant": "constant",
    "nextfail.training.optim.cosine": "cosine",
}
"""Public names, at revision 1, of classes that run.json of schema 1 names by module path. Never changed."""


@dataclass(frozen=True)
class Identity:
    """Everything that determines the result of a run.

    Args:
        settings: values of KEYS as a user spells them, including defaults.
        classes: class of each dictionary in `settings` with a `_target_`, by its dotted key: {"name", "revision"} for
            nextfail's own, {"name", "sha256"} for a user's, with the hash of its source file (None if unknown).
        recorded: the hash recorded in the run folder, if it is valid for this version.
    """

    settings: dict[str, Any]
    classes: dict[str, dict[str, Any]]
    recorded: str | None = None

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """The identity of a resolved configuration.

        Data files and model folders count by content, not by path, so that moving them does not change the run.
        Logger, callbacks, launcher, progress, device and paths are not part of it.

        Raises:
            UserError: a data file or a model cannot be read.
        """
        trainer = config["trainer"]
        options = {key: value for key, value in trainer.get("options", {}).items() if key not in HARMLESS}
        options = {"options": options} if options else {}
        flops = {} if trainer.get("max_flops") is None else {"max_flops": trainer["max_flops"]}
        settings = {
            **{section: config[section] for section in SECTIONS},
            "data": {k: file_digest(v) if k.endswith("_file") else v for k, v in config["data"].items()},
            "model": {k: model_digest(v) if k == "source" else v for k, v in config["model"].items()},
            "budget": {key: trainer[key] for key in BUDGET} | options | flops,
            "precision": trainer["precision"],
            "threads": trainer["threads"],
        }
        settings = json.loads(json.dumps(settings))  # plain values, as JSON restores them
        classes = {key: _class_of(str(spec["_target_"])) for key, spec in _targets(settings)}
        return cls(*_complete(settings, classes))

    @classmethod
    def read(cls, run: dict[str, Any]) -> Self:
        """The identity in a run.json, of any readable schema."""
        settings = {key: run[key] for key in keys(run["schema"])}
        if run["schema"] == SCHEMA:
            return cls(*_complete(settings, run["classes"]), recorded=run["hash"])
        data = settings["data"]
        moved = {key: data[key] for key in OF_THE_TASK if key in data}
        settings["task"] = PATH_STAR | settings.pop("graph") | moved
        settings["data"] = {key: value for key, value in data.items() if key not in moved}
        if run["schema"] == 2:
            classes = dict(run["classes"])
            classes["task"] = classes.pop("graph")
            return cls(*_complete(settings, classes), recorded=run["hash"])
        settings["precision"] = PRECISIONS.get(str(settings["precision"]), settings["precision"])
        first = {key: _class_in_schema_1(str(spec["_target_"])) for key, spec in _targets(settings)}
        return cls(*_complete(settings, first | {"task": {"name": "path_star", "revision": 1}}))

    @cached_property
    def hash(self) -> str:
        """Hash of the run: 16 hexadecimal digits."""
        return self.recorded or digest(self.reduced)

    @cached_property
    def kin(self) -> str:
        """A hash shared by runs that differ only in max_steps and val_every."""
        budget = {k: v for k, v in self.reduced["budget"].items() if k not in ("max_steps", "val_every")}
        return digest(self.reduced | {"budget": budget})

    def hash_without(self, *sections: str) -> str:
        """A hash shared by runs that differ only in the given sections."""
        return digest({key: value for key, value in self.reduced.items() if key not in sections})

    @cached_property
    def reduced(self) -> dict[str, Any]:
        """What is hashed: public names instead of module paths, without keys that have their default."""
        parts: dict[str, Any] = json.loads(json.dumps({key: self.settings[key] for key in KEYS}))
        specs = dict(_targets(parts))
        for key, what in self.classes.items():
            spec = specs[key]
            defaults = _defaults(what)
            for name in [k for k, v in spec.items() if k in defaults and _same(v, defaults[k])]:
                del spec[name]
            if "revision" in what:
                spec.pop("_partial_", None)
            spec.pop("_target_", None)
            spec["class"] = what
        for key, implied in ABSENT.items():
            if isinstance(implied, dict):
                parts[key] = {k: v for k, v in parts[key].items() if k not in implied or not _same(v, implied[k])}
            elif _same(parts[key], implied):
                del parts[key]
        if self.classes["task"]["name"] == "path_star":
            parts["data"] |= {key: parts["task"].pop(key) for key in WITH_DATA if key in parts["task"]}
        return _canonical(parts)

    def differences(self, other: "Identity") -> dict[str, str]:
        """`key: VALUE there, VALUE asked for` by key, for each setting in which this run differs from another."""
        left, right = self.flat, other.flat
        keys = [key for key in left | right if not _same(left.get(key, "absent"), right.get(key, "absent"))]
        return {key: f"{key}: {left.get(key, 'absent')} there, {right.get(key, 'absent')} asked for" for key in keys}

    @cached_property
    def flat(self) -> dict[str, Any]:
        """Every setting by dotted key, with the class name at the key of its section."""
        names = {f"{key}._target_" for key in self.classes}
        flat = {key: value for key, value in leaves(self.settings) if key not in names}
        for key, what in self.classes.items():
            flat[key] = what["name"]
            flat |= leaves({name: value for name, value in what.items() if name != "name"}, key)
            if "sha256" in what:
                flat[f"{key}.sha256"] = f"{str(what['sha256'])[:8]} (source of {what['name']})"
        return flat


def _complete(
    settings: dict[str, Any], classes: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Fill in every default of nextfail's own classes."""
    whole: dict[str, Any] = json.loads(json.dumps(settings))
    specs = dict(_targets(whole))
    for key, what in classes.items():
        spec = specs[key]
        for name, value in _defaults(what).items():
            spec.setdefault(name, list(value) if isinstance(value, tuple) else value)
    return whole, classes


def _defaults(what: dict[str, Any]) -> dict[str, Any]:
    """Defaults of a class of nextfail; none for a user's, whose defaults are part of its hashed source."""
    made = source.own().get(what["name"]) if "revision" in what else None
    return made.defaults if made else {}


def _class_of(target: str) -> dict[str, Any]:
    made = source.find(target)
    if made and made.name:
        return _own_class(made)
    bases = {"bases": made.bases} if made and made.bases else {}
    return {"name": made.path if made else target, "sha256": source.digest(target), **bases}


def _own_class(made: source.Definition) -> dict[str, Any]:
    return {"name": made.name, "revision": made.revision}


def _class_in_schema_1(target: str) -> dict[str, Any]:
    return {"name": SCHEMA_1[target], "revision": 1} if target in SCHEMA_1 else {"name": target, "sha256": None}


def _targets(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dictionary with a `_target_`, by dotted key."""
    if isinstance(value, dict) and "_target_" in value:
        yield key, value
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _targets(item, f"{key}.{name}" if key else str(name))


def _same(one: Any, other: Any) -> bool:
    return digest(_canonical(one)) == digest(_canonical(other))


def _canonical(value: Any) -> Any:
    """Normalize numbers: 1.0 becomes 1."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def digest(value: Any) -> str:
    """Hash of plain values: 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested dictionaries into dotted keys and values."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def model_digest(source: Any) -> Any:
    """Identifies a pretrained model: by the content of its folder, or by name if there is no such folder."""
    if not (isinstance(source, str) and source and (folder := Path(source)).is_dir()):
        return source
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    return _digest_of(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@cache
def _digest_of(files: tuple[tuple[Path, int, int], ...]) -> dict[str, str]:
    whole = hashlib.sha256()
    for path, *_ in files:
        digested = file_digest(str(path))
        whole.update(f"{path.name} {digested and digested['sha256']}\n".encode())
    return {"sha256": whole.hexdigest()}


def file_digest(name: str | None) -> dict[str, str] | None:
    """Identifies a data file by the hash of its content; None for no file."""
    if name is None:
        return None
    try:
        with open_regular(Path(name)) as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from error
