"""One run folder: where its files are, whether it is done, and whether a run may use it."""

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

LOG = "train.log"
"""Where Hydra logs."""

HYDRAS = ("config.yaml", "hydra.yaml", "overrides.yaml")
"""What Hydra writes into a folder of its own before a run begins, if hydra.output_subdir asks for it."""


_HASH = re.compile(r"[0-9a-f]{16}")


class State(Enum):
    """What a folder holds of the run that was asked for."""

    NEW = "new"
    CUT = "cut"
    DONE = "done"


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run folder; nothing is read or made until asked."""

    path: Path

    @property
    def files(self) -> Inside:
        """How anything in here is written or removed."""
        return Inside(self.path)

    @property
    def run_json(self) -> Path:
        """Identity; written first."""
        return self.path / "run.json"

    @property
    def status_json(self) -> Path:
        """State, step, rate and last sign of life."""
        return self.path / "status.json"

    @property
    def result_json(self) -> Path:
        """Metrics and outcome; written last: its presence means done."""
        return self.path / "result.json"

    @property
    def metrics_csv(self) -> Path:
        """Step, split, metrics."""
        return self.path / "metrics.csv"

    @property
    def timing_csv(self) -> Path:
        """What depends on the clock."""
        return self.path / "timing.csv"

    @property
    def examples_json(self) -> Path:
        """A few test problems with what was generated for them."""
        return self.path / "examples.json"

    @property
    def error_txt(self) -> Path:
        """Traceback of a failed run."""
        return self.path / "error.txt"

    @property
    def job_json(self) -> Path:
        """The job that was last sent off for this run, written by who sent it."""
        return self.path / "job.json"

    @property
    def lock(self) -> Path:
        """Who trains this run now."""
        return self.path / ".lock"

    @property
    def checkpoints(self) -> Path:
        """last.ckpt, previous.ckpt and best.ckpt."""
        return self.path / "checkpoints"

    def result(self) -> dict[str, Any] | None:
        """The result, or None if the run is not done: a file that is malformed, or another run's, counts as absent."""
        try:
            return self.whole_result()[1]
        except UserError:
            return None

    def whole_result(self) -> tuple[records.Result, dict[str, Any]]:
        """The result of this run, typed, and the whole content of the file.

        Raises:
            UserError: there is none, it is malformed, of another run, or of a schema that this version cannot read.
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
            raise UserError(f"{name} is of another run than {self.run_json.name}")
        return result, content

    def run(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            UserError: it is missing, not whole, changed, or of a schema that this version cannot read.
        """
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not a folder: give a run folder, as nextfail-train makes them")
        run = records.lenient(self.run_json, dict[str, Any])
        if not _is_run(run):
            raise UserError(f"{self.path} is not a run folder: {self.run_json.name} is missing or not whole")
        if run["schema"] not in READABLE:
            raise UserError(f"{self.run_json} has {_schemas(run['schema'])}")
        if not _unchanged(run):
            raise UserError(f"{self.run_json} was changed after it was written: its hash is not that of its content")
        records.check(str(self.run_json), run, records.RunJson)
        return run

    def identity(self) -> Identity:
        """What run.json says that this run is, in the terms of this version.

        Raises:
            UserError: as `run`.
        """
        try:
            identity = Identity.read(self.run())
            identity.hash, identity.kin, identity.flat  # noqa: B018, which later code takes for granted
            return identity
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{self.run_json} {records.ODD}: {error!r}") from error

    @contextmanager
    def locked(self) -> Iterator[Lock]:
        """Hold this folder while a run uses it.

        Raises:
            InUse: another process trains this run.
            UserError: the folder cannot be written, or is not to be written.
        """
        self.require_ours()
        self.files.make()
        lock = Lock(self.lock)
        lock.acquire()
        try:
            for above in ("", f"{self.checkpoints.name}/"):
                for name in self.files.names(above):
                    if name.startswith(".") and name.endswith(PARTIAL):  # left by a process that was killed
                        self.files.remove(f"{above}{name}")
            yield lock
        finally:
            lock.release()

    def state(self, identity: Identity, on_existing: str) -> State:
        """What this folder holds of the run asked for; nothing is changed.

        Args:
            identity: the run asked for.
            on_existing: "resume", "restart" (what is there counts as nothing) or "fail".

        Raises:
            UserError: the folder belongs to another run, or exists with on_existing=fail.
        """
        if on_existing not in ("resume", "restart", "fail"):
            raise UserError(f"on_existing={on_existing!r} is unknown: choose resume, restart or fail")
        self.require_ours()
        if not (self.checkpoints.exists() or self.result_json.exists()):
            return State.NEW  # of a run there is nothing to lose yet
        self._refuse_another(identity, on_existing)
        if on_existing == "fail":
            raise UserError(f"{self.path} exists already, and on_existing=fail: choose another folder, or resume")
        if on_existing == "restart":
            return State.NEW
        return State.DONE if self.result() else State.CUT

    def claim(self, identity: Identity, extra: dict[str, Any], on_existing: str) -> State:
        """The same, and write run.json if the run is new; what it restarts is removed.

        Args:
            extra: what else run.json should hold, no part of the identity.

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
        edited = all(key.endswith((".sha256", ".revision")) for key in differ)  # the same run with other code
        if edited and on_existing == "restart":
            return
        listed = "\n  ".join(differ.values())
        replace = "replace this one with on_existing=restart" if edited else "remove this one"
        raise UserError(f"{self.path} holds another run, and is left as it is. They differ in\n  {listed}\n"
                        f"Choose another with name=... or hydra.run.dir=..., or {replace}.")  # fmt: skip

    def require_ours(self) -> None:
        """Make sure that a run may write here: the folder is new, empty or a run's, and nothing in it leads out of it.

        Raises:
            UserError: it holds files of somebody else's, or a link that leads out of it.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose another folder")
        if not _is_run(records.lenient(self.run_json, dict[str, Any])):
            theirs = [name for name in self.files.names() if not self._before_run(name)]
            if theirs:
                more = f" and {len(theirs) - 3} more" if len(theirs) > 3 else ""
                raise UserError(f"{self.path} has {', '.join(theirs[:3])}{more}, and is no run of nextfail: choose "
                                "another folder")  # fmt: skip
        if link := trap(self.path):
            raise UserError(f"{link} is a link that leads out of the run folder, or no file: nextfail writes nothing "
                            "outside of the folder. Remove it, or make the whole run folder a link")  # fmt: skip

    def owns(self, name: str) -> bool:
        """Whether a file of this name is one that nextfail writes here."""
        own = (self.run_json, self.status_json, self.result_json, self.metrics_csv, self.timing_csv, self.examples_json,
               self.error_txt, self.job_json, self.lock)  # fmt: skip
        return name in (LOG, *(path.name for path in own))

    def _before_run(self, name: str) -> bool:
        """Whether a file may be there before run.json is: of a run that was sent off, or failed before it began."""
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
        extra: what else it should hold, no part of the identity.
    """
    run = {"schema": SCHEMA, "hash": identity.hash, **identity.settings, "classes": identity.classes, **extra}
    run = json.loads(json.dumps(run))  # as it will be read again
    return run | {"checksum": digest(run)}


def _schemas(found: Any) -> str:
    return f"schema {str(found)[:20]}; this version reads schemas {', '.join(map(str, READABLE))}"


def _is_run(content: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    """Whether a run.json is one of nextfail's, of whatever version, and no file of that name of somebody else's."""
    return content is not None and "schema" in content and bool(_HASH.fullmatch(str(content.get("hash"))))


def _unchanged(run: dict[str, Any]) -> bool:
    if run["schema"] != 1:
        whole = all(key in run for key in (*keys(run["schema"]), "classes"))
        return whole and run.get("checksum") == digest({k: v for k, v in run.items() if k != "checksum"})
    first = keys(1)
    return all(key in run for key in first) and digest({key: run[key] for key in first}) == run["hash"]
