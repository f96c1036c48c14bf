"""How a problem is written down, which decides what is learnable (Frydenlund 2024, arXiv 2410.13779, and 2025)."""

from dataclasses import dataclass

from nextfail.errors import UserError

CHOICES = {
    "query": ("after", "before"),
    "edges": ("shuffled", "by_arm", "parents_first"),
    "direction": ("away", "random"),
}


@dataclass(frozen=True)
class Layout:
    """The prompt of a problem; with nothing said, as published.

    Args:
        query: start and goal stand after the edges, or before them.
        edges: their order: shuffled one by one; by_arm, arms in random order and each from the start on; parents_first,
            any order in which the edge to a node comes before the edge from it, each such order equally likely.
        direction: an edge's node nearer to the start comes first ("away" from it), or either does ("random").

    Raises:
        UserError: a value is none of these.
    """

    query: str = "after"
    edges: str = "shuffled"
    direction: str = "away"

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if (value := getattr(self, key)) not in choices:
                raise UserError(f"data.{key}={value!r} is unknown: choose {' or '.join(choices)}")


PUBLISHED = Layout()
