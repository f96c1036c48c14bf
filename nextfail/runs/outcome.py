"""What a run's metrics say in one word. Every rule stands here and nowhere else."""

from typing import Any

Metrics = dict[str, Any]

SOLVED = 0.95  # exact match from which a task counts as solved
LEARNED = 0.95  # accuracy from which the cheat, or any token but the hard one, counts as learned
HARD_TOKEN_ALONE = "first_hop_only"  # the objective of nextfail's own that is judged on the hop
MARGIN = 0.05  # how far the whole interval of the hard token may lie from 1/d and still be chance

OUTCOMES = {
    "solved": "exact match (for first_hop_only, the hard token) is at least 0.95",
    "clever_hans": "every token after the first hop is right if that hop is given, and the hop itself is a guess",
    "at_chance": "every other token that is asked is learned, and the hard one is a guess",
    "undertrained": "neither solved nor failed as the paper describes: not trained long enough, or otherwise wrong",
    "diverged": "the loss was not finite",
}


def judge(metrics: Metrics, finite: bool = True, hard_token_alone: bool = False) -> str:
    """The first outcome that holds of the metrics of a test set.

    Args:
        finite: whether the loss stayed so.
        hard_token_alone: whether the objective asks nothing but the first hop.

    An accuracy below 1/d is never called a failure: such a model has not even learned the cheat yet.
    """
    hard, chance = metrics["hard_token_accuracy"], metrics["chance"]
    guessing = chance - MARGIN <= hard["low"] and hard["high"] <= chance + MARGIN
    if not finite:
        return "diverged"
    if (hard if hard_token_alone else metrics["exact_match"])["value"] >= SOLVED:
        return "solved"
    if hard_token_alone:
        return "at_chance" if guessing else "undertrained"
    if (cheat := metrics["cheat_accuracy"]) is not None:
        return "clever_hans" if cheat["value"] >= LEARNED and guessing else "undertrained"
    others = [token["value"] for i, token in enumerate(metrics["token_accuracy"]) if i != 1]
    return "at_chance" if min(others) >= LEARNED and guessing else "undertrained"
