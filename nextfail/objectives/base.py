"""What is asked of a backbone: everything between a batch and a loss, and between a prompt and a decoded path.

Notation of every drawing: the prompt ends in "=", the path is r0 r1 ... (r0 the start, r1 the hard token, the last one
the goal). Inputs stand over the labels that the model is asked for at them; `.` marks a place without a loss.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models.backbone import Backbone
from nextfail.tasks.path_star.graph import Batch, PathStar
from nextfail.tasks.path_star.vocab import Vocab

IGNORE = -100
"""The label of a place without a loss, as in torch's cross-entropy."""


@dataclass
class Loss:
    """What a training step yields."""

    total: Tensor  # scalar, to be minimised
    logits: Tensor  # (B, K, V)
    labels: Tensor  # (B, K), IGNORE where nothing is asked
    parts: dict[str, Tensor] = field(default_factory=dict)  # scalars that make up the total, by name

    def plus(self, **more: Tensor) -> "Loss":
        """The sum of this, the loss of the next token, and of more parts."""
        parts = {"next_token": self.total, **more}
        return replace(self, total=torch.stack(list(parts.values())).sum(), parts=parts)


@dataclass
class Predictions:
    """Decoded paths (B, l), start to goal whatever the order of writing; None where the question makes no sense."""

    generated: Tensor  # fed with itself
    forced: Tensor | None = None  # every token fed with the true ones before it, in the objective's order
    given_hop: Tensor | None = None  # generated after the true start and first hop


class Objective(nn.Module):
    """Next-token prediction of a written path; subclasses change what is written, read and asked.

    To define another, override the least of these that says it: `write` and `read` (the order), `inputs` (what the
    model sees), `states` (how it looks at them), `loss` (what is asked), `answer` (how a state becomes a token),
    `generate` (how a path is decoded), `build` (heads of its own).
    """

    extra_tokens: int = 0
    """How many token ids it needs beyond the vocabulary's own; they begin at `self.vocab.size`."""

    requires: frozenset[str] = frozenset()
    """Capabilities a backbone must have, from nextfail.models.backbone."""

    takes_given: bool = True
    """Whether `generate` can go on from a true prefix of the path, which cheat_accuracy needs."""

    hard_token_alone: bool = False
    """Whether only the first hop is asked, so that a run's outcome is judged on it and on nothing else."""

    graph: PathStar
    vocab: Vocab

    def attach(self, graph: PathStar, backbone: Backbone) -> None:
        """Fit this objective to a task and a backbone, once, before training.

        Raises:
            UserError: the backbone lacks what the objective requires, or the objective contradicts itself.
        """
        missing = sorted(self.requires - backbone.capabilities)
        if missing:
            raise UserError(
                f"{type(self).__name__} needs a backbone with {missing}, "
                f"and {type(backbone).__name__} has {sorted(backbone.capabilities)}"
            )
        self.graph, self.vocab = graph, graph.vocab
        if self.takes_given and type(self).write is not Objective.write:
            raise UserError(f"{type(self).__name__} writes in an order of its own, in which a prefix from the start "
                            "has no place: set takes_given = False")  # fmt: skip
        self.build(backbone)

    def build(self, backbone: Backbone) -> None:
        """Make heads of one's own here, as submodules; by default there are none."""

    def max_length(self, graph: PathStar) -> int:
        """Longest sequence in tokens that the backbone will read."""
        return graph.prompt_length + self.written_length(graph.path_length)

    def written_length(self, length: int) -> int:
        """How many tokens are written for a path of `length` tokens."""
        return length

    def write(self, paths: Tensor) -> Tensor:
        """Paths (B, l), or their first tokens, in the order in which the model writes them."""
        return paths

    def read(self, written: Tensor) -> Tensor:
        """The inverse of `write`."""
        return written

    def inputs(self, prompts: Tensor, written: Tensor) -> Tensor:
        """What the model reads to predict `written` (B, l): its last l positions answer for it. Returns (B, T)."""
        return torch.cat([prompts, written[:, :-1]], 1)

    def states(self, backbone: Backbone, prompts: Tensor, written: Tensor) -> Tensor:
        """The hidden states (B, l, C) that answer for each token of `written` (B, l), fed with the ones before it."""
        hidden: Tensor = backbone(self.inputs(prompts, written), last=written.shape[1])
        return hidden

    def answer(self, backbone: Backbone, hidden: Tensor) -> Tensor:
        """Logits (B, k, V) of the tokens that states (B, k, C) answer for."""
        return backbone.logits(hidden)

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        """Mean cross-entropy over the path's tokens."""
        written = self.write(batch.paths)
        return self.next_token(backbone, self.states(backbone, batch.prompts, written), written)

    def next_token(self, backbone: Backbone, hidden: Tensor, written: Tensor) -> Loss:
        """Mean cross-entropy of `written` (B, l) at the states (B, l, C) that answer for it."""
        return cross_entropy(self.answer(backbone, hidden), written)

    @torch.no_grad()
    def forced(self, backbone: Backbone, batch: Batch) -> Tensor | None:
        """Forced predictions (B, l), start to goal, or None if the objective has no forced pass."""
        hidden = self.states(backbone, batch.prompts, self.write(batch.paths))
        return self.read(self.answer(backbone, hidden).argmax(-1))

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        """Greedy paths (B, length), start to goal, after the true prefix `given` (B, g) if there is one."""
        self.refuse_prefix(given)
        hidden, cache = backbone.step(prompts, last=1)
        return self.read(self._continue(backbone, hidden, cache, self.written_length(length), given))

    def refuse_prefix(self, given: Tensor | None) -> None:
        """Say that no true prefix can be gone on from, rather than write nonsense after one.

        Raises:
            UserError: one is given, and `takes_given` is False.
        """
        if given is not None and not self.takes_given:
            raise UserError(f"{type(self).__name__} does not go on from a true prefix, so no prefix can be given to it")

    @torch.no_grad()
    def predict(self, backbone: Backbone, batch: Batch) -> Predictions:
        """All that evaluation asks: what `generate` and `forced` answer, with the prompt read once where it can be."""
        prompts, length, hop = batch.prompts, batch.paths.shape[1], batch.paths[:, :2]
        ways = ("generate", "forced", "inputs", "states")
        if any(getattr(type(self), way) is not getattr(Objective, way) for way in ways):
            given_hop = self.generate(backbone, prompts, length, hop) if self.takes_given else None
            return Predictions(self.generate(backbone, prompts, length), self.forced(backbone, batch), given_hop)
        hidden, cache = backbone.step(prompts, last=1)
        count = self.written_length(length)
        generated = self._continue(backbone, hidden, cache, count)
        given_hop = self.read(self._continue(backbone, hidden, cache, count, hop)) if self.takes_given else None
        rest, _ = backbone.step(self.write(batch.paths)[:, :-1], cache)
        forced = self.answer(backbone, torch.cat([hidden, rest], 1)).argmax(-1)  # (B, count)
        return Predictions(self.read(generated), self.read(forced), given_hop)

    def _continue(
        self, backbone: Backbone, hidden: Tensor, cache: Any, length: int, given: Tensor | None = None
    ) -> Tensor:
        """Write `length` tokens greedily; hidden (B, 1, C) and cache are those of the prompt."""
        written = hidden.new_empty(len(hidden), 0, dtype=torch.long)
        if given is not None and given.shape[1]:
            written = given
            hidden, cache = backbone.step(given, cache, last=1)
        while written.shape[1] < length:
            written = torch.cat([written, self.answer(backbone, hidden).argmax(-1)], 1)
            if written.shape[1] < length:
                hidden, cache = backbone.step(written[:, -1:], cache)
        return written


def whole_number(key: str, value: Any, least: int) -> int:
    """An objective's argument that is a whole number of at least `least`, or a UserError that says so."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"objective.{key}={value!r} is not a whole number of at least {least}")
    return value


def number(key: str, value: Any, most: float = math.inf) -> float:
    """An objective's argument that is a number from 0 to `most`, or a UserError that says so."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        expected = "of at least 0" if most == math.inf else f"from 0 to {most:g}"
        raise UserError(f"objective.{key}={value!r} is not a number {expected}")
    return value


def cross_entropy(logits: Tensor, labels: Tensor) -> Loss:
    """Mean cross-entropy of logits (B, K, V) over the labels (B, K) that are not IGNORE."""
    total = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE)
    return Loss(total, logits, labels)
