"""Token ids and the layout of one problem.

The published layout, for G(2,3) with start 7, goal 4 and answer 7,1,4 (one token per column):

    prompt                                           path
    7 1 | 1 4 | 7 3 | 3 9 / 7 4 =                    7 1 4
    edge  edge  edge  edge  start, goal              l tokens, the start among them

With the query before the edges (`task.query=before`), at the same length:

    7 4 / 7 1 | 1 4 | 7 3 | 3 9 =

Node labels are their own ids, 0..N-1; then "|" N, "=" N+1, "/" N+2, "$" N+3. There is no token for a comma.

With one token per edge (`task.edges_as=tokens`), the prompts are

    7,1 1,4 7,3 3,9 7 4 =        and, with the query before,        7 4 7,1 1,4 7,3 3,9 =

and the edge u,v has the id -1 - (u N + v): negative, so that no other id changes. Models read such ids
(`Backbone.join_pairs`) but never generate them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nextfail.tasks.path_star.facts import SIGNS


@dataclass(frozen=True)
class Vocab:
    """Token ids for labels 0..num_nodes-1. Ids from `size` on are free for an objective's own tokens.

    Args:
        num_nodes: labels N.
        joined: whether an edge is one token.
    """

    num_nodes: int
    joined: bool = False

    @property
    def bar(self) -> int:
        """ "|", between two edges."""
        return self.num_nodes

    @property
    def equals(self) -> int:
        """ "=", the end of the prompt."""
        return self.num_nodes + 1

    @property
    def slash(self) -> int:
        """ "/", between the edges and the query."""
        return self.num_nodes + 2

    @property
    def blank(self) -> int:
        """ "$", a blank or mask token, as in teacherless training."""
        return self.num_nodes + 3

    @property
    def end(self) -> None:
        """None: every answer has the same length."""
        return None

    @property
    def pairs(self) -> int | None:
        """N if an edge is one token, otherwise None."""
        return self.num_nodes if self.joined else None

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.num_nodes + 4

    @property
    def dtype(self) -> torch.dtype:
        """The smallest integer type that holds every id."""
        return torch.uint8 if self.size <= 256 and not self.joined else torch.int16

    def prompt_length(self, edges: int) -> int:
        """Length in tokens of a prompt with `edges` edges."""
        return (edges if self.joined else 3 * edges) + 3

    @property
    def texts(self) -> list[str]:
        """Text of each id, as in the published text format; the comma of an edge has no token."""
        return [*map(str, range(self.num_nodes)), *SIGNS]

    def layout(self, edges: Tensor, start: Tensor, goal: Tensor, query: str = "after") -> Tensor:
        """Prompts (B, P) from edges (B, E, 2), start (B,) and goal (B,); the query is "after" or "before" the edges."""
        if self.joined:
            codes = -1 - (edges[..., 0].to(self.dtype) * self.num_nodes + edges[..., 1].to(self.dtype))  # (B, E)
            ends, equals = torch.stack([start, goal], 1).to(self.dtype), codes.new_full((len(codes), 1), self.equals)
            return torch.cat([ends, codes, equals] if query == "before" else [codes, ends, equals], 1)
        count, number, _ = edges.shape
        prompts = torch.empty(count, 3 * number + 3, dtype=self.dtype)
        triples = prompts.view(count, number + 1, 3)  # query and edges: two nodes and the sign that follows
        first, last = (triples[:, 0], triples[:, 1:]) if query == "before" else (triples[:, -1], triples[:, :-1])
        first[:, 0], first[:, 1] = start, goal
        last[:, :, :2] = edges
        triples[:, :, 2] = self.bar
        triples[:, 0 if query == "before" else -2, 2] = self.slash
        triples[:, -1, 2] = self.equals
        return prompts

    def split(self, prompts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse of `layout` for either query position: edges (B, E, 2), start (B,) and goal (B,)."""
        if self.joined:
            before = len(prompts) > 0 and int(prompts[0, 0]) >= 0
            ends, codes = (prompts[:, :2], prompts[:, 2:-1]) if before else (prompts[:, -3:-1], prompts[:, :-3])
            edges = torch.stack([(-1 - codes) // self.num_nodes, (-1 - codes) % self.num_nodes], -1)
            return edges, ends[:, 0], ends[:, 1]
        pairs = prompts.unflatten(1, (-1, 3))[:, :, :2]  # (B, E + 1, 2)
        before = len(prompts) > 0 and int(prompts[0, 2]) == self.slash
        query, edges = (pairs[:, 0], pairs[:, 1:]) if before else (pairs[:, -1], pairs[:, :-1])
        return edges, query[:, 0], query[:, 1]


MOST_JOINED = math.isqrt(2**15)
"""Maximum number of labels such that every pair has a 16-bit id."""
