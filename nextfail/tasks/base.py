"""What a task owns: its tokens, how problems are drawn and told apart, and when an answer is right.

Everything else of nextfail knows a task through this protocol alone. docs/tasks.md lists the tasks there are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from nextfail.errors import UserError


class Batch(NamedTuple):
    """Problems as tokens, of any integer type."""

    prompts: Tensor  # (B, P)
    answers: Tensor  # (B, L); shorter ones end in the task's end token and are padded
    mask: Tensor  # (B, L) bool: the places of an answer that count, its end token among them

    @classmethod
    def full(cls, prompts: Tensor, answers: Tensor) -> "Batch":
        """Problems whose answers all have the same length."""
        return cls(prompts, answers, torch.ones_like(answers, dtype=torch.bool))

    def long(self) -> "Batch":
        """The same problems as int64, the type that embeddings and losses want."""
        return Batch(self.prompts.long(), self.answers.long(), self.mask)

    def to(self, device: torch.device | str) -> "Batch":
        """The same problems on a device."""
        return Batch(*(each.to(device) for each in self))

    def rows(self, index: Tensor | slice) -> "Batch":
        """The problems at `index`."""
        return Batch(*(each[index] for each in self))

    @staticmethod
    def join(parts: list["Batch"]) -> "Batch":
        """All problems of some batches."""
        return Batch(*map(torch.cat, zip(*parts, strict=True)))


class Share(NamedTuple):
    """Of each problem, how much of something is right."""

    right: Tensor  # (B,) int or bool
    asked: Tensor  # (B,) int or bool


class Probe(NamedTuple):
    """A question beside free decoding: is all the rest right, given the first `prefix` tokens of the answer?"""

    name: str
    prefix: int


class Vocabulary(Protocol):
    """The tokens of a task. Ids from `size` on are free for an objective's own."""

    @property
    def size(self) -> int:
        """Number of ids that can be written."""

    @property
    def texts(self) -> list[str]:
        """How each id is written."""

    @property
    def equals(self) -> int:
        """The last token of every prompt."""

    @property
    def blank(self) -> int:
        """A place without a token, as in teacherless training."""

    @property
    def end(self) -> int | None:
        """What ends an answer; None where all answers have one length."""

    @property
    def pairs(self) -> int | None:
        """N, where a pair u, v of the first N ids is one token of a prompt, -1 - (u N + v); else None."""


class Task(ABC):
    """One task at one size: a frozen dataclass of its settings, every one of which the identity of a run holds."""

    metrics: ClassVar[tuple[str, ...]] = ()
    """Names that `score` adds to `exact_match`, in the order of reports."""

    forced_metrics: ClassVar[tuple[str, ...]] = ()
    """Names that `score_forced` gives, in the order of reports."""

    probes: ClassVar[tuple[Probe, ...]] = ()

    hard_position: ClassVar[int | None] = None
    """Place of the one token of an answer that is hard to learn, if the task has just one."""

    group: int = 1
    """Problems in a row that belong together when training batches are drawn."""

    @property
    def title(self) -> str:
        """What tables call it, such as G(2,5)."""
        return str(self)

    @property
    @abstractmethod
    def vocab(self) -> Vocabulary:
        """Its tokens."""

    @property
    @abstractmethod
    def prompt_length(self) -> int:
        """Tokens P of every prompt."""

    @property
    @abstractmethod
    def answer_length(self) -> int:
        """Tokens L of the longest answer, its end token included."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """The exact match of a model that has learned all but what is hard."""

    @property
    @abstractmethod
    def distinct(self) -> int:
        """How many problems exist that may stand in different sets."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator, group: int = 1) -> Batch:
        """Draw `count` problems, a pure function of the generator.

        Args:
            count: a multiple of `group`.
            group: problems in a row that belong together; 1 for independent ones.
        """

    @abstractmethod
    def keys(self, batch: Batch) -> Tensor:
        """Canonical keys (B,), int64: equal for problems that must not stand in two sets."""

    def score(self, decoded: Tensor, batch: Batch) -> dict[str, Share]:
        """How right decoded answers (B, L) are: `exact_match`, and every name in `metrics`.

        By default an answer is right when every token that counts is.
        """
        return {"exact_match": all_right(decoded, batch)}

    def score_forced(self, forced: Tensor, batch: Batch) -> dict[str, Share]:
        """How right forced predictions (B, L) are, each fed with the true tokens before it: every name in
        `forced_metrics`. Not asked of an objective that has no forced pass."""
        return {}

    @abstractmethod
    def outcome(self, metrics: Mapping[str, Any], finite: bool, judged_by: str) -> str:
        """The result of a run in one word.

        Args:
            metrics: of the test set, by name, as result.json holds them.
            finite: whether the loss stayed so.
            judged_by: the metric by which the objective is judged.
        """

    def known_prefix(self, prompts: Tensor) -> Tensor:
        """The tokens of the answers before `hard_position` (B, hard_position), where a prompt tells them.

        Raises:
            UserError: this task has no one hard token.
        """
        raise UserError(f"{type(self).__name__} has no one hard token")

    def resized(self, settings: Mapping[str, Any]) -> Self:
        """The same task at another size that a model of this one can still read.

        Raises:
            UserError: it cannot.
        """
        raise UserError(f"{type(self).__name__} has no other sizes to evaluate on")

    def read(self, path: Path) -> Batch:
        """The problems of a text file.

        Raises:
            UserError: this task has no text format, or the file is not in it.
        """
        raise UserError(f"{type(self).__name__} has no text format: use drawn data")

    def require_files(self) -> None:  # noqa: B027, most tasks have nothing to refuse
        """Make sure that every setting has an effect on problems that are read from files.

        Raises:
            UserError: one has none.
        """

    def lines(self, batch: Batch) -> Iterator[str]:
        """Each problem as a line of its text format.

        Raises:
            UserError: it has none.
        """
        raise UserError(f"{type(self).__name__} has no text format")

    def spell(self, tokens: Tensor) -> list[list[str]]:
        """How each of some tokens (B, T) is written: a pair as `u,v`, an objective's own id as `<id>`."""
        texts, pairs = self.vocab.texts, self.vocab.pairs

        def text(token: int) -> str:
            if token < 0 and pairs:
                return ",".join(texts[each] for each in divmod(-1 - token, pairs))
            return texts[token] if 0 <= token < len(texts) else f"<{token}>"

        return [[text(token) for token in row] for row in tokens.tolist()]

    def example(self, batch: Batch, decoded: Tensor) -> list[dict[str, Any]]:
        """Problems and what was decoded, as plain values for examples.json and the task's figure."""
        rows = zip(batch.prompts.tolist(), batch.answers.tolist(), decoded.tolist(), strict=True)
        return [dict(zip(("prompt", "answer", "generated"), row, strict=True)) for row in rows]


def up_to_end(tokens: Tensor, end: int) -> Tensor:
    """Which places (B, L) of answers count: those up to the first end token."""
    ends = tokens == end
    return ends.cumsum(1) - ends.long() == 0


def all_right(decoded: Tensor, batch: Batch, start: int = 0) -> Share:
    """Whether every token that counts is right, from place `start` on, of the answers that have any there."""
    right, asked = ((decoded == batch.answers) | ~batch.mask)[:, start:].all(1), batch.mask[:, start:].any(1)
    return Share(right & asked, asked)


def token_right(decoded: Tensor, batch: Batch, place: int) -> Share:
    """Whether the token at one place is right, of the answers that have one there."""
    asked = batch.mask[:, place]
    return Share((decoded[:, place] == batch.answers[:, place]) & asked, asked)
