"""Which test problem a figure shows of several models."""

from collections.abc import Sequence
from typing import Any

from nextfail.reports.collect import Group


def telling(groups: Sequence[Group]) -> list[tuple[Group, int, Any]]:
    """The problem that most groups answered and, of those, the one that tells them apart best, with every answer.

    Examples of a task have `problem`, `path` (what is right) and `generated`.

    Returns:
        Of each group that answered, the seed of the run and the example; nothing if there are no examples.
    """
    answers: dict[Any, dict[int, tuple[int, Any]]] = {}  # by problem and group: seed and answer of its first run
    for number, group in enumerate(groups):
        for run in group.runs:
            for example in run.examples():
                answers.setdefault(example.problem, {}).setdefault(number, (run.seed, example))

    def apart(given: dict[int, tuple[int, Any]]) -> tuple[int, int]:
        right = sum(example.generated == example.path for _, example in given.values())
        return len(given), min(right, len(given) - right)

    chosen = max(answers.values(), key=apart, default={})
    return [(groups[number], seed, example) for number, (seed, example) in chosen.items()]
