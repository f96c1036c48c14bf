"""The objective protocol: from a batch to a loss, and from a prompt to a decoded answer.

Notation of the drawings: the prompt ends in "=", the answer is r0 r1 ... (in a path-star problem r0 is the start, r1
the hard token, the last one the goal). Inputs are drawn above their labels; `.` marks a position without a label.
Shorter answers end in the task's end token; positions after it have no label.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models.backbone import Backbone
from nextfail.tasks.base import Batch, Task, Vocabulary, up_to_end

IGNORE = -100
"""Label of positions that the loss ignores, as in torch's cross-entropy."""


@dataclass
class Loss:
    """Result of the forward pass of a training step."""

    total: Tensor  # scalar, to be minimised
    logits: Tensor  # (B, K, V)
    labels: Tensor  # (B, K), IGNORE at positions without a label
    parts: dict[str, Tensor] = field(default_factory=dict)  # scalar terms of the total, by name

    def plus(self, **more: Tensor) -> "Loss":
        """This next-token loss plus further terms."""
        parts = {"next_token": self.total, **more}
        return replace(self, total=torch.stack(list(parts.values())).sum(), parts=parts)


@dataclass
class Predictions:
    """Decoded answers (B, L), first token first whatever the order of writing; None where not applicable."""

    generated: Tensor  # free generation: fed its own tokens
    forced: Tensor | None = None  # each token predicted from the true ones before it, in the objective's order
    probed: dict[str, Tensor] = field(default_factory=dict)  # generated from a true prefix, by probe name


class Objective(nn.Module):
    """Next-token prediction; subclasses change the order, the inputs, the targets or the decoding.

    To define another objective, override only what differs: `write` and `read` (token order), `inputs` (what the model
    reads), `states` (how hidden states are computed), `loss` (the targets), `answer` (hidden states to logits),
    `generate` (decoding, with `pick`), `build` (additional heads).
    """

    extra_tokens: int = 0
    """Number of extra token ids; they start at `self.vocab.size`."""

    requires: frozenset[str] = frozenset()
    """Required backbone capabilities, from nextfail.models.backbone."""

    takes_given: bool = True
    """Whether `generate` can continue a true prefix of the answer, as a task's probes require."""

    reads_prompt_once: bool = True
    """Whether `predict` may share one pass over the prompt; False if `inputs`, `states`, `generate` or `forced` is
    overridden."""

    judged_by: str = "exact_match"
    """Metric that determines a run's outcome."""

    task: Task
    vocab: Vocabulary
    _sampler: "Sampler | None" = None

    def attach(self, task: Task, backbone: Backbone) -> None:
        """Bind this objective to a task and a backbone, once, before training.

        Raises:
            UserError: the backbone lacks a required capability, or `reads_prompt_once` or `takes_given` contradicts the
                overridden methods.
        """
        missing = sorted(self.requires - backbone.capabilities)
        if missing:
            raise UserError(f"{type(self).__name__} needs a backbone with {' and '.join(missing)}, which "
                            f"{type(backbone).__name__} does not have: see docs/backbones.md")  # fmt: skip
        self.task, self.vocab = task, task.vocab
        own = [way for way in ("inputs", "states", "generate", "forced") if way in _overridden(type(self))]
        if own and self.reads_prompt_once:
            raise UserError(f"{type(self).__name__} has {' and '.join(own)} of its own: set reads_prompt_once = False")
        if self.takes_given and type(self).write is not Objective.write:
            raise UserError(f"{type(self).__name__} writes in an order of its own, in which a prefix from the start "
                            "has no place: set takes_given = False")  # fmt: skip
        self.build(backbone)

    def build(self, backbone: Backbone) -> None:
        """Create additional heads, as submodules; by default there are none."""

    def max_length(self, task: Task) -> int:
        """Longest sequence that the backbone reads, in tokens."""
        return task.prompt_length + self.written_length(task.answer_length)

    def written_length(self, length: int) -> int:
        """Number of tokens written for an answer of `length` tokens."""
        return length

    def write(self, answers: Tensor) -> Tensor:
        """Answers (B, L) in the order in which the model writes them."""
        return answers

    def read(self, written: Tensor, layout: Tensor | None = None) -> Tensor:
        """Inverse of `write`.

        Args:
            written: tokens (B, l) in written order.
            layout: written answers (B, l) that determine the positions; `written` itself if None. Forced predictions
                take the positions of the true tokens.
        """
        return written

    def labels(self, written: Tensor) -> Tensor:
        """Written tokens (B, l) as labels: IGNORE after the end token, if the task has one."""
        return written if self.vocab.end is None else written.masked_fill(~self.counts(written), IGNORE)

    def counts(self, written: Tensor) -> Tensor:
        """Mask (B, l) of the positions of written answers that count: those up to the first end token."""
        if self.vocab.end is None:
            return torch.ones_like(written, dtype=torch.bool)
        return up_to_end(written, self.vocab.end)

    def backwards(self, answers: Tensor, layout: Tensor | None = None) -> Tensor:
        """Answers (B, L) reversed; end tokens stay in place.

        Args:
            layout: answers that determine the lengths; `answers` themselves if None.
        """
        if self.vocab.end is None:
            return answers.flip(1)
        place = torch.arange(answers.shape[1], device=answers.device)
        length = self.lengths(answers if layout is None else layout)
        return answers.gather(1, torch.where(place < length, length - 1 - place, place))

    def lengths(self, answers: Tensor) -> Tensor:
        """Number of tokens (B, 1) of each answer (B, L), excluding end tokens."""
        return (self.counts(answers) & (answers != self.vocab.end)).sum(1, keepdim=True)

    def inputs(self, prompts: Tensor, written: Tensor) -> Tensor:
        """Model inputs (B, T) to predict `written` (B, l), whose logits come from the last l positions."""
        return torch.cat([prompts, written[:, :-1]], 1)

    def states(self, backbone: Backbone, prompts: Tensor, written: Tensor) -> Tensor:
        """Hidden states (B, l, C) that predict each token of `written` (B, l), given the tokens before it."""
        hidden: Tensor = backbone(self.inputs(prompts, written), last=written.shape[1])
        return hidden

    def answer(self, backbone: Backbone, hidden: Tensor) -> Tensor:
        """Token logits (B, k, V) from hidden states (B, k, C)."""
        return backbone.logits(hidden)

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        """Mean cross-entropy over the answer's tokens."""
        written = self.write(batch.answers)
        return self.next_token(backbone, self.states(backbone, batch.prompts, written), written)

    def next_token(self, backbone: Backbone, hidden: Tensor, written: Tensor) -> Loss:
        """Mean cross-entropy of `written` (B, l), predicted from hidden states (B, l, C)."""
        return self.cross_entropy(self.answer(backbone, hidden), self.labels(written))

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Loss:
        """Mean cross-entropy of logits (B, K, V) over the labels (B, K) that are not IGNORE."""
        flat, wanted = logits.flatten(0, 1).float(), labels.flatten()
        if self.vocab.end is None:
            total = F.cross_entropy(flat, wanted, ignore_index=IGNORE)
        else:
            total = F.cross_entropy(flat, wanted, ignore_index=IGNORE, reduction="sum")
            total = total / (wanted != IGNORE).sum().clamp(min=1)  # 0 at positions that no answer reaches
        return Loss(total, logits, labels)

    def mean(self, values: Tensor, counts: Tensor) -> Tensor:
        """Mean of values (B, K) over the positions (B, K) that count; 0 if none does."""
        if self.vocab.end is None:
            return values.mean()
        return (values * counts).sum() / counts.sum().clamp(min=1)

    @torch.no_grad()
    def forced(self, backbone: Backbone, batch: Batch) -> Tensor | None:
        """Forced predictions (B, L), first token first, or None if the objective has no forced pass."""
        written = self.write(batch.answers)
        hidden = self.states(backbone, batch.prompts, written)
        return self.read(self.answer(backbone, hidden).argmax(-1), written)

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        """Answers (B, length), first token first, continuing the true prefix `given` (B, g) if there is one.

        Tokens after an end token are undefined.
        """
        self.refuse_prefix(given)
        hidden, cache = backbone.step(prompts, last=1)
        return self.read(self._continue(backbone, hidden, cache, self.written_length(length), given))

    def pick(self, logits: Tensor) -> Tensor:
        """Next tokens (...) from their logits (..., V): the most probable ones, or drawn ones while `sampling`."""
        return logits.argmax(-1) if self._sampler is None else self._sampler(logits)

    @contextmanager
    def sampling(self, temperature: float, generator: torch.Generator) -> Iterator[None]:
        """Within this context, `generate` samples tokens instead of taking the most probable ones.

        Args:
            temperature: divides the logits, above 0.
            generator: on the device of the model.

        Raises:
            UserError: `generate` chose its tokens without `pick`, so that nothing was sampled.
        """
        self._sampler = sampler = Sampler(temperature, generator)
        try:
            yield
        finally:
            self._sampler = None
        if not sampler.used:
            raise UserError(
                f"{type(self).__name__} does not choose its tokens with `pick`, so its answers cannot be sampled"
            )

    def refuse_prefix(self, given: Tensor | None) -> None:
        """Refuse a true prefix that this objective cannot continue.

        Raises:
            UserError: a prefix is given and `takes_given` is False.
        """
        if given is not None and not self.takes_given:
            raise UserError(f"{type(self).__name__} cannot continue a true prefix")

    @torch.no_grad()
    def predict(self, backbone: Backbone, batch: Batch) -> Predictions:
        """All predictions for evaluation, from `generate` and `forced`, sharing one pass over the prompt if allowed."""
        prompts, length = batch.prompts, batch.answers.shape[1]
        given = {probe.name: batch.answers[:, : probe.prefix] for probe in self.task.probes if self.takes_given}
        if not self.reads_prompt_once:
            probed = {name: self.generate(backbone, prompts, length, prefix) for name, prefix in given.items()}
            return Predictions(self.generate(backbone, prompts, length), self.forced(backbone, batch), probed)
        hidden, cache = backbone.step(prompts, last=1)
        count = self.written_length(length)
        generated = self._continue(backbone, hidden, cache, count)
        probed = {
            name: self.read(self._continue(backbone, hidden, cache, count, prefix)) for name, prefix in given.items()
        }
        true = self.write(batch.answers)
        rest, _ = backbone.step(true[:, :-1], cache)
        forced = self.answer(backbone, torch.cat([hidden, rest], 1)).argmax(-1)  # (B, count)
        return Predictions(self.read(generated), self.read(forced, true), probed)

    def _continue(
        self, backbone: Backbone, hidden: Tensor, cache: Any, length: int, given: Tensor | None = None
    ) -> Tensor:
        """Write `length` tokens; hidden (B, 1, C) and cache are those of the prompt.

        Once all answers have ended, the rest is filled with end tokens.
        """
        written = hidden.new_empty(len(hidden), 0, dtype=torch.long)
        if given is not None and given.shape[1]:
            written = given
            hidden, cache = backbone.step(given, cache, last=1)
        while written.shape[1] < length:
            written = torch.cat([written, self.pick(self.answer(backbone, hidden))], 1)
            if self.vocab.end is not None and bool((written == self.vocab.end).any(1).all()):
                return F.pad(written, (0, length - written.shape[1]), value=self.vocab.end)
            if written.shape[1] < length:
                hidden, cache = backbone.step(written[:, -1:], cache)
        return written


class Sampler:
    """Draws tokens from softmax(logits / temperature); takes the largest logit where that is not finite.

    Args:
        temperature: above 0.
        generator: on the device of the logits.
    """

    def __init__(self, temperature: float, generator: torch.Generator) -> None:
        self.temperature, self.generator, self.used = temperature, generator, False

    def __call__(self, logits: Tensor) -> Tensor:
        """Tokens (...) from logits (..., V)."""
        self.used = True
        logits = logits.float()
        shares = ((logits - logits.amax(-1, keepdim=True)) / self.temperature).softmax(-1)
        greedy = F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        shares = torch.where(shares.isfinite().all(-1, keepdim=True), shares, greedy)  # of a model that has diverged
        return torch.multinomial(shares.flatten(0, -2), 1, generator=self.generator).view(logits.shape[:-1])


def _overridden(cls: type) -> set[str]:
    """Names of the methods that a subclass defines."""
    return {name for each in cls.__mro__[: cls.__mro__.index(Objective)] for name in vars(each)}
