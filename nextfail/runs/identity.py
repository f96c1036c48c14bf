"""Which run is this? Everything that decides its result, and nothing else, hashed."""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from nextfail.errors import UserError

SCHEMA = 1
"""Version of what stands in a run folder; raised when older folders can no longer be read."""

SECTIONS = ("graph", "data", "model", "objective", "optimizer", "scheduler", "seed")
KEYS = (*SECTIONS, "budget", "precision", "threads")
"""The keys of an identity."""

BUDGET = ("max_steps", "val_every", "stop_at", "gradient_clip")

LATER: dict[str, dict[str, Any]] = {
    "nextfail.task.datamodule.DrawnData": {"query": "after", "edges": "shuffled", "direction": "away", "goals": 1}
}
"""Settings of a class that are younger than recorded runs, at what held for those, which stay valid: left out there."""


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that decides the result.

    Data files and folders of models count by content, not by name, so that a run is the same wherever they lie.
    Logger, callbacks, launcher, progress, device and paths are no part of it.

    Raises:
        UserError: a data file or a model cannot be read.
    """
    trainer = config["trainer"]
    data = {key: file_digest(value) if key.endswith("_file") else value for key, value in config["data"].items()}
    later = LATER.get(str(data.get("_target_")), {}).items()
    return {
        **{section: config[section] for section in SECTIONS},
        "model": {key: model_digest(value) if key == "source" else value for key, value in config["model"].items()},
        "data": {key: value for key, value in data.items() if (key, value) not in later},
        "budget": {key: trainer[key] for key in BUDGET},
        "precision": trainer["precision"],
        "threads": trainer["threads"],
    }


def digest(value: dict[str, Any]) -> str:
    """16 hexadecimal digits that differ for different identities."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """`key: value in one, value in other` for every leaf in which two identities differ."""
    left, right = dict(leaves(one)), dict(leaves(other))
    keys = [key for key in left | right if left.get(key, "absent") != right.get(key, "absent")]
    return [f"{key}: {left.get(key, 'absent')} there, {right.get(key, 'absent')} asked for" for key in keys]


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested dictionaries."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def model_digest(source: Any) -> Any:
    """What a pretrained model is known by: the content of its folder, or its name where there is no such folder."""
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
    """What a data file is known by; None for no file."""
    if name is None:
        return None
    try:
        with Path(name).open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from error
