"""Star graphs with an arm length sampled per problem, and goals at leaves or at any node."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from nextfail.config import AtLeast1, AtLeast2, AtLeast3
from nextfail.errors import UserError
from nextfail.source import public
from nextfail.tasks.base import Batch, Share, all_right, token_right, up_to_end
from nextfail.tasks.path_star.task import PathStar, Star
from nextfail.tasks.path_star.vocab import Vocab
from nextfail.tasks.sampling import mix
from nextfail.tasks.star_mixed import facts


class MixedVocab(Vocab):
    """The tokens of star graphs plus two: "." ends an answer, "_" pads short prompts on the left."""

    @property
    def end(self) -> int:  # type: ignore[override]
        """ ".", the end of an answer."""
        return self.num_nodes + 4

    @property
    def fill(self) -> int:
        """ "_", padding before the first edge."""
        return self.num_nodes + 5

    @property
    def size(self) -> int:
        return self.num_nodes + 6

    @property
    def texts(self) -> list[str]:
        return [*super().texts, ".", "_"]


@public("star_mixed", revision=2)
@dataclass(frozen=True)
class StarMixed(Star):
    """G(degree, l) with l sampled uniformly from `shortest`..`longest` for each problem.

    A prompt of G(2,3), with a longest arm of 4, and its answer:

        _ _ _ _ _ _ 7 1 | 1 4 | 7 3 | 3 9 / 7 4 =        7 1 4 . .

    Answers end in "."; short prompts are left-padded with "_", so that all prompts end at the same position.

    Args:
        degree: number of arms d.
        shortest: minimum nodes per arm, including the start; all arms of a graph have the same length.
        longest: maximum nodes per arm.
        num_nodes: number of node labels N to sample from.
        goal: the last node of an arm ("leaf"), or a uniformly random node except the start ("any").
        edges_as: three tokens per edge ("triples") or one ("tokens").

    Raises:
        UserError: as for `PathStar`, for any of the lengths; or `shortest` is above `longest`.
    """

    degree: AtLeast2
    shortest: AtLeast3
    longest: AtLeast3
    num_nodes: AtLeast1
    goal: Literal["leaf", "any"] = "leaf"
    edges_as: Literal["triples", "tokens"] = "triples"

    def __post_init__(self) -> None:
        if self.shortest > self.longest:
            raise UserError(f"task.shortest={self.shortest} is above task.longest={self.longest}")
        if (excess := self.vocab.size - 2**15) > 0:
            raise UserError(f"task.num_nodes={self.num_nodes} is too large: tokens are stored in 16 bits, "
                            f"which allows {self.num_nodes - excess}")  # fmt: skip
        assert self.sizes  # each size validates itself

    def __str__(self) -> str:
        return self.title

    @property
    def title(self) -> str:
        return facts.title(self.degree, self.shortest, self.longest, self.num_nodes, self.goal)

    @property
    def chance(self) -> float:
        """Hard-token accuracy of a guess among the neighbours of the start; a goal that is one of them is the hop."""
        return facts.chance(self.degree, self.shortest, self.longest, self.goal)

    @cached_property
    def sizes(self) -> list[PathStar]:
        """All sizes, shortest first."""
        lengths = range(self.shortest, self.longest + 1)
        return [PathStar(self.degree, length, self.num_nodes, edges_as=self.edges_as) for length in lengths]

    @property
    def metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        """Hard-token accuracy, and exact match for each path length."""
        return "hard_token_accuracy", *(f"length_{length}_accuracy" for length in self.lengths)

    @property
    def lengths(self) -> range:
        """Path lengths that occur, in nodes from the start to the goal."""
        return range(self.shortest if self.goal == "leaf" else 2, self.longest + 1)

    @property
    def vocab(self) -> MixedVocab:
        return MixedVocab(self.num_nodes, self.edges_as == "tokens")

    @property
    def prompt_length(self) -> int:
        return self.sizes[-1].prompt_length

    @property
    def answer_length(self) -> int:
        return self.longest + 1

    @property
    def distinct(self) -> int:
        return sum(size.distinct for size in self.sizes)

    def sample(self, count: int, generator: torch.Generator, group: int = 1) -> Batch:
        if group != 1:
            raise UserError(f"{type(self).__name__} draws independent problems")
        vocab = self.vocab
        prompts = torch.full((count, self.prompt_length), vocab.fill, dtype=torch.int16)
        answers = torch.full((count, self.answer_length), vocab.end, dtype=torch.int16)
        which = torch.randint(len(self.sizes), (count,), generator=generator)
        for number, size in enumerate(self.sizes):
            rows = (which == number).nonzero()[:, 0]
            drawn = size.sample(len(rows), generator)
            last = torch.full((len(rows), 1), size.path_length - 1)
            if self.goal == "any":
                last = torch.randint(1, size.path_length, (len(rows), 1), generator=generator)
            edges, starts, _ = size.vocab.split(drawn.prompts)
            paths = drawn.answers.to(torch.int16)
            goals = paths.gather(1, last)[:, 0]
            written = size.vocab.layout(edges, starts, goals).to(torch.int16)
            prompts[rows, self.prompt_length - size.prompt_length :] = written
            beyond = torch.arange(size.path_length) > last
            answers[rows, : size.path_length] = paths.masked_fill(beyond, vocab.end)
        return Batch(prompts, answers, up_to_end(answers, vocab.end))

    def keys(self, batch: Batch) -> Tensor:
        """As for `PathStar`: equal for the same undirected edges and start, whatever the goal."""
        padded = batch.prompts.long()
        pair = -1 if self.edges_as == "tokens" else 0  # any edge: masked below
        edges, start, _ = self.vocab.split(padded.masked_fill(padded == self.vocab.fill, pair))
        width = 1 if self.edges_as == "tokens" else 3
        real = padded[:, : width * edges.shape[1]].unflatten(1, (-1, width))[..., 0] != self.vocab.fill
        one, other = edges.unbind(-1)
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        return (mix(low * self.num_nodes + high) * real).sum(1) + mix(-1 - start)

    def score(self, decoded: Tensor, batch: Batch) -> dict[str, Share]:
        exact, hard = all_right(decoded, batch), token_right(decoded, batch, self.hard_position)
        nodes = batch.mask.sum(1) - 1  # without the end token
        found = {"exact_match": exact, "hard_token_accuracy": hard}
        for name, length in zip(self.metrics[1:], self.lengths, strict=True):
            found[name] = Share(exact.right & (nodes == length), nodes == length)
        return found

    def known_prefix(self, prompts: Tensor) -> Tensor:
        """The start (B, 1), which the query names."""
        return prompts[:, -3:-2]
