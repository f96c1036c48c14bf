"""What runs say of a claim, by rules that are written down. Every rule stands here and nowhere else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.stats import binomtest, ttest_1samp

from nextfail.reports.collect import Group
from nextfail.reports.record import Run
from nextfail.runs.records import Proportion, Result
from nextfail.tasks.path_star.outcome import LEARNED, MARGIN

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
    TOO_FEW: "the runs agree with the claim, and are too few or too far apart for the test",
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


def of(rule: Rule, group: Group, others: Sequence[Group]) -> Verdict:
    """A rule's verdict on a group, which has results or not."""
    if not group.results:
        return Verdict(NOT_RUN, "no run is done")
    return rule(group, others)


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several configurations' on the same question; not run if there are none."""
    order = list(WORDS)
    return min(verdicts, key=lambda verdict: order.index(verdict.word), default=Verdict(NOT_RUN, "no run is done"))


def _hard(result: Result) -> Proportion:
    assert result.hard_token_accuracy is not None  # every star graph has it
    return result.hard_token_accuracy


def guesses(group: Group, others: Sequence[Group]) -> Verdict:
    """Free generation scores 1/d: every seed ends clever_hans, and the mean of their exact match equals 1/d."""
    if left := _without(group, "clever_hans"):
        return left
    return _equal([result.exact_match.value for result in group.results], group.chance, "exact match")


def guesses_alone(group: Group, others: Sequence[Group]) -> Verdict:
    """The hard token alone stays a guess: every seed ends at_chance, and their mean equals 1/d."""
    if left := _without(group, "at_chance"):
        return left
    return _equal([_hard(result).value for result in group.results], group.chance, "hard token")


def cheats(group: Group, others: Sequence[Group]) -> Verdict:
    """Given the first hop, which is a guess, the rest is right: cheat accuracy of at least 0.95 in every seed.

    Where the first hop is learned as well, the model has no need to cheat, which contradicts the claim.
    """
    if left := _learned(group):
        return left
    values = [result.cheat_accuracy.value for result in group.results if result.cheat_accuracy]
    learned = sum(value >= LEARNED for value in values)
    word = REPRODUCED if values and learned == len(values) else UNDERTRAINED
    return Verdict(word, f"cheat accuracy of at least {LEARNED} in {_of(learned, len(values))}")


def solves(group: Group, others: Sequence[Group]) -> Verdict:
    """The path is learned: every seed ends solved. Ending at_chance contradicts it, undertrained says nothing."""
    solved, stuck = group.outcomes.get("solved", 0), group.outcomes.get("at_chance", 0)
    if solved == len(group.results):
        return Verdict(REPRODUCED, solved_of(group.results))
    if stuck:
        return Verdict(NOT_REPRODUCED, f"{solved_of(group.results)}; {stuck} learned every token but the hard one")
    return Verdict(UNDERTRAINED, solved_of(group.results))


def repairs(group: Group, others: Sequence[Group]) -> Verdict:
    """The path is learned, and with the same settings teacher-forcing ends clever_hans in every seed.

    A run that ends before its hard token comes in is undertrained, even if all others have: they come in before.
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
    """Fed the truth, the hard token is a guess as well, on test and on training problems, and little is lost after it.

    On the test set its forced accuracy equals 1/d, on problems of the training set it ends within 0.05 of 1/d, and
    whole paths are right as often as their hard tokens, but for 0.03.
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
    """The inner tokens of the path come in from the last to the first, which is the hard token.

    Each reaches an accuracy of 0.9 no later than the one before it in the path, and the hard token after the last of
    them. Start and goal stand in the prompt, so a path of three nodes has no order to be seen.
    """
    if group.runs[0].facts.length < 4:
        return Verdict(NOT_RUN, "a path of three nodes has a single inner token")
    arrivals = [arrived(run)[1:-1] for run in group.runs if run.result]
    whole = [[time for time in times if time is not None] for times in arrivals if None not in times]
    if len(whole) < len(arrivals):
        return Verdict(UNDERTRAINED, f"every token came in in {_of(len(whole), len(arrivals))}")
    backwards = sum(times == sorted(times, reverse=True) and times[0] > times[-1] for times in whole)
    word = REPRODUCED if backwards == len(whole) else NOT_REPRODUCED
    return Verdict(word, f"from right to left in {_of(backwards, len(whole))}")


def arrived(run: Run) -> list[float | None]:
    """Problems seen when each position's validation accuracy first was at 0.9; None where it never was."""
    curve = run.curve()
    if curve is None:
        return [None] * run.facts.length
    columns = zip(*curve.tokens, strict=True)
    return [next((seen for seen, value in zip(curve.samples, column, strict=True) if value >= MET), None)
            for column in columns]  # fmt: skip


def alike(one: Group, other: Group) -> bool:
    """Whether two groups were trained with the same settings, objective and seed apart."""
    left, right = (group.runs[0].identity.hash_without("seed", "objective") for group in (one, other))
    return left == right


def solved_of(results: Sequence[Result]) -> str:
    """`2 of 3 seeds solved [0.21, 0.94]`, with the 95 % Wilson interval of the share of seeds."""
    solved = sum(result.outcome == "solved" for result in results)
    interval = binomtest(solved, len(results)).proportion_ci(0.95, method="wilson")
    return f"{_of(solved, len(results))} solved [{interval.low:.2f}, {interval.high:.2f}]"


def _learned(group: Group) -> Verdict | None:
    """That the hard token was learned, which contradicts every claim that it is not; None if it was not."""
    results = group.results
    learned = sum(result.outcome == "solved" or _hard(result).low > group.chance + MARGIN for result in results)
    if not learned:
        return None
    return Verdict(NOT_REPRODUCED, f"the hard token is right more often than 1/d in {_of(learned, len(results))}")


def _without(group: Group, outcome: str) -> Verdict | None:
    """The verdict where not every seed ended as the claim says; None where every one did."""
    ended = group.outcomes.get(outcome, 0)
    if (left := _learned(group)) or ended == len(group.results):
        return left
    return Verdict(UNDERTRAINED, f"{outcome} in {_of(ended, len(group.results))}")


def _equal(values: Sequence[float], chance: float, name: str) -> Verdict:
    """Reproduced if the mean over seeds is shown to equal 1/d; one that is too low says that training was too short."""
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
