"""Schemas of the JSON files of a run folder, one per file, for writers and readers.

Run folders may come from other people. A value of a wrong type, out of range or not finite makes a file malformed, and
its reader reports that. Keys that are in no schema are ignored, except those of run.json, which its checksum covers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

import msgspec
from msgspec import Meta

from nextfail.errors import UserError
from nextfail.files import read_text

T = TypeVar("T")

LONGEST = 200
"""Maximum length of a name (of a model, objective, task or outcome) in characters."""

Whole = Annotated[int, Meta(ge=0, le=2**53)]
Setting = Annotated[int, Meta(ge=0)]  # no upper bound, as on the command line
Number = Annotated[float, Meta(ge=0, le=1e30)]
Share = Annotated[float, Meta(ge=0, le=1)]
Process = Annotated[int, Meta(gt=0, lt=2**31)]
Name = Annotated[str, Meta(max_length=LONGEST)]
Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]

ODD = "does not have nextfail's format"


class Malformed(UserError):
    """A file of a run folder does not match its schema."""


class Proportion(msgspec.Struct, frozen=True):
    """A proportion of `n` with its 95 % interval."""

    value: Share
    low: Share
    high: Share
    n: Whole


class Class(TypedDict):
    """Identifies a class: by public name and revision, or for a user's own by dotted path and hash of its file."""

    name: str
    revision: NotRequired[Whole]
    sha256: NotRequired[str | None]
    bases: NotRequired[dict[str, Any]]


class Data(TypedDict):
    """Settings of the data that readers rely on."""

    batch_size: NotRequired[Annotated[int, Meta(gt=0, le=2**53)]]
    eval_batch_size: NotRequired[Annotated[int, Meta(gt=0, le=2**53)]]


class Budget(TypedDict):
    """Training budget of a run."""

    max_steps: Setting
    val_every: NotRequired[Setting]
    stop_at: NotRequired[Share | None]
    gradient_clip: NotRequired[Annotated[float, Meta(ge=0)] | None]
    options: NotRequired[dict[str, Any]]


class Choices(TypedDict):
    """Chosen options of config groups."""

    model: Name
    objective: Name


class RunJson(TypedDict):
    """run.json: the identity of a run, and how it was started. Up to schema 2, the task is called `graph`."""

    schema: Whole
    hash: Hash
    seed: Setting
    data: Data
    model: dict[str, Any]
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    budget: Budget
    precision: Name | int
    threads: Annotated[int, Meta(gt=0, le=1024)]
    choices: NotRequired[Choices]
    task: NotRequired[dict[str, Any]]
    graph: NotRequired[dict[str, Any]]
    classes: NotRequired[dict[str, Class]]
    checksum: NotRequired[Hash]
    files: NotRequired[dict[str, str | None]]
    source: NotRequired[str | None]
    overrides: NotRequired[list[str]]
    began: NotRequired[dict[str, str | None]]
    continues: NotRequired[dict[str, str | int]]


class Status(TypedDict, total=False):
    """status.json: state, step, rate and time of the last update; also job.json: the submitted job."""

    state: Name
    time: Number
    step: Whole
    max_steps: Setting
    checkpoint: Whole
    loss: float | None
    exact_match: Share | None
    hard_token_accuracy: Share | None
    samples_per_second: Number | None
    seconds_left: Number | None
    outcome: Name | None
    error: str | None
    host: str | None
    pid: Process | None
    job: Name | None
    requeued: Whole
    sent: bool
    reason: str


class TaskRecord(TypedDict):
    """The task in a result."""

    name: Name
    settings: dict[str, Any]
    hard_position: NotRequired[Whole | None]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """result.json: metrics, outcome and costs. The file also holds task-specific metrics: see `shares`."""

    schema: Whole
    identity: Name
    outcome: Name
    exact_match: Proportion
    samples_seen: Whole
    steps: Whole
    hard_token_accuracy: Proportion | None = None
    cheat_accuracy: Proportion | None = None
    token_accuracy: list[Proportion] = []
    forced_token_accuracy: list[Proportion] | None = None
    chance: Share | None = None
    task: TaskRecord | None = None
    judged_by: Name | None = None
    parameters: Whole | None = None
    flops: Number | None = None
    seconds: Number | None = None
    samples_per_second: Number | None = None
    accelerator: Name | None = None
    git_commit: Name | None = None


class Sweep(TypedDict):
    """A record in .sweeps: the overrides of each run, by folder name."""

    runs: dict[str, list[str]]


def read(path: Path, kind: type[T]) -> T | None:
    """The content of a JSON file; None if it does not exist.

    Raises:
        Malformed: it cannot be read, is not valid JSON, or does not match the schema `kind`.
    """
    text = text_of(path)
    return None if text is None else parse(path.name, text, kind)


def parse(name: str, text: str, kind: type[T]) -> T:
    """Parse the text of a JSON file.

    Raises:
        Malformed: it is not valid JSON, or does not match the schema `kind`.
    """
    try:  # not msgspec's parser: it rejects file names that are not UTF-8, which nextfail may write
        content = json.loads(text)
    except RecursionError as error:
        raise Malformed(f"{name} is nested too deeply") from error
    except ValueError as error:
        raise Malformed(f"{name} is damaged: {error}") from error
    return check(name, content, kind)


def text_of(path: Path) -> str | None:
    """The content of a text file; None if it does not exist.

    Raises:
        Malformed: it cannot be read, is not a regular file, is too large or is not UTF-8.
    """
    try:
        return read_text(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Malformed(f"{path.name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise Malformed(f"{path.name} is not UTF-8") from error


def lenient(path: Path, kind: type[T]) -> T | None:
    """As `read`, but None for a malformed file."""
    try:
        return read(path, kind)
    except Malformed:
        return None


def check(name: str, content: Any, kind: type[T]) -> T:
    """Convert parsed content to the schema `kind`.

    Raises:
        Malformed: it does not match.
    """
    try:
        return msgspec.convert(content, kind)
    except (msgspec.ValidationError, RecursionError, UnicodeError) as error:
        raise Malformed(f"{name} {ODD}: {_where(error)}") from error


def shares(content: Mapping[str, Any]) -> dict[str, Proportion]:
    """Every metric of a result.json that is a proportion."""
    found = {}
    for key, value in content.items():
        if isinstance(value, dict):
            try:
                found[key] = msgspec.convert(value, Proportion)
            except (msgspec.ValidationError, UnicodeError):
                continue  # such as `task`
    return found


def _where(error: Exception) -> str:
    """Where the error is, and what was expected: "exact_match.value: Expected `float`, got `str`"."""
    what, _, where = str(error).partition(" - at `$.")
    return f"{where.rstrip('`')}: {what}" if where else what
