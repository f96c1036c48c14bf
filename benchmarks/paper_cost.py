"""Cost of the claims at the published scale: parameters, tokens, FLOPs and GPU-hours of every run.

python -m benchmarks.paper_cost --out results/paper_cost.csv
"""

import argparse
import csv
import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table

from nextfail.paths import CONF
from nextfail.sweeps.resolve import resolve
from nextfail.training.build import make_data, make_module, make_task
from nextfail.training.rehearsal import flops_per_step

CLAIMS = (
    "failure",
    "indecipherable",
    "reverse",
    "teacherless",
)  # the others need the same runs, or a pretrained model
RATE = 100e12  # FLOP/s: 10 % of an H100's bf16 peak (989e12); a guess for models this small, not measured


@dataclass(frozen=True)
class Cost:
    """Cost of one run, which is one seed of three; validation and test add less than 1 %."""

    graph: str
    model: str
    objective: str
    parameters: int
    problems: int
    tokens: int
    flops: float
    assumed_flops_per_second: float
    gpu_hours: float


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/paper_cost.csv"), metavar="PATH")
    arguments = parser.parse_args()
    costs = [cost(*run) for run in track(sorted(asked()), description="counting")]
    Console(width=120).print(table(costs))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(costs[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in costs)


def asked() -> set[tuple[str, str, str]]:
    """Graph, model and objective of every run of every claim, without duplicates."""
    found = set()
    for claim in CLAIMS:
        params = compose(f"experiment=pitfalls/{claim}", "recipe=paper").hydra.sweeper.params
        graphs, models, objectives = (str(params[key]).split(",") for key in ("task", "model", "objective"))
        found |= set(itertools.product(graphs, models, objectives))
    return found


def cost(graph: str, model: str, objective: str) -> Cost:
    """Compute the cost of a run from one training step on a few rows."""
    cfg = compose("recipe=paper", f"task={graph}", f"model={model}", f"objective={objective}", "data.train=64")
    OmegaConf.set_struct(cfg, False)
    config, _ = resolve(cfg, Path(), cfg.pop("hydra"))
    task = make_task(config)
    data, module = make_data(config, task), make_module(config, task)
    data.setup()
    steps = config["trainer"]["max_steps"]
    flops = float(steps * flops_per_step(module, data))
    problems = steps * data.batch_size
    parameters = sum(p.numel() for p in module.parameters())
    tokens = problems * module.objective.max_length(task)
    return Cost(graph, model, objective, parameters, problems, tokens, flops, RATE, flops / RATE / 3600)


def compose(*overrides: str) -> Any:
    """The configuration of a command, including the `hydra` section."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides), return_hydra_config=True)


def table(costs: list[Cost]) -> Table:
    """One row per run, and the sum."""
    shown = Table(title=f"recipe=paper, one seed each; GPU-hours at {RATE / 1e12:.0f} TFLOP/s, which is a guess")
    for column in ("graph", "model", "objective", "parameters", "problems", "tokens", "FLOPs", "GPU-hours"):
        shown.add_column(column, justify="left" if column in ("graph", "model", "objective") else "right")
    for each in costs:
        millions = [f"{value / 1e6:,.0f} M" for value in (each.parameters, each.problems, each.tokens)]
        shown.add_row(each.graph, each.model, each.objective, *millions, f"{each.flops:.2e}", f"{each.gpu_hours:.1f}")
    whole = sum(each.flops for each in costs), sum(each.gpu_hours for each in costs)
    shown.add_row("all", "", "", "", "", "", f"{whole[0]:.2e}", f"{whole[1]:.0f}", style="bold")
    return shown


if __name__ == "__main__":
    main()
