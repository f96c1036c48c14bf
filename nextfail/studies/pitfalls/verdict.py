"""Verdicts of runs on claims. All rules are defined in this module."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.stats import binomtest, ttest_1samp

from nextfail.reports.collect import Group
from nextfail.reports.record import Run
from nextfail.runs.records import Proportion, Result
from nextfail.tasks.path_star.outcome import LEARNED, MARGIN

EQUAL = 0.03  # maximum distance from 1/d at which a mean over seeds counts as equal
LEVEL = 0.05  # significance level of the two one-sided tests
MET = 0.9  # accuracy from which a token counts as learned

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
TOO_FEW = "too few seeds"
UNDERTRAINED = "undertrained"
NOT_RUN = "not run"
WORDS = {
    NOT_REPRODUCED: "the runs contradict the claim",
    REPRODUCED: "the runs show what the paper says",
    TOO_FEW: "the runs agree with the claim, but are too few or too different for the test",
    UNDERTRAINED: "the runs are not trained far enough to say anything",
    NOT_RUN: "there is no finished run",
}
"""All verdicts. If several configurations answer the same question, the first of theirs in this order counts."""


@dataclass(frozen=True)
class Verdict:
    """A verdict, one of WORDS, and the evidence for it."""

    word: str
    why: str


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t-tests (Schuirmann 1987) of whether a mean over seeds is within EQUAL of a value.

    Args:
        mean: mean over seeds.
        p: the larger of the two p-values; None with fewer than two seeds, where no test is possible.
        n: number of seeds.
    """

    mean: float
    p: float | None
    n: int

    @property
    def shown(self) -> bool:
        """Whether equivalence is significant at LEVEL."""
        return self.p is not None and self.p < LEVEL


Rule = Callable[[Group, Sequence[Group]], Verdict]
"""Maps a group, given all groups on the same graph and model, to a verdict."""


def equivalence(values: Sequence[float], target: float) -> Equivalence:
    """Test whether the mean of values, one per seed, is within EQUAL of a target."""
    mean = fmean(values)
    if len(values) < 2:
        return Equivalence(mean, None, len(values))
    if np.ptp(values) == 0:  # the t-test is undefined without variance
        return Equivalence(mean, 0.0 if abs(mean - target) < EQUAL else 1.0, len(values))
    above = ttest_1samp(values, target - EQUAL, alternative="greater").pvalue
    below = ttest_1samp(values, target + EQUAL, alternative="less").pvalue
    return Equivalence(mean, float(max(above, below)), len(values))


def of(rule: Rule, group: Group, others: Sequence[Group]) -> Verdict:
    """A rule's verdict on a group; not run if the group has no results."""
    if not group.results:
        return Verdict(NOT_RUN, "no run is done")
    return rule(group, others)


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine the verdicts of several configurations on the same question; not run if there are none."""
    order = list(WORDS)
    return min(verdicts, key=lambda verdict: order.index(verdict.word), default=Verdict(NOT_RUN, "no run is done"))


def _hard(result: Result) -> Proportion:
    assert result.hard_token_accuracy is not None  # every star graph has it
    return result.hard_token_accuracy


def guesses(group: Group, others: Sequence[Group]) -> Verdict:
    """Generation is at chance: every seed ends clever_hans, and the mean exact match equals 1/d."""
    if left := _without(group, "clever_hans"):
        return left
    return _equal([result.exact_match.value for result in group.results], group.chance, "exact match")


def guesses_alone(group: Group, others: Sequence[Group]) -> Verdict:
    """The hard token alone stays at chance: every seed ends at_chance, and its mean accuracy equals 1/d."""
    if left := _without(group, "at_chance"):
        return left
    return _equal([_hard(result).value for result in group.results], group.chance, "hard token")


def cheats(group: Group, others: Sequence[Group]) -> Verdict:
    """Given the first hop, which is at chance, the rest is right: cheat accuracy is at least 0.95 in every seed.

    If the first hop is learned as well, the model does not need the cheat, which contradicts the claim.
    """
    if left := _learned(group):
        return left
    values = [result.cheat_accuracy.value for result in group.results if result.cheat_accuracy]
    learned = sum(value >= LEARNED for value in values)
    word = REPRODUCED if values and learned == len(values) else UNDERTRAINED
    return Verdict(word, f"cheat accuracy of at least {LEARNED} in {_of(learned, len(values))}")


def solves(group: Group, others: Sequence[Group]) -> Verdict:
    """The path is learned: every seed ends solved. Ending at_chance contradicts the claim; undertrained does not."""
    solved, stuck = group.outcomes.get("solved", 0), group.outcomes.get("at_chance", 0)
    if solved == len(group.results):
        return Verdict(REPRODUCED, solved_of(group.results))
    if stuck:
        return Verdict(NOT_REPRODUCED, f"{solved_of(group.results)}; {stuck} learned every token but the hard one")
    return Verdict(UNDERTRAINED, solved_of(group.results))


def repairs(group: Group, others: Sequence[Group]) -> Verdict:
    """The path is learned, whereas teacher-forcing with the same settings ends clever_hans in every seed.

    A run that ends before the hard token is learned is undertrained, even if all other tokens are: they are learned
    earlier.
    """
    if group.outcomes.get("solved", 0) < len(group.results):
        return Verdict(UNDERTRAINED, solved_of(group.results))
    forced = [result for other in others if other.objective == "teacher_forcing" and alike(group, other)
              for result in other.results]  # fmt: skip
    failed = sum(result.outcome == "clever_hans" for result in forced)
    why = f"{solved_of(group.results)}; teacher-forcing with these settings: {_of(failed, len(forced))} clever_hans"
    if any(result.outcome == "solved" for result in forced):
        return Verdict(NOT_REPRODUCED, f"{why}, and solved otherwise, so that there is nothing to repair")
    return Verdict(REPRODUCED if forced and failed == len(forced) else UNDERTRAINED, why)


def never_learned(group: Group, others: Sequence[Group]) -> Verdict:
    """Fed the truth, the hard token is at chance as well, on test and training problems, and little is lost after it.

    On the test set, its forced accuracy equals 1/d. On training problems, it ends at most 0.05 above 1/d. In every
    seed, exact match is at most 0.03 below the accuracy of the hard token.
    """
    if left := _without(group, "clever_hans"):
        return left
    hops = [hop.value for run in group.runs if (hop := run.forced_hop)]
    trained = [curve.tokens[-1][1] for run in group.runs
               if run.result and (curve := run.curve("train_set", "forced_token_accuracy"))]  # fmt: skip
    if len(hops) < len(group.results) or len(trained) < len(group.results):
        return Verdict(NOT_RUN, "not every run measured forced accuracies, on test and training problems")
    lost = max(_hard(result).value - result.exact_match.value for result in group.results)
    verdict = _equal(hops, group.chance, "forced hard token")
    why = f"{verdict.why}; {fmean(trained):.3f} on training problems; {lost:.3f} lost after the hard token"
    otherwise = lost > EQUAL or fmean(trained) > group.chance + MARGIN
    return Verdict(NOT_REPRODUCED if otherwise else verdict.word, why)


def right_to_left(group: Group, others: Sequence[Group]) -> Verdict:
    """The inner tokens of the path are learned from the last to the first, which is the hard token.

    Each reaches an accuracy of 0.9 no later than the one before it in the path, and the hard token later than the last
    of them. Start and goal are in the prompt, so a path of three nodes shows no order.
    """
    if group.runs[0].facts.length < 4:
        return Verdict(NOT_RUN, "a path of three nodes has a single inner token")
    arrivals = [arrived(run)[1:-1] for run in group.runs if run.result]
    whole = [[time for time in times if time is not None] for times in arrivals if None not in times]
    if len(whole) < len(arrivals):
        return Verdict(UNDERTRAINED, f"every token was learned in {_of(len(whole), len(arrivals))}")
    backwards = sum(times == sorted(times, reverse=True) and times[0] > times[-1] for times in whole)
    word = REPRODUCED if backwards == len(whole) else NOT_REPRODUCED
    return Verdict(word, f"from right to left in {_of(backwards, len(whole))}")


def arrived(run: Run) -> list[float | None]:
    """Training problems seen when each position's validation accuracy first reached 0.9; None if it never did."""
    curve = run.curve()
    if curve is None:
        return [None] * run.facts.length
    columns = zip(*curve.tokens, strict=True)
    return [next((seen for seen, value in zip(curve.samples, column, strict=True) if value >= MET), None)
            for column in columns]  # fmt: skip


def alike(one: Group, other: Group) -> bool:
    """Whether two groups have the same settings, except objective and seed."""
    left, right = (group.runs[0].identity.hash_without("seed", "objective") for group in (one, other))
    return left == right


def solved_of(results: Sequence[Result]) -> str:
    """`2 of 3 seeds solved [0.21, 0.94]`, with the 95 % Wilson interval of the proportion of seeds."""
    solved = sum(result.outcome == "solved" for result in results)
    interval = binomtest(solved, len(results)).proportion_ci(0.95, method="wilson")
    return f"{_of(solved, len(results))} solved [{interval.low:.2f}, {interval.high:.2f}]"


def _learned(group: Group) -> Verdict | None:
    """The verdict if the hard token was learned, which contradicts every claim that it is not; else None."""
    results = group.results
    learned = sum(result.outcome == "solved" or _hard(result).low > group.chance + MARGIN for result in results)
    if not learned:
        return None
    return Verdict(NOT_REPRODUCED, f"the hard token is right more often than 1/d in {_of(learned, len(results))}")


def _without(group: Group, outcome: str) -> Verdict | None:
    """The verdict if a seed did not end with the claimed outcome, or the hard token was learned; else None."""
    ended = group.outcomes.get(outcome, 0)
    if (left := _learned(group)) or ended == len(group.results):
        return left
    return Verdict(UNDERTRAINED, f"{outcome} in {_of(ended, len(group.results))}")


def _equal(values: Sequence[float], chance: float, name: str) -> Verdict:
    """Reproduced if the mean over seeds is shown to equal 1/d; a mean that is too low indicates undertraining."""
    test = equivalence(values, chance)
    p = "no test with one seed" if test.p is None else f"p = {test.p:.1g}"
    why = f"mean {name} {test.mean:.3f} over {_seeds(test.n)}, 1/d = {chance:.3f}, {p}"
    if test.shown:
        return Verdict(REPRODUCED, why)
    return Verdict(UNDERTRAINED if test.mean <= chance - EQUAL else TOO_FEW, why)


def _of(count: int, all_of_them: int) -> str:
    return f"{count} of {_seeds(all_of_them)}"


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
