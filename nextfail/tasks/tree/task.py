"""Random trees with shuffled edges: the path from the root to a leaf, with a choice at every branching node."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import perm
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from nextfail.config import AtLeast2, AtLeast3, AtLeast4
from nextfail.errors import UserError
from nextfail.source import public
from nextfail.tasks.base import Batch, Share, Task, all_right, up_to_end
from nextfail.tasks.path_star.vocab import MOST_JOINED, Vocab
from nextfail.tasks.sampling import any_of, draw_without_replacement, mix
from nextfail.tasks.tree import facts
from nextfail.tasks.tree.outcome import judge

_MOST_NODES = 2**15 - 5  # maximum labels: all ids must fit in int16
_CHUNK = 4096  # trees sampled at a time
_ESTIMATE = 2**14  # problems to estimate chance from


class TreeVocab(Vocab):
    """The tokens of star graphs plus one: "." ends an answer."""

    @property
    def end(self) -> int:  # type: ignore[override]
        """ ".", the end of an answer."""
        return self.num_nodes + 4

    @property
    def size(self) -> int:
        return self.num_nodes + 5

    @property
    def texts(self) -> list[str]:
        return [*super().texts, "."]


@public("tree")
@dataclass(frozen=True)
class Tree(Task):
    """The path from the root of a random tree to one of its leaves.

    A prompt of 5 nodes, with root 7 and goal leaf 9, and its answer:

        3 9 | 7 1 | 3 5 | 7 3 / 7 9 =        7 3 9 . .

    Nodes are added one by one, each below a uniformly random node that has room: fewer than `children` children, and a
    depth that allows a path of at most `longest` nodes. Labels, edge order and the goal leaf are uniform; leaves
    directly below the root are never the goal, as there would be nothing to search for.

    Args:
        nodes: nodes per tree.
        children: maximum children per node; a token after a node with several is a choice.
        longest: maximum nodes in a path.
        num_nodes: number of node labels N to sample from.
        edges_as: three tokens per edge ("triples") or one ("tokens").

    Raises:
        UserError: a size is not a whole number, too small or too large, or such a tree has no room for so many nodes.
    """

    metrics: ClassVar = ("first_choice_accuracy",)
    forced_metrics: ClassVar = ("choice_accuracy", "copy_accuracy")

    nodes: AtLeast4
    children: AtLeast2
    longest: AtLeast3
    num_nodes: AtLeast4
    edges_as: Literal["triples", "tokens"] = "triples"

    def __post_init__(self) -> None:
        if self.nodes <= self.children + 1:
            raise UserError(f"task.nodes={self.nodes} is too small: needs at least {self.children + 2}, or all may be "
                            f"right below the root with task.children={self.children}")  # fmt: skip
        room = sum(self.children ** min(depth, 15) for depth in range(min(self.longest, 16)))
        if self.nodes > room:
            raise UserError(f"task.nodes={self.nodes} is too large: a tree with task.children={self.children} and "
                            f"task.longest={self.longest} has room for {room}")  # fmt: skip
        if self.longest > self.nodes:
            raise UserError(f"task.longest={self.longest} is too large: a tree has {self.nodes} nodes")
        if self.nodes > self.num_nodes:
            raise UserError(f"task.num_nodes={self.num_nodes} is too small: a tree has {self.nodes} nodes")
        most = MOST_JOINED if self.edges_as == "tokens" else _MOST_NODES
        if self.num_nodes > most:
            raise UserError(f"task.num_nodes={self.num_nodes} is too large: tokens are stored in 16 bits, which allows "
                            f"{most} with task.edges_as={self.edges_as}")  # fmt: skip

    def __str__(self) -> str:
        return self.title

    @property
    def title(self) -> str:
        return facts.title({key: getattr(self, key) for key in facts.SIZES})

    @property
    def vocab(self) -> TreeVocab:
        return TreeVocab(self.num_nodes, self.edges_as == "tokens")

    @property
    def prompt_length(self) -> int:
        return self.vocab.prompt_length(self.nodes - 1)

    @property
    def answer_length(self) -> int:
        return self.longest + 1

    @property
    def chance(self) -> float:
        """Expected exact match if every choice is a guess, estimated from sampled problems."""
        return self._guesses[0]

    @cached_property
    def _guesses(self) -> tuple[float, float]:
        """Accuracy of a model that picks any child: on all choices of a path, and on the first one."""
        ways = self.ways(self.sample(_ESTIMATE, torch.Generator().manual_seed(0)))
        first, asked = _first(1 / ways, ways > 1)
        return float((1 / ways).prod(1).mean()), float(first.sum() / asked.sum())

    @property
    def distinct(self) -> int:
        """A lower bound: labellings of one tree shape, whose leaves may all be interchangeable."""
        return perm(self.num_nodes, self.nodes) // perm(self.nodes - 1)

    def sample(self, count: int, generator: torch.Generator, group: int = 1) -> Batch:
        if group != 1:
            raise UserError(f"{type(self).__name__} draws independent problems")
        parts = [self._sample(min(_CHUNK, count - i), generator) for i in range(0, count, _CHUNK)]
        return Batch.join(parts or [self._sample(0, generator)])

    def _sample(self, count: int, generator: torch.Generator) -> Batch:
        rows, vocab = torch.arange(count), self.vocab
        parents = torch.zeros(count, self.nodes, dtype=torch.long)  # index of each node's parent; node 0 is the root
        depth, below = torch.zeros_like(parents), torch.zeros_like(parents)
        for node in range(1, self.nodes):
            has_room = (below[:, :node] < self.children) & (depth[:, :node] < self.longest - 1)  # (B, node)
            parent = any_of(has_room, generator)
            parents[:, node] = parent
            depth[:, node] = depth[rows, parent] + 1
            below[rows, parent] += 1
        leaves = (below == 0) & (depth > 1)
        at = any_of(leaves, generator)  # the goal leaf
        length = depth[rows, at] + 1
        path = torch.full((count, self.answer_length), -1)
        for _ in range(self.longest):
            path[rows, depth[rows, at]] = at
            at = parents[rows, at]  # the root's parent is itself
        labels = draw_without_replacement(count, self.num_nodes, self.nodes, generator).long()  # (B, n)
        order = 1 + draw_without_replacement(count, self.nodes - 1, self.nodes - 1, generator).long()
        edges = torch.stack([labels.gather(1, parents.gather(1, order)), labels.gather(1, order)], -1)  # (B, E, 2)
        answers = labels.gather(1, path.clamp(min=0)).masked_fill(path < 0, vocab.end).to(vocab.dtype)
        leaf = answers.gather(1, length.unsqueeze(1) - 1)[:, 0]
        prompts = vocab.layout(edges, answers[:, 0], leaf)
        return Batch(prompts, answers, up_to_end(answers, vocab.end))

    def ways(self, batch: Batch) -> Tensor:
        """Number of continuations that the tree allows at each answer position (B, L): children of the previous node.

        1 at the root, which the query names, at the end token, and after it.
        """
        tails = self.vocab.split(batch.prompts.long())[0][..., 0]  # (B, E)
        children = tails.new_zeros(len(tails), self.vocab.size).scatter_add_(1, tails, torch.ones_like(tails))  # (B, V)
        ways = children.gather(1, batch.answers[:, :-1].long())  # (B, L - 1)
        return torch.cat([torch.ones_like(ways[:, :1]), ways.clamp(min=1)], 1)

    def keys(self, batch: Batch) -> Tensor:
        """Equal for the same edges in any order, whatever the leaf; see `PathStar.keys`."""
        edges, root, _ = self.vocab.split(batch.prompts.long())
        return mix(edges[..., 0] * self.num_nodes + edges[..., 1]).sum(1) + mix(-1 - root)

    def score(self, decoded: Tensor, batch: Batch) -> dict[str, Share]:
        right, _ = _first(decoded == batch.answers, choice := self.ways(batch) > 1)
        return {"exact_match": all_right(decoded, batch), "first_choice_accuracy": Share(right, choice.any(1))}

    def score_forced(self, forced: Tensor, batch: Batch) -> dict[str, Share]:
        right, choice = (forced == batch.answers) & batch.mask, self.ways(batch) > 1
        copies = batch.mask & ~choice
        return {"choice_accuracy": Share((right & choice).sum(1), choice.sum(1)),
                "copy_accuracy": Share((right & copies).sum(1), copies.sum(1))}  # fmt: skip

    def outcome(self, metrics: Mapping[str, Any], finite: bool, judged_by: str) -> str:
        return judge(metrics, finite, self._guesses[1])

    def resized(self, settings: Mapping[str, Any]) -> "Tree":
        """The same with other sizes; labels are always those of the trained model."""
        if unknown := sorted({*settings} - {*facts.SIZES}):
            raise UserError(f"task.{unknown[0]} cannot be changed for a trained model: only sizes can")
        return Tree(**{key: getattr(self, key) for key in facts.SIZES} | dict(settings) | {"num_nodes": self.num_nodes},
                    edges_as=self.edges_as)  # fmt: skip

    def example(self, batch: Batch, decoded: Tensor) -> list[dict[str, Any]]:
        read = [each.tolist() for each in self.vocab.split(batch.prompts.long())]  # edges, roots and leaves
        paths = [[row[: [*row, self.vocab.end].index(self.vocab.end)] for row in tokens.tolist()]
                 for tokens in (batch.answers, decoded)]  # fmt: skip
        keys = ("edges", "root", "leaf", "path", "generated")
        return [dict(zip(keys, row, strict=True)) for row in zip(*read, *paths, strict=True)]


def _first(values: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """For each row, the value at the first position where `where` holds, or 0; and whether there is one."""
    place = where.long().argmax(1, keepdim=True)  # the first of equal values
    asked = where.any(1)
    return values.gather(1, place)[:, 0] * asked, asked
