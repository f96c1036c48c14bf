"""Costs: training until a task counts as solved, and the cost of an objective relative to teacher-forcing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from scipy.stats import binomtest

from nextfail.reports.collect import Group
from nextfail.reports.record import Run
from nextfail.tasks.facts import SOLVED

BASELINE = "teacher_forcing"
COLUMNS = (
    "objective",
    "model",
    "exact match",
    "solved",
    "problems to 0.95",
    "FLOPs to 0.95",
    "FLOPs a problem",
    "time a problem",
    "extra parameters",
)
NOTES = (
    "problems, FLOPs to 0.95: of training, until the first validation at which exact match (of first_hop_only, the "
    "accuracy of the hard token) is at least 0.95; medians over the seeds that reached it",
    "solved: of all seeds (one that is not done has not solved it), with the 95 % Wilson interval of this share",
    "FLOPs a problem, time a problem (including validation): relative to teacher_forcing with equal settings; "
    "extra parameters: in addition to those of teacher_forcing",
)


@dataclass(frozen=True)
class Cost:
    """Costs of a group's runs.

    Args:
        problems: training problems until the first validation at SOLVED, for each seed that reached it.
        flops: FLOPs of training on those problems.
        flops_ratio, time_ratio, parameters: FLOPs and seconds per problem relative to the baseline, and trained
            parameters in excess of the baseline's; None without a baseline.
    """

    problems: list[int]
    flops: list[float]
    flops_ratio: float | None
    time_ratio: float | None
    parameters: int | None


def to_solved(run: Run) -> int | None:
    """Training problems until the first validation at SOLVED, or None if it was never reached."""
    return next((int(seen) for seen, value in judged(run) if value >= SOLVED), None)


def judged(run: Run) -> list[tuple[float, float]]:
    """Training problems seen and exact match at each validation; of first_hop_only, the accuracy of the hard token."""
    if (curve := run.curve()) is None:
        return []
    hard = run.facts.hard_position if run.judged_by == "hard_token_accuracy" else None
    values = curve.exact if hard is None else [row[hard] for row in curve.tokens]
    return list(zip(curve.samples, values, strict=True))


def cost(group: Group, others: Sequence[Group]) -> Cost:
    """Costs of a group, relative to the teacher-forced group among `others` with otherwise equal settings."""
    done = [run for run in group.runs if run.result]
    reached = [(run, seen) for run in done if (seen := to_solved(run)) is not None]
    flops = [seen * each for run, seen in reached if (each := flops_a_problem(run))]
    baseline = next((each for each in others if each.results and each.objective == BASELINE
                     and _setting(each) == _setting(group)), None)  # fmt: skip
    flops_ratio, time_ratio = (_ratio(group, baseline, key) for key in ("flops", "seconds"))
    own, plain = (_parameters(each) for each in (group, baseline))
    extra = None if own is None or plain is None else own - plain
    return Cost([seen for _, seen in reached], flops, flops_ratio, time_ratio, extra)


def row(group: Group, others: Sequence[Group]) -> list[str]:
    """A group's row of the table with COLUMNS."""
    took, exact = cost(group, others), group.mean("exact_match")
    return [
        group.objective,
        group.model,
        "-" if exact is None else f"{exact:.3f}",
        solved_share(group),
        f"{median(took.problems):,.0f}" if took.problems else "-",
        f"{median(took.flops):.1e}" if took.flops else "-",
        *("-" if ratio is None else f"{ratio:.2f}" for ratio in (took.flops_ratio, took.time_ratio)),
        "-" if took.parameters is None else f"{took.parameters:,}",
    ]


def solved_share(group: Group) -> str:
    """`2/3 [0.21, 0.94]`: seeds that solved the task, of all, with the 95 % Wilson interval of their share."""
    solved, count = group.outcomes.get("solved", 0), len(group.runs)
    interval = binomtest(solved, count).proportion_ci(0.95, method="wilson")
    return f"{solved}/{count} [{interval.low:.2f}, {interval.high:.2f}]"


def ranked(groups: Sequence[Group]) -> list[Group]:
    """Best first: by share of seeds solved, then by fewest problems to get there, then by exact match.

    Groups that are judged on the hop come last: they answer another question.
    """

    def place(group: Group) -> tuple[bool, float, float, float]:
        problems = cost(group, ()).problems
        share = group.outcomes.get("solved", 0) / len(group.runs)
        exact = group.mean("exact_match") or 0
        return group.runs[0].judged_by != "exact_match", -share, median(problems) if problems else math.inf, -exact

    return sorted(groups, key=place)


def _setting(group: Group) -> str:
    """Hash of all settings except the objective and the seed."""
    return group.runs[0].identity.hash_without("objective", "seed")


def _ratio(group: Group, baseline: Group | None, key: str) -> float | None:
    """The median over seeds of a cost per problem, relative to the baseline's."""
    medians = []
    for each in (group, baseline):
        values = [value for run in each.runs if (value := _per_problem(run, key))] if each else []
        if not values:
            return None
        medians.append(median(values))
    return medians[0] / medians[1]


def flops_a_problem(run: Run) -> float | None:
    """FLOPs of training on one problem; None if the run is not done, or does not say."""
    return _per_problem(run, "flops")


def _per_problem(run: Run, key: str) -> float | None:
    value = getattr(run.result, key, None)
    return value / run.result.samples_seen if run.result and value and run.result.samples_seen else None


def _parameters(group: Group | None) -> int | None:
    return group.results[0].parameters if group and group.results else None
