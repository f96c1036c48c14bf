"""One run folder: its files, its state, and whether a run may use it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeGuard

from nextfail.errors import UserError
from nextfail.files import PARTIAL, Inside, trap
from nextfail.runs import records
from nextfail.runs.identity import READABLE, SCHEMA, Identity, digest, keys
from nextfail.runs.lock import Lock

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
LOG = "train.log"
"""Hydra's log file."""

HYDRAS = ("config.yaml", "hydra.yaml", "overrides.yaml")
"""Files that Hydra writes into a subfolder before a run starts, if hydra.output_subdir is set."""


_HASH = re.compile(r"[0-9a-f]{16}")


class State(Enum):
    """State of the requested run in a folder: new, cut (interrupted, resumable) or done."""

    NEW = "new"
    CUT = "cut"
    DONE = "done"


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run folder; creating the object reads and writes nothing."""

    path: Path

    @property
    def files(self) -> Inside:
        """Writes and removes files in this folder."""
        return Inside(self.path)

    @property
    def run_json(self) -> Path:
        """Identity; written first."""
        return self.path / "run.json"

    @property
    def status_json(self) -> Path:
        """State, step, rate and time of the last update."""
        return self.path / "status.json"

    @property
    def result_json(self) -> Path:
        """Metrics and outcome; written last, so that its presence means done."""
        return self.path / "result.json"

    @property
    def metrics_csv(self) -> Path:
        """Step, split, metrics."""
        return self.path / "metrics.csv"

    @property
    def timing_csv(self) -> Path:
        """Measurements that depend on the clock."""
        return self.path / "timing.csv"

    @property
    def examples_json(self) -> Path:
        """A few test problems with the generated answers."""
        return self.path / "examples.json"

    @property
    def error_txt(self) -> Path:
        """Traceback of a failed run."""
        return self.path / "error.txt"

    @property
    def job_json(self) -> Path:
        """The last job submitted for this run, written by the submitting command."""
        return self.path / "job.json"

    @property
    def lock(self) -> Path:
        """Lock file; names the process that trains this run."""
        return self.path / ".lock"

    @property
    def checkpoints(self) -> Path:
        """last.ckpt, previous.ckpt and best.ckpt."""
        return self.path / "checkpoints"

    def result(self) -> dict[str, Any] | None:
        """The result, or None if the run is not done. A malformed file, or one of another run, counts as absent."""
        try:
            return self.whole_result()[1]
        except UserError:
            return None

    def whole_result(self) -> tuple[records.Result, dict[str, Any]]:
        """The result of this run, typed, and the full content of the file.

        Raises:
            UserError: it is missing, malformed, of another run, or of a schema that this version cannot read.
        """
        name = self.result_json.name
        content = records.read(self.result_json, dict[str, Any])
        if content is None:
            raise UserError(f"there is no {name}")
        result = records.check(name, content, records.Result)
        if result.schema not in READABLE:
            raise UserError(f"{name}: {_schemas(result.schema)}")
        run = records.lenient(self.run_json, dict[str, Any])
        if run is None or run.get("hash") != result.identity:
            raise UserError(f"{name} belongs to another run than {self.run_json.name}")
        return result, content

    def run(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            UserError: it is missing, malformed, modified, or of a schema that this version cannot read.
        """
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not a folder: give a run folder, as nextfail-train makes them")
        run = records.lenient(self.run_json, dict[str, Any])
        if not _is_run(run):
            raise UserError(f"{self.path} is not a run folder: {self.run_json.name} is missing or damaged")
        if run["schema"] not in READABLE:
            raise UserError(f"{self.run_json} has {_schemas(run['schema'])}")
        if not _unchanged(run):
            raise UserError(f"{self.run_json} was changed after it was written: its hash is not that of its content")
        records.check(str(self.run_json), run, records.RunJson)
        return run

    def identity(self) -> Identity:
        """The identity in run.json, converted to the current schema.

        Raises:
            UserError: as `run`.
        """
        try:
            identity = Identity.read(self.run())
            identity.hash, identity.kin, identity.flat  # noqa: B018, raises here if malformed
            return identity
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{self.run_json} {records.ODD}: {error!r}") from error

    @contextmanager
    def locked(self) -> Iterator[Lock]:
        """Hold the lock of this folder.

        Raises:
            InUse: another process trains this run.
            UserError: the folder cannot be written, or must not be (see `require_ours`).
        """
        self.require_ours()
        self.files.make()
        lock = Lock(self.lock)
        lock.acquire()
        try:
            for above in ("", f"{self.checkpoints.name}/"):
                for name in self.files.names(above):
                    if name.startswith(".") and name.endswith(PARTIAL):  # left by a killed process
                        self.files.remove(f"{above}{name}")
            yield lock
        finally:
            lock.release()

    def state(self, identity: Identity, on_existing: str) -> State:
        """The state of the requested run in this folder; changes nothing.

        Args:
            identity: identity of the requested run.
            on_existing: "resume", "restart" (an existing run counts as new) or "fail".

        Raises:
            UserError: the folder belongs to another run, or exists with on_existing=fail.
        """
        if on_existing not in ("resume", "restart", "fail"):
            raise UserError(f"on_existing={on_existing!r} is unknown: choose resume, restart or fail")
        self.require_ours()
        if not (self.checkpoints.exists() or self.result_json.exists()):
            return State.NEW  # no progress to lose yet
        self._refuse_another(identity, on_existing)
        if on_existing == "fail":
            raise UserError(f"{self.path} exists already, and on_existing=fail: choose another folder, or resume")
        if on_existing == "restart":
            return State.NEW
        return State.DONE if self.result() else State.CUT

    def claim(self, identity: Identity, extra: dict[str, Any], on_existing: str) -> State:
        """As `state`, and for a new run, remove the files of an old one and write run.json.

        Args:
            extra: further content of run.json, not part of the identity.

        Raises:
            UserError: as `state`; or the folder cannot be written.
        """
        state = self.state(identity, on_existing)
        if state is State.NEW:
            self._clear()
            self.files.write_json(self.run_json.name, record(identity, extra))
        return state

    def _refuse_another(self, identity: Identity, on_existing: str) -> None:
        there = self.identity()
        if there.hash == identity.hash:
            return
        differ = there.differences(identity)
        edited = all(key.endswith((".sha256", ".revision")) for key in differ)  # same settings, other code
        if edited and on_existing == "restart":
            return
        listed = "\n  ".join(differ.values())
        replace = "replace this one with on_existing=restart" if edited else "remove this one"
        raise UserError(f"{self.path} already has another run, which was not changed. They differ in\n  {listed}\n"
                        f"Choose another with name=... or hydra.run.dir=..., or {replace}.")  # fmt: skip

    def require_ours(self) -> None:
        """Check that a run may write here: the folder is new, empty or a run folder, and no link leads out of it.

        Raises:
            UserError: the folder contains foreign files, a special file, or a link that leads out of it.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose another folder")
        if not _is_run(records.lenient(self.run_json, dict[str, Any])):
            theirs = [name for name in self.files.names() if not self._before_run(name)]
            if theirs:
                more = f" and {len(theirs) - 3} more" if len(theirs) > 3 else ""
                raise UserError(f"{self.path} has {', '.join(theirs[:3])}{more}, and is not a run of nextfail: choose "
                                "another folder")  # fmt: skip
        if link := trap(self.path):
            raise UserError(f"{link} is a link to outside of the run folder, or not a file: nextfail writes nothing "
                            "outside of the folder. Remove it, or make the whole run folder a link")  # fmt: skip

    def owns(self, name: str) -> bool:
        """Whether nextfail writes a file of this name here."""
        own = (self.run_json, self.status_json, self.result_json, self.metrics_csv, self.timing_csv, self.examples_json,
               self.error_txt, self.job_json, self.lock)  # fmt: skip
        return name in (LOG, *(path.name for path in own))

    def _before_run(self, name: str) -> bool:
        """Whether a file may exist before run.json: the run was submitted, or failed before it started."""
        if name in (self.status_json.name, self.job_json.name):
            content = records.lenient(self.path / name, records.Status)
            return content is not None and ("state" in content or "job" in content)
        if name == self.error_txt.name:
            return self.status_json.exists()
        if (folder := self.path / name).is_dir():
            return all(path.is_dir() or path.name in HYDRAS for path in folder.rglob("*"))
        return name.startswith(".lock") or name.endswith((".log", PARTIAL))

    def _clear(self) -> None:
        for path in (self.result_json, self.status_json, self.metrics_csv, self.timing_csv, self.examples_json):
            self.files.remove(path.name)
        self.files.remove(self.error_txt.name)
        self.files.remove_tree(self.checkpoints.name)


def record(identity: Identity, extra: dict[str, Any]) -> dict[str, Any]:
    """The content of run.json.

    Args:
        extra: further content, not part of the identity.
    """
    run = {"schema": SCHEMA, "hash": identity.hash, **identity.settings, "classes": identity.classes, **extra}
    run = json.loads(json.dumps(run))  # the values as JSON restores them
    return run | {"checksum": digest(run)}


def _schemas(found: Any) -> str:
    return f"schema {str(found)[:20]}; this version reads schemas {', '.join(map(str, READABLE))}"


def _is_run(content: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    """Whether a run.json was written by nextfail, of any version, rather than by another program."""
    return content is not None and "schema" in content and bool(_HASH.fullmatch(str(content.get("hash"))))


def _unchanged(run: dict[str, Any]) -> bool:
    if run["schema"] != 1:
        whole = all(key in run for key in (*keys(run["schema"]), "classes"))
        return whole and run.get("checksum") == digest({k: v for k, v in run.items() if k != "checksum"})
    first = keys(1)
    return all(key in run for key in first) and digest({key: run[key] for key in first}) == run["hash"]
