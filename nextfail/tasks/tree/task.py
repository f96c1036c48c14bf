"""Random trees with shuffled edges: the path from the root to a leaf, a choice wherever a node has several children."""

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

_MOST_NODES = 2**15 - 5  # labels, for all ids must fit in int16
_CHUNK = 4096  # trees drawn at a time
_ESTIMATE = 2**14  # problems from which chance is estimated


class TreeVocab(Vocab):
    """The tokens of star graphs, and one more: "." ends an answer."""

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

    A prompt of 5 nodes, where 7 is the root and the leaf 9 is asked for, and its answer:

        3 9 | 7 1 | 3 5 | 7 3 / 7 9 =        7 3 9 . .

    Nodes are added one by one, each below one that is drawn uniformly from those that have room: fewer than `children`
    children, and at a depth at which a path of `longest` nodes can pass. Labels, the order of the edges and the leaf
    are uniform; a leaf right below the root is never asked for, since it would leave nothing to look for.

    Args:
        nodes: of a tree.
        children: that a node has at most; a token after a node with several is a choice.
        longest: nodes of the longest path.
        num_nodes: labels N to draw from.
        edges_as: an edge is three tokens ("triples"), or one ("tokens").

    Raises:
        UserError: a size that is no whole number, too small or too large, or more nodes than such a tree has room for.
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
        """The share of paths that are right if every choice is a guess, estimated from drawn problems."""
        return self._guesses[0]

    @cached_property
    def _guesses(self) -> tuple[float, float]:
        """How often a model that takes any child is right: in every choice of a path, and in the first of them."""
        ways = self.ways(self.sample(_ESTIMATE, torch.Generator().manual_seed(0)))
        first, asked = _first(1 / ways, ways > 1)
        return float((1 / ways).prod(1).mean()), float(first.sum() / asked.sum())

    @property
    def distinct(self) -> int:
        """At least so many: labelled nodes of one shape, whose leaves may all be alike."""
        return perm(self.num_nodes, self.nodes) // perm(self.nodes - 1)

    def sample(self, count: int, generator: torch.Generator, group: int = 1) -> Batch:
        if group != 1:
            raise UserError(f"{type(self).__name__} draws independent problems")
        parts = [self._sample(min(_CHUNK, count - i), generator) for i in range(0, count, _CHUNK)]
        return Batch.join(parts or [self._sample(0, generator)])

    def _sample(self, count: int, generator: torch.Generator) -> Batch:
        rows, vocab = torch.arange(count), self.vocab
        parents = torch.zeros(count, self.nodes, dtype=torch.long)  # of each node, by its number; node 0 is the root
        depth, below = torch.zeros_like(parents), torch.zeros_like(parents)
        for node in range(1, self.nodes):
            has_room = (below[:, :node] < self.children) & (depth[:, :node] < self.longest - 1)  # (B, node)
            parent = any_of(has_room, generator)
            parents[:, node] = parent
            depth[:, node] = depth[rows, parent] + 1
            below[rows, parent] += 1
        leaves = (below == 0) & (depth > 1)
        at = any_of(leaves, generator)  # the leaf that is asked for
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
        """How many continuations the tree allows at each place of the answers (B, L): children of the node before.

        1 at the root, which the query names, at the end token, and after it.
        """
        tails = self.vocab.split(batch.prompts.long())[0][..., 0]  # (B, E)
        children = tails.new_zeros(len(tails), self.vocab.size).scatter_add_(1, tails, torch.ones_like(tails))  # (B, V)
        ways = children.gather(1, batch.answers[:, :-1].long())  # (B, L - 1)
        return torch.cat([torch.ones_like(ways[:, :1]), ways.clamp(min=1)], 1)

    def keys(self, batch: Batch) -> Tensor:
        """Equal for the same edges, whatever their order, and whatever the leaf; see `PathStar.keys`."""
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
        """The same with other sizes; labels are always those that the model knows."""
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
    """Of each row, the value at the first place where something holds, or 0; and whether there is such a place."""
    place = where.long().argmax(1, keepdim=True)  # of equal ones the first
    asked = where.any(1)
    return values.gather(1, place)[:, 0] * asked, asked
