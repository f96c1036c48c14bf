"""Outcome of a run on a star graph from its metrics. All rules are defined here."""

from collections.abc import Mapping
from typing import Any

from nextfail.tasks import facts
from nextfail.tasks.facts import SOLVED

Metrics = Mapping[str, Any]

LEARNED = 0.95  # accuracy at which the cheat, or any token but the hard one, counts as learned
MARGIN = 0.05  # largest distance of the hard token's interval from chance that still counts as a guess

OUTCOMES = {
    "solved": "exact match (for first_hop_only, the hard token) is at least 0.95",
    "clever_hans": "every token after the first hop is right if that hop is given, and the hop itself is a guess",
    "at_chance": "every other token is learned, and the hard one is a guess",
    "undertrained": "neither solved nor failed as the paper describes: not trained long enough, or a setting is wrong",
    "diverged": "the loss was not finite",
}

SAYS = {
    "clever_hans": "learned the cheat, the rest of an arm once its first hop is given, and guessed that hop",
    "at_chance": "learned every token but the hard one, which stayed a guess",
} | facts.SAYS

COLUMNS = {"hard token": "hard_token_accuracy", "cheat": "cheat_accuracy"}
NOTES = ("hard token: accuracy of position 1, the first hop; cheat: all after it is right, given that hop",)


def judge(metrics: Metrics, finite: bool = True, judged_by: str = "exact_match") -> str:
    """The first outcome that matches the metrics of a test set.

    Args:
        finite: whether the loss stayed finite.
        judged_by: metric of the objective: exact_match, or hard_token_accuracy if only the hard token is trained.

    An accuracy below that margin never counts as a failure: such a model has not even learned the cheat yet.
    """
    hard, chance = metrics["hard_token_accuracy"], metrics["chance"]
    margin = min(MARGIN, chance / 2)  # with many arms, a hop that is never right is no guess
    guessing = chance - margin <= hard["low"] and hard["high"] <= chance + margin
    if not finite:
        return "diverged"
    if metrics[judged_by]["value"] >= SOLVED:
        return "solved"
    if judged_by == "hard_token_accuracy":
        return "at_chance" if guessing else "undertrained"
    if (cheat := metrics["cheat_accuracy"]) is not None:
        return "clever_hans" if cheat["value"] >= LEARNED and guessing else "undertrained"
    others = [token["value"] for i, token in enumerate(metrics["token_accuracy"]) if i != 1]
    return "at_chance" if min(others) >= LEARNED and guessing else "undertrained"
