"""Outcome of a run on trees from its metrics. All rules are defined here."""

from collections.abc import Mapping
from typing import Any

from nextfail.tasks import facts
from nextfail.tasks.facts import SOLVED

LEARNED = 0.95  # accuracy at which tokens that need no choice count as learned
MARGIN = 0.05  # largest distance of the first choice's confidence interval from guessing that still counts as a guess

OUTCOMES = {
    "solved": "exact match is at least 0.95",
    "clever_hans": "tokens that need no choice are right given the true ones before, and the first choice is a guess",
    "undertrained": "neither solved nor failed as clever_hans: not trained long enough, or otherwise wrong",
    "diverged": "the loss was not finite",
}

SAYS = {"clever_hans": "learned every token that needs no choice, and guessed the first that does"} | facts.SAYS

COLUMNS = {"first choice": "first_choice_accuracy", "choices": "choice_accuracy", "copies": "copy_accuracy"}
NOTES = (
    "first choice: accuracy of the first generated token after a node with several children",
    "choices, copies: accuracy of tokens that need a choice, and of those that need none, given the true ones before",
)


def judge(metrics: Mapping[str, Any], finite: bool, guess: float) -> str:
    """The first outcome that matches the metrics of a test set.

    Args:
        finite: whether the loss stayed finite.
        guess: first-choice accuracy of a model that picks any child.
    """
    first, copies = metrics["first_choice_accuracy"], metrics["copy_accuracy"]
    if not finite:
        return "diverged"
    if metrics["exact_match"]["value"] >= SOLVED:
        return "solved"
    guessing = guess - MARGIN <= first["low"] and first["high"] <= guess + MARGIN
    copied = copies is not None and copies["value"] >= LEARNED
    return "clever_hans" if copied and guessing else "undertrained"
