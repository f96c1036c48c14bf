"""The claims of the paper: question, published numbers, the runs that answer, and the rule for the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from nextfail.paths import CONF
from nextfail.reports.collect import Collection, Group, group_by
from nextfail.runs.records import Proportion, Result
from nextfail.studies.pitfalls import verdict
from nextfail.studies.pitfalls.verdict import Rule, Verdict
from nextfail.tasks.path_star.facts import SIZES, facts

Range = tuple[float, float]
"""A published proportion, or the lowest and highest of several."""

GRAPHS = ("G(2,5)", "G(5,5)", "G(10,5)", "G(20,5)", "G(2,20)")
"""The paper's graphs."""

LAPTOP = ("G(2,5)", "G(5,5)")
"""Graphs of recipe=laptop, unless a claim states others."""

MODELS = ("transformer", "mamba")
SECOND_HAND = "arXiv 2403.06963, read in a digest of the paper and not in the paper itself"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Args:
        name: name of the experiment, as in experiment=pitfalls/NAME.
        paper: what the paper says, in one sentence.
        source: source of the published numbers, and how they were obtained.
        objective: objective of the runs that answer the claim.
        metric: proportion of a result that is compared with the published one.
        rule: function from runs to a verdict; its docstring is printed.
        published: published numbers by graph.
        models: models that the claim is about.
        laptop: graphs of the recipe that its experiment names.
        beside: another objective to draw beside the runs.
        curves: curves to draw: generated accuracy of each token, or both generated and forced accuracy.
        shown_by: commands of other experiments that answer the claim, by graph and model.
    """

    name: str
    title: str
    question: str
    paper: str
    source: str
    objective: str
    metric: Literal["exact_match", "hard_token_accuracy", "cheat_accuracy"]
    rule: Rule
    published: Mapping[str, Range] = field(default_factory=dict)
    models: tuple[str, ...] = MODELS
    laptop: tuple[str, ...] = LAPTOP
    beside: str | None = None
    curves: Literal["tokens", "forced"] | None = None
    shown_by: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def rule_in_words(self) -> str:
        """The docstring of the rule, on one line."""
        return " ".join((self.rule.__doc__ or "").split())

    def measured(self, result: Result) -> Proportion | None:
        """The proportion in a result that the claim is about."""
        share: Proportion | None = getattr(result, self.metric)
        return share


@dataclass(frozen=True)
class Cell:
    """A claim on one graph with one model: the configurations that answer it, with their verdicts.

    Args:
        command: command that trains the missing runs; empty if none are missing.
    """

    graph: str
    model: str
    rows: list[tuple[Group, Verdict]]
    command: str

    @property
    def verdict(self) -> Verdict:
        """The combined verdict of all configurations."""
        return verdict.combined([each for _, each in self.rows])


CHANCE = {"G(2,5)": (0.48, 0.5), "G(5,5)": (0.19, 0.2), "G(10,5)": (0.08, 0.1), "G(2,20)": (0.48, 0.5)}

DEMO = {("G(2,5)", "transformer"): "nextfail-train experiment=demo seed=0,1,2"}
"""The command that shows teacherless training on a published graph on a laptop."""

CLAIMS = (
    Claim(
        "failure",
        "Teacher-forcing fails",
        "Does a teacher-forced model score 1/d when it generates the path by itself?",
        "The Transformer and Mamba score about 1/d: 48 to 50 %, 19 to 20 % and 8 to 10 % with 2, 5 and 10 arms.",
        f"Table 2, by number of arms; {SECOND_HAND}",
        "teacher_forcing",
        "exact_match",
        verdict.guesses,
        CHANCE,
    ),
    Claim(
        "clever_hans",
        "It learns the Clever Hans cheat",
        "Is the rest of the path right once the first hop is given?",
        "96 to 100 % of paths are completed from the first hop on; G(20,5) was not even fitted.",
        f"Table 1; {SECOND_HAND}",
        "teacher_forcing",
        "cheat_accuracy",
        verdict.cheats,
        {graph: (0.96, 1.0) for graph in GRAPHS if graph != "G(20,5)"},
        curves="tokens",
    ),
    Claim(
        "indecipherable",
        "The hard token cannot be learned alone",
        "Can the first hop be learned alone, when there is nothing to cheat with?",
        "Trained on the hard token alone, the Transformer stays at 1/d.",
        f"Table 5; {SECOND_HAND}",
        "first_hop_only",
        "hard_token_accuracy",
        verdict.guesses_alone,
        dict(zip(GRAPHS, [(0.502,) * 2, (0.189,) * 2, (0.104,) * 2, (0.045,) * 2, (0.504,) * 2], strict=True)),
    ),
    Claim(
        "reverse",
        "Reversed, the task is easy",
        "Is the path learned when it is written from the goal to the start?",
        "Every model learns the reversed path.",
        f"about 100 % on all graphs; {SECOND_HAND}",
        "reverse",
        "exact_match",
        verdict.solves,
        dict.fromkeys(GRAPHS, (1.0, 1.0)),
    ),
    Claim(
        "teacherless",
        "Predicting all tokens at once repairs it",
        "Does teacherless training learn the path where teacher-forcing fails with the same settings?",
        "Teacherless training solves small graphs; where the model cannot fit the training set, it learns nothing.",
        f"near 100 % on G(2,5) and G(2,3), elsewhere “where it fits”; {SECOND_HAND}, and an issue thread of its code",
        "teacherless",
        "exact_match",
        verdict.repairs,
        {"G(2,5)": (1.0, 1.0), "G(2,3)": (1.0, 1.0)},
        laptop=("G(2,3)", "G(2,4)"),
        beside="teacher_forcing",
        shown_by=DEMO,
    ),
    Claim(
        "forced_vs_free",
        "Errors do not accumulate: the first hop was never learned",
        "Is the hard token wrong even if all before it is given, and is nothing more lost after it?",
        "The failure is one of learning, not of errors that accumulate while generating.",
        f"argued in sections 3 and 4, without a table; {SECOND_HAND}",
        "teacher_forcing",
        "hard_token_accuracy",
        verdict.never_learned,
        curves="forced",
    ),
    Claim(
        "cascade",
        "Teacherless training learns the tokens from right to left",
        "In which order does teacherless training learn the tokens of the path?",
        "The goal's parent is learned first, then its parent, and the hard token last.",
        "described in an issue thread of the paper's code and in arXiv 2510.26745, Figure 5; read second-hand",
        "teacherless",
        "exact_match",
        verdict.right_to_left,
        laptop=("G(2,3)", "G(2,4)"),
        beside="teacher_forcing",
        curves="tokens",
        shown_by=DEMO,
    ),
    Claim(
        "pretrained",
        "Pretraining does not change it",
        "Does a pretrained language model score 1/d as well?",
        "GPT-2 large, fine-tuned with batches of 16 at a rate of 1e-5, scores about 1/d.",
        f"Table 2; {SECOND_HAND}",
        "teacher_forcing",
        "exact_match",
        verdict.guesses,
        CHANCE,
        models=("gpt2",),
    ),
)
"""In the order of the report."""


def published(collection: Collection) -> list[Group]:
    """The groups on the paper's task."""
    return [group for group in collection.groups if group.runs[0].identity.classes["task"]["name"] == "path_star"]


def cells(claim: Claim, collection: Collection) -> list[Cell]:
    """A claim's cells: every published graph with every model of the claim, and any others that were run."""
    answers = [group for group in published(collection) if group.objective == claim.objective and _asked(claim, group)]
    asked = [(graph, model) for graph in (*GRAPHS, *claim.laptop, *claim.published) for model in claim.models]
    ran = [(group.task, group.runs[0].model) for group in answers]
    return [_cell(claim, collection, graph, model) for graph, model in dict.fromkeys(asked + ran)]


def beside(claim: Claim, collection: Collection) -> list[Group]:
    """The groups to draw: those that answer the claim, and those of `claim.beside` trained with the same settings."""
    answers = [group for group in published(collection) if group.objective == claim.objective and _asked(claim, group)]
    others = [group for group in published(collection) if group.objective == claim.beside
              and any(verdict.alike(group, answer) for answer in answers)]  # fmt: skip
    pairs = group_by([*answers, *others], lambda group: (group.task, group.model))
    return [group for pair in pairs for group in pair]


def _asked(claim: Claim, group: Group) -> bool:
    """Whether a claim covers a group's model; models special to one claim, such as gpt2, belong to no other."""
    model = group.runs[0].model
    if claim.models != MODELS:
        return model in claim.models
    elsewhere = {name for each in CLAIMS if each.objective == claim.objective for name in each.models} - {*MODELS}
    return model not in elsewhere


def _cell(claim: Claim, collection: Collection, graph: str, model: str) -> Cell:
    here = [group for group in published(collection) if group.task == graph and group.runs[0].model == model]
    rows = [(group, verdict.of(claim.rule, group, here)) for group in here if group.objective == claim.objective]
    settled = verdict.combined([each for _, each in rows]).word in (verdict.REPRODUCED, verdict.NOT_REPRODUCED)
    done = all(run.result for group, _ in rows for run in group.runs)
    return Cell(graph, model, rows, "" if settled and done else _command(claim, graph, model, here))


def _command(claim: Claim, graph: str, model: str, here: list[Group]) -> str:
    """The experiment's recipe if it has the graph, else the paper's. A graph without an option in conf/task is given by
    overrides, from the runs on it."""
    if (graph, model) in claim.shown_by:
        return claim.shown_by[graph, model]
    known = next((name for name, settings in _options().items() if facts(settings).title == graph), None)
    option = f"task={known}" if known else _put_together(here[0].runs[0].facts.sizes)
    recipe = "recipe=paper " if graph in GRAPHS and graph not in claim.laptop else ""
    command = f"nextfail-train experiment=pitfalls/{claim.name} {recipe}{option} model={model}"
    return f"{command} model.source=FOLDER" if model == "gpt2" else command


def _put_together(sizes: dict[str, int]) -> str:
    """Overrides for a star graph of sizes that no option has, starting from the nearest option."""

    def changed(name: str) -> dict[str, int]:
        return {key: value for key, value in sizes.items() if _options()[name][key] != value}

    nearest = min(_options(), key=lambda name: (len(changed(name)), name))
    name = nearest if {*changed(nearest)} == {"num_nodes"} else "path_star"
    return " ".join([f"task={name}", *(f"task.{key}={value}" for key, value in changed(name).items())])


@cache
def _options() -> dict[str, dict[str, Any]]:
    """The settings of every star graph in conf/task, by option name."""
    files = {file.stem: file for file in sorted((CONF / "task").glob("*.yaml"))}
    made: dict[str, Any] = {name: yaml.safe_load(file.read_text(encoding="utf-8")) for name, file in files.items()}
    return {name: settings for name, settings in made.items() if {*SIZES} <= {*settings}}
