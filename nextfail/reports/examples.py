"""Choose the test problem that a figure of several models shows."""

from collections.abc import Sequence
from typing import Any

from nextfail.reports.collect import Group


def telling(groups: Sequence[Group]) -> list[tuple[Group, int, Any]]:
    """The problem that most groups answered and, among those, with the most even split of right and wrong answers.

    Examples of a task have `problem`, `path` (the correct answer) and `generated`.

    Returns:
        For each group that answered: the group, the seed of the run and the example. Empty without examples.
    """
    answers: dict[Any, dict[int, tuple[int, Any]]] = {}  # by problem and group: seed and example of its first run
    for number, group in enumerate(groups):
        for run in group.runs:
            for example in run.examples():
                answers.setdefault(example.problem, {}).setdefault(number, (run.seed, example))

    def apart(given: dict[int, tuple[int, Any]]) -> tuple[int, int]:
        right = sum(example.generated == example.path for _, example in given.values())
        return len(given), min(right, len(given) - right)

    chosen = max(answers.values(), key=apart, default={})
    return [(groups[number], seed, example) for number, (seed, example) in chosen.items()]
