"""The task protocol: tokens, sampling and canonical keys of problems, and scoring of answers.

The rest of nextfail uses tasks through this protocol only. docs/tasks.md lists the tasks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from nextfail.errors import UserError


class Batch(NamedTuple):
    """Problems as token ids, of any integer type."""

    prompts: Tensor  # (B, P)
    answers: Tensor  # (B, L); shorter ones end in the task's end token and are padded
    mask: Tensor  # (B, L) bool: the positions of an answer that count, including its end token

    @classmethod
    def full(cls, prompts: Tensor, answers: Tensor) -> "Batch":
        """Problems whose answers all have the same length."""
        return cls(prompts, answers, torch.ones_like(answers, dtype=torch.bool))

    def long(self) -> "Batch":
        """The same problems as int64, as embeddings and losses require."""
        return Batch(self.prompts.long(), self.answers.long(), self.mask)

    def to(self, device: torch.device | str) -> "Batch":
        """The same problems on a device."""
        return Batch(*(each.to(device) for each in self))

    def rows(self, index: Tensor | slice) -> "Batch":
        """The problems at `index`."""
        return Batch(*(each[index] for each in self))

    @staticmethod
    def join(parts: list["Batch"]) -> "Batch":
        """Concatenation of batches."""
        return Batch(*map(torch.cat, zip(*parts, strict=True)))


class Share(NamedTuple):
    """For each problem, how many predictions are right, and out of how many."""

    right: Tensor  # (B,) int or bool
    asked: Tensor  # (B,) int or bool


class Probe(NamedTuple):
    """An evaluation besides free decoding: is the rest right, given the first `prefix` tokens of the answer?"""

    name: str
    prefix: int


class Vocabulary(Protocol):
    """The tokens of a task. Ids from `size` on are free for an objective's own tokens."""

    @property
    def size(self) -> int:
        """Number of ids that can be generated."""

    @property
    def texts(self) -> list[str]:
        """Text of each id."""

    @property
    def equals(self) -> int:
        """The last token of every prompt."""

    @property
    def blank(self) -> int:
        """A blank or mask token, as in teacherless training."""

    @property
    def end(self) -> int | None:
        """The end token of answers; None if all answers have the same length."""

    @property
    def pairs(self) -> int | None:
        """N if a pair u, v of the first N ids is one prompt token, -1 - (u N + v); otherwise None."""


class Task(ABC):
    """A task at one size: a frozen dataclass of its settings, all of which are part of a run's identity."""

    metrics: ClassVar[tuple[str, ...]] = ()
    """Names that `score` adds to `exact_match`, in report order."""

    forced_metrics: ClassVar[tuple[str, ...]] = ()
    """Names that `score_forced` returns, in report order."""

    probes: ClassVar[tuple[Probe, ...]] = ()

    hard_position: ClassVar[int | None] = None
    """Position of the hard token in the answer, if the task has exactly one."""

    group: int = 1
    """Number of consecutive problems that stay together in training batches."""

    @property
    def title(self) -> str:
        """Its name in tables, such as G(2,5)."""
        return str(self)

    @property
    @abstractmethod
    def vocab(self) -> Vocabulary:
        """Token ids and texts."""

    @property
    @abstractmethod
    def prompt_length(self) -> int:
        """Prompt length P in tokens."""

    @property
    @abstractmethod
    def answer_length(self) -> int:
        """Length L of the longest answer in tokens, including its end token."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """Exact match of a model that has learned everything except what is hard."""

    @property
    @abstractmethod
    def distinct(self) -> int:
        """Number of problems with distinct keys."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator, group: int = 1) -> Batch:
        """Sample `count` problems, a pure function of the generator.

        Args:
            count: a multiple of `group`.
            group: number of consecutive problems that belong together; 1 for independent ones.
        """

    @abstractmethod
    def keys(self, batch: Batch) -> Tensor:
        """Canonical keys (B,), int64: equal for problems that must not be in different sets."""

    def score(self, decoded: Tensor, batch: Batch) -> dict[str, Share]:
        """Scores of decoded answers (B, L): `exact_match`, and every name in `metrics`.

        By default an answer is right if all tokens that count are.
        """
        return {"exact_match": all_right(decoded, batch)}

    def score_forced(self, forced: Tensor, batch: Batch) -> dict[str, Share]:
        """Scores of forced predictions (B, L), each given the true tokens before it: every name in `forced_metrics`.

        Not called for objectives without a forced pass.
        """
        return {}

    @abstractmethod
    def outcome(self, metrics: Mapping[str, Any], finite: bool, judged_by: str) -> str:
        """Outcome of a run in one word.

        Args:
            metrics: of the test set, by name, as in result.json.
            finite: whether the loss stayed finite.
            judged_by: the metric by which the objective is judged.
        """

    def known_prefix(self, prompts: Tensor) -> Tensor:
        """Answer tokens before `hard_position` (B, hard_position), if the prompt determines them.

        Raises:
            UserError: this task does not have exactly one hard token.
        """
        raise UserError(f"{type(self).__name__} has no one hard token")

    def resized(self, settings: Mapping[str, Any]) -> Self:
        """The same task at another size that a model trained on this one can still read.

        Raises:
            UserError: there is no such size.
        """
        raise UserError(f"{type(self).__name__} has no other sizes to evaluate on")

    def read(self, path: Path) -> Batch:
        """Problems of a text file.

        Raises:
            UserError: this task has no text format, or the file does not follow it.
        """
        raise UserError(f"{type(self).__name__} has no text format: use drawn data")

    def require_files(self) -> None:  # noqa: B027, most tasks have nothing to refuse
        """Check that every setting has an effect on problems read from files.

        Raises:
            UserError: a setting has none.
        """

    def lines(self, batch: Batch) -> Iterator[str]:
        """Each problem as a line of the text format.

        Raises:
            UserError: this task has no text format.
        """
        raise UserError(f"{type(self).__name__} has no text format")

    def spell(self, tokens: Tensor) -> list[list[str]]:
        """Texts of tokens (B, T): a pair as `u,v`, an objective's own id as `<id>`."""
        texts, pairs = self.vocab.texts, self.vocab.pairs

        def text(token: int) -> str:
            if token < 0 and pairs:
                return ",".join(texts[each] for each in divmod(-1 - token, pairs))
            return texts[token] if 0 <= token < len(texts) else f"<{token}>"

        return [[text(token) for token in row] for row in tokens.tolist()]

    def example(self, batch: Batch, decoded: Tensor) -> list[dict[str, Any]]:
        """Problems and decoded answers as plain values, for examples.json and the task's figure."""
        rows = zip(batch.prompts.tolist(), batch.answers.tolist(), decoded.tolist(), strict=True)
        return [dict(zip(("prompt", "answer", "generated"), row, strict=True)) for row in rows]


def up_to_end(tokens: Tensor, end: int) -> Tensor:
    """Mask (B, L) of the answer positions that count: those up to the first end token."""
    ends = tokens == end
    return ends.cumsum(1) - ends.long() == 0


def all_right(decoded: Tensor, batch: Batch, start: int = 0) -> Share:
    """Whether all tokens that count are right, from position `start` on, for answers that have any there."""
    right, asked = ((decoded == batch.answers) | ~batch.mask)[:, start:].all(1), batch.mask[:, start:].any(1)
    return Share(right & asked, asked)


def token_right(decoded: Tensor, batch: Batch, place: int) -> Share:
    """Whether the token at one position is right, for answers that have one there."""
    asked = batch.mask[:, place]
    return Share((decoded[:, place] == batch.answers[:, place]) & asked, asked)
