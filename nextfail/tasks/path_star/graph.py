"""The path-star graph G(d, l): its sizes, exact vectorised sampling, and the key that tells two graphs apart.

Source of the task: Bachmann & Nagarajan, "The Pitfalls of Next-Token Prediction", ICML 2024, section 4.
"""

from dataclasses import dataclass
from functools import cached_property
from math import factorial, perm
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from nextfail.errors import UserError
from nextfail.source import public
from nextfail.tasks.path_star.layout import PUBLISHED, Layout
from nextfail.tasks.path_star.vocab import MOST_JOINED, Vocab

_MOST_NODES = 2**15 - 4  # the signs come after the labels, and all must fit in int16
_CHUNK = 8192  # graphs drawn at a time: the pool of labels then stays in the cache


class Batch(NamedTuple):
    """Path-star problems as tokens, of any integer type."""

    prompts: Tensor  # (B, P): edges, start and goal, ending in "="
    paths: Tensor  # (B, l): the answer, from the start node to the goal

    def long(self) -> "Batch":
        """The same problems as int64, the type that embeddings and losses want."""
        return Batch(self.prompts.long(), self.paths.long())

    def rows(self, index: Tensor | slice) -> "Batch":
        """The problems at `index`."""
        return Batch(self.prompts[index], self.paths[index])


@public("path_star")
@dataclass(frozen=True)
class PathStar:
    """The size G(degree, path_length) with labels drawn from 0..num_nodes-1.

    One start node with `degree` arms; every arm has `path_length` nodes, counting the start. The goal is the last
    node of one arm, and the answer is that arm from start to goal: position 1 of it is the hard token.
    Raises:
        UserError: a size at which there is no choice to make, no cheat to learn, or too few labels.
    """

    degree: int
    path_length: int
    num_nodes: int

    edges_as: ClassVar[str] = "triples"
    """Whether an edge is three tokens of a prompt, or one ("tokens")."""

    def __post_init__(self) -> None:
        for key in ("degree", "path_length", "num_nodes"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool):
                raise UserError(f"graph.{key}={value!r} is not a whole number")
        if self.degree < 2:
            raise UserError(f"graph.degree={self.degree} is too small: needs at least 2 arms to choose from")
        if self.path_length < 3:
            raise UserError(
                f"graph.path_length={self.path_length} is too small: needs at least 3 nodes, "
                "since with fewer the prompt already names the answer"
            )
        if self.num_nodes < self.size:
            raise UserError(f"graph.num_nodes={self.num_nodes} is too small for {self}: needs at least {self.size}")
        if self.num_nodes > _MOST_NODES:
            raise UserError(f"graph.num_nodes={self.num_nodes} is too large: tokens are stored in 16 bits, "
                            f"which allows {_MOST_NODES}")  # fmt: skip

    def __str__(self) -> str:
        return f"G({self.degree},{self.path_length})"

    def written(self, edges_as: str) -> "PathStar":
        """The same size with an edge as three tokens of a prompt ("triples", as published) or as one ("tokens").

        Raises:
            UserError: `edges_as` is something else, or there are too many labels for it.
        """
        kinds = {kind.edges_as: kind for kind in (PathStar, JoinedPathStar)}
        if edges_as not in kinds:
            raise UserError(f"data.edges_as={edges_as!r} is unknown: choose triples or tokens")
        return kinds[edges_as](self.degree, self.path_length, self.num_nodes)

    @property
    def size(self) -> int:
        """Nodes in one graph, 1 + d(l-1)."""
        return 1 + self.edges

    @property
    def edges(self) -> int:
        """Edges in one graph, d(l-1)."""
        return self.degree * (self.path_length - 1)

    @property
    def prompt_length(self) -> int:
        """Tokens from the first edge to "=": three an edge, or one, then start, goal and "="."""
        return self.vocab.prompt_length(self.edges)

    @property
    def chance(self) -> float:
        """Accuracy on the hard token of a model that sees only that it must be a neighbour of the start: 1/d."""
        return 1 / self.degree

    @property
    def distinct(self) -> int:
        """How many canonically different graphs exist: labelled nodes, up to the order of the arms."""
        return perm(self.num_nodes, self.size) // factorial(self.degree)

    @property
    def vocab(self) -> Vocab:
        """The token ids for this label set."""
        return Vocab(self.num_nodes, self.joined)

    @property
    def joined(self) -> bool:
        """Whether an edge is one token."""
        return self.edges_as == "tokens"

    @cached_property
    def _shape(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which drawn label stands where: sources (E,), targets (E,), arms (d, l), as indices into the drawn labels."""
        arms = 1 + torch.arange(self.edges).view(self.degree, self.path_length - 1)
        arms = torch.cat([torch.zeros(self.degree, 1, dtype=torch.long), arms], 1)  # label 0 is the start
        return arms[:, :-1].flatten(), arms[:, 1:].flatten(), arms

    def sample(self, count: int, generator: torch.Generator, layout: Layout = PUBLISHED, goals: int = 1) -> Batch:
        """Draw `count` problems: prompts (count, P) and paths (count, l), in the smallest integer type.

        Labels are drawn without replacement, edges are ordered and the goal's arm is chosen, all uniformly.

        Args:
            count: a multiple of `goals`.
            layout: how they are written down.
            goals: how many problems in a row share all but the goal; from 1, independent problems, to the degree.
        """
        graphs, rest = divmod(count, goals)
        if rest:
            raise UserError(f"{count} problems are not a multiple of {goals} goals")
        parts = [self._sample(min(_CHUNK, graphs - i), generator, layout, goals) for i in range(0, graphs, _CHUNK)]
        if not parts:
            parts = [self._sample(0, generator, layout, goals)]
        return Batch(torch.cat([p.prompts for p in parts]), torch.cat([p.paths for p in parts]))

    def _sample(self, graphs: int, generator: torch.Generator, layout: Layout, goals: int) -> Batch:
        sources, targets, arms = self._shape
        labels = draw_without_replacement(graphs, self.num_nodes, self.size, generator)  # (B, n)
        order = self._order(graphs, generator, layout)  # (B, E)
        if goals == 1:
            arm = torch.randint(self.degree, (graphs,), generator=generator)
        else:
            arm = draw_without_replacement(graphs, self.degree, goals, generator).long().flatten()
        edges = torch.stack([labels.gather(1, sources[order]), labels.gather(1, targets[order])], -1)  # (B, E, 2)
        if layout.direction == "random":
            turned = torch.rand(edges.shape[:2], generator=generator) < 0.5
            edges = torch.where(turned.unsqueeze(-1), edges.flip(-1), edges)
        labels, edges = (each.repeat_interleave(goals, 0) for each in (labels, edges))
        paths = labels.gather(1, arms[arm])  # (B goals, l)
        vocab = self.vocab
        prompts = vocab.layout(edges, paths[:, 0], paths[:, -1], layout.query)
        return Batch(prompts, paths.to(vocab.dtype))

    def _order(self, graphs: int, generator: torch.Generator, layout: Layout) -> Tensor:
        """Numbers of edges (B, E) as they are written; those of an arm are consecutive, from the start on."""
        hops = self.path_length - 1
        if layout.edges == "by_arm":
            arms = draw_without_replacement(graphs, self.degree, self.degree, generator).long()
            return (arms.unsqueeze(2) * hops + torch.arange(hops)).flatten(1)
        order = draw_without_replacement(graphs, self.edges, self.edges, generator).long()
        if layout.edges == "parents_first":  # each arm keeps its places, and takes them from the start on
            places = (order // hops).argsort(dim=1, stable=True)
            order = torch.empty_like(order).scatter_(1, places, torch.arange(self.edges).expand_as(order))
        return order

    def keys(self, prompts: Tensor) -> Tensor:
        """Canonical keys (B,), int64: equal for prompts with the same undirected edges and start, whatever the goal.

        The key is a 64-bit hash, summed over the edges so that their order does not matter. Two different graphs
        share one with probability 2**-64; that could only leave out a graph that was allowed.
        """
        edges, start, _ = self.vocab.split(prompts.long())
        one, other = edges.unbind(-1)  # (B, E); amin and amax over so short an axis are fifty times slower than this
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        return _splitmix64(low * self.num_nodes + high).sum(1) + _splitmix64(-1 - start)


@dataclass(frozen=True)
class JoinedPathStar(PathStar):
    """The same with one token for each edge of a prompt.

    Raises:
        UserError: as there; or there are pairs of labels that have no id.
    """

    edges_as: ClassVar[str] = "tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_nodes > MOST_JOINED:
            raise UserError(f"graph.num_nodes={self.num_nodes} is too large for data.edges_as=tokens: an edge is a "
                            f"token of 16 bits, which allows {MOST_JOINED}")  # fmt: skip


def draw_without_replacement(count: int, total: int, chosen: int, generator: torch.Generator) -> Tensor:
    """`count` rows of `chosen` different numbers from 0..total-1, each ordered choice equally likely.

    The first steps of a Fisher-Yates shuffle, all rows at once. Returns (count, chosen) int16.
    """
    pool = torch.arange(total, dtype=torch.int16).repeat(count, 1)
    chosen_ones = []
    for i in range(chosen):
        pick = torch.randint(i, total, (count, 1), generator=generator)
        chosen_ones.append(pool.gather(1, pick))
        pool.scatter_(1, pick, pool[:, i : i + 1].clone())  # place i itself is not looked at again
    return torch.cat(chosen_ones, 1)


def _splitmix64(x: Tensor) -> Tensor:
    """Steele, Lea & Flood's 64-bit mixer, elementwise on int64 with wrap-around: the same on every machine."""

    def shifted(z: Tensor, bits: int) -> Tensor:
        return (z >> bits) & ((1 << (64 - bits)) - 1)  # a logical shift; torch's own keeps the sign

    x = x * -7046029254386353131  # 0x9E3779B97F4A7C15
    x = (x ^ shifted(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ shifted(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ shifted(x, 31)
