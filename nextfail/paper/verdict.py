"""What runs say of a claim, by rules that are written down. Every rule stands here and nowhere else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
from scipy.stats import binomtest, ttest_1samp

from nextfail.runs.collect import Group
from nextfail.runs.outcome import LEARNED, MARGIN
from nextfail.runs.record import Result, Run

EQUAL = 0.03  # how far a mean over seeds may be from 1/d and still be called equal to it
LEVEL = 0.05  # of the two one-sided tests
MET = 0.9  # accuracy from which a token counts as having come in

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
TOO_FEW = "too few seeds"
UNDERTRAINED = "undertrained"
NOT_RUN = "not run"
WORDS = {
    NOT_REPRODUCED: "the runs contradict the claim",
    REPRODUCED: "the runs show what the paper says",
    TOO_FEW: "the runs agree with the claim, and are too few for the test",
    UNDERTRAINED: "the runs are not trained far enough to say anything",
    NOT_RUN: "there is no finished run",
}
"""Every verdict; where several configurations answer the same question, the first of their verdicts in this order."""


@dataclass(frozen=True)
class Verdict:
    """A word, and in a few more what it rests on."""

    word: str
    why: str


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t-tests (Schuirmann 1987) of whether a mean over seeds lies within EQUAL of a value.

    Args:
        mean: over seeds.
        p: the larger of the two p-values; None with fewer than two seeds, which allow no test.
        n: seeds.
    """

    mean: float
    p: float | None
    n: int

    @property
    def shown(self) -> bool:
        """Whether the mean is equal, at LEVEL."""
        return self.p is not None and self.p < LEVEL


Rule = Callable[[Group, Sequence[Group]], Verdict]
"""From runs that differ by their seed, and all other runs of the graph and model, to a verdict."""


def equivalence(values: Sequence[float], target: float) -> Equivalence:
    """Test whether the mean of values, one a seed, equals a target up to EQUAL."""
    mean = fmean(values)
    if len(values) < 2:
        return Equivalence(mean, None, len(values))
    if np.ptp(values) == 0:  # no spread, for which the t-test is not defined
        return Equivalence(mean, 0.0 if abs(mean - target) < EQUAL else 1.0, len(values))
    above = ttest_1samp(values, target - EQUAL, alternative="greater").pvalue
    below = ttest_1samp(values, target + EQUAL, alternative="less").pvalue
    return Equivalence(mean, float(max(above, below)), len(values))


def share(hits: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson interval of hits out of count."""
    interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def of(rule: Rule, group: Group, others: Sequence[Group]) -> Verdict:
    """A rule's verdict on a group, which has results or not."""
    if not group.results:
        return Verdict(NOT_RUN, "no run is done")
    return rule(group, others)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several configurations' on the same question; not run if there are none."""
    order = list(WORDS)
    return min(verdicts, key=lambda verdict: order.index(verdict.word), default=Verdict(NOT_RUN, "no run is done"))


def guesses(group: Group, others: Sequence[Group]) -> Verdict:
    """Free generation scores 1/d: every seed ends clever_hans, and the mean of their exact match equals 1/d."""
    if left := _without(group, "clever_hans"):
        return left
    return _equal([result.exact_match.value for result in group.results], group.chance, "exact match")


def guesses_alone(group: Group, others: Sequence[Group]) -> Verdict:
    """The hard token alone stays a guess: every seed ends at_chance, and their mean equals 1/d."""
    if left := _without(group, "at_chance"):
        return left
    return _equal([result.hard_token.value for result in group.results], group.chance, "hard token")


def cheats(group: Group, others: Sequence[Group]) -> Verdict:
    """Given the first hop, the rest of the path is right: cheat accuracy of at least 0.95 in every seed."""
    values = [result.cheat.value for result in group.results if result.cheat]
    learned = sum(value >= LEARNED for value in values)
    word = REPRODUCED if values and learned == len(values) else UNDERTRAINED
    return Verdict(word, f"cheat accuracy of at least {LEARNED} in {_of(learned, len(values))}")


def solves(group: Group, others: Sequence[Group]) -> Verdict:
    """The path is learned: every seed ends solved. Ending at_chance contradicts it, undertrained says nothing."""
    solved, stuck = group.outcomes.get("solved", 0), group.outcomes.get("at_chance", 0)
    low, high = share(solved, len(group.results))
    why = f"{_of(solved, len(group.results))} solved, 95 % interval [{low:.2f}, {high:.2f}]"
    if solved == len(group.results):
        return Verdict(REPRODUCED, why)
    if stuck:
        return Verdict(NOT_REPRODUCED, f"{why}; {stuck} learned every token but the hard one")
    return Verdict(UNDERTRAINED, why)


def repairs(group: Group, others: Sequence[Group]) -> Verdict:
    """The path is learned, and by teacher-forcing with the same settings it is not."""
    verdict = solves(group, others)
    forced = next((other for other in others if other.objective == "teacher_forcing" and alike(group, other)), None)
    if verdict.word != REPRODUCED:
        return verdict
    if forced is None or not forced.results:
        return Verdict(UNDERTRAINED, f"{verdict.why}; teacher-forcing with these settings was not run")
    solved = forced.outcomes.get("solved", 0)
    beside = f"teacher-forcing with these settings: {_of(solved, len(forced.results))} solved"
    return Verdict(NOT_REPRODUCED if solved else REPRODUCED, f"{verdict.why}; {beside}")


def never_learned(group: Group, others: Sequence[Group]) -> Verdict:
    """Forced with the truth, the hard token is a guess as well, and nothing more goes wrong after it.

    The accuracy of the forced hard token equals 1/d, and the path is right nearly as often as its hard token.
    """
    if left := _without(group, "clever_hans"):
        return left
    lost = max(result.hard_token.value - result.exact_match.value for result in group.results)
    verdict = _equal([_forced_hop(result) for result in group.results], group.chance, "forced hard token")
    why = f"{verdict.why}; {lost:.3f} lost after the hard token"
    return Verdict(verdict.word if lost <= EQUAL else NOT_REPRODUCED, why)


def right_to_left(group: Group, others: Sequence[Group]) -> Verdict:
    """Tokens come in from the goal to the hard token: each reaches 0.9 no later than the one before it in the path."""
    arrivals = [arrived(run) for run in group.runs if run.result]
    whole = [times for times in arrivals if all(time is not None for time in times)]
    if len(whole) < len(arrivals):
        return Verdict(UNDERTRAINED, f"every token came in in {_of(len(whole), len(arrivals))}")
    backwards = sum(_backwards(times[1:]) for times in whole)
    word = REPRODUCED if backwards == len(whole) else NOT_REPRODUCED
    return Verdict(word, f"from right to left in {_of(backwards, len(whole))}")


def arrived(run: Run) -> list[float | None]:
    """Problems seen when each position's validation accuracy first was at 0.9; None where it never was."""
    curve = run.curve()
    if curve is None:
        return [None] * run.graph["path_length"]
    columns = zip(*curve.tokens, strict=True)
    return [next((seen for seen, value in zip(curve.samples, column, strict=True) if value >= MET), None)
            for column in columns]  # fmt: skip


def alike(one: Group, other: Group) -> bool:
    """Whether two groups were trained with the same settings, objective and seed apart."""
    left, right = ({key: value for key, value in group.runs[0].identity.items() if key not in ("seed", "objective")}
                   for group in (one, other))  # fmt: skip
    return left == right


def _backwards(times: Sequence[float | None]) -> bool:
    """Whether positions 1, 2, ... came in from the last to the first, and not all at once."""
    known = [time for time in times if time is not None]
    return all(one >= after for one, after in pairwise(known)) and known[0] > known[-1]


def _without(group: Group, outcome: str) -> Verdict | None:
    """The verdict where not every seed ended as the claim says; None where every one did."""
    results = group.results
    learned = sum(result.outcome == "solved" or result.hard_token.low > group.chance + MARGIN for result in results)
    if learned:
        return Verdict(
            NOT_REPRODUCED, f"the hard token was learned, more often than 1/d, in {_of(learned, len(results))}"
        )
    ended = group.outcomes.get(outcome, 0)
    if ended < len(results):
        return Verdict(UNDERTRAINED, f"{outcome} in {_of(ended, len(results))}")
    return None


def _equal(values: Sequence[float], chance: float, name: str) -> Verdict:
    test = equivalence(values, chance)
    p = "no test with one seed" if test.p is None else f"p = {test.p:.1g}"
    why = f"mean {name} {test.mean:.3f} over {_seeds(test.n)}, 1/d = {chance:.3f}, {p}"
    if test.shown:
        return Verdict(REPRODUCED, why)
    if abs(test.mean - chance) < EQUAL:
        return Verdict(TOO_FEW, why)
    return Verdict(NOT_REPRODUCED if test.mean > chance else UNDERTRAINED, why)


def _forced_hop(result: Result) -> float:
    return float(result.record["forced_token_accuracy"][1]["value"])


def _of(count: int, all_of_them: int) -> str:
    return f"{count} of {_seeds(all_of_them)}"


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
