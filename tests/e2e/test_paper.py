"""Every run of every claim takes two steps at the published scale, on a CPU and with small batches."""

from pathlib import Path

import pytest
from inside import compose, train_here
from test_experiments import EXPERIMENTS, different_runs

from nextfail.runs.naming import graph_name

CLAIMS = [name for name in EXPERIMENTS if name.startswith("pitfalls/") and name != "pitfalls/pretrained"]
ON_A_CPU = ["scale=paper", "trainer.accelerator=cpu", "trainer.precision=32-true"]
LITTLE = [
    "trainer.max_steps=2",
    "trainer.val_every=2",
    *(f"data.{key}=2" for key in ("validation", "test", "batch_size")),
]

RUNS = sorted({tuple(run) for name in CLAIMS for run in different_runs(name, "scale=paper")})


def test_claims_share_their_runs() -> None:
    assert len(RUNS) == 5 * 2 * 4  # graphs, models, objectives: each once, however many claims ask for it


@pytest.mark.paper
@pytest.mark.parametrize("axes", RUNS, ids=",".join)
def test_two_steps(axes: tuple[str, ...], tmp_path: Path) -> None:
    result = train_here(tmp_path, "experiment=pitfalls/failure", *ON_A_CPU, *LITTLE, *axes)
    assert result["steps"] == 2 and result["parameters"] > 10_000_000
    assert graph_name(result["graph"]) in ("G(2,5)", "G(5,5)", "G(10,5)", "G(20,5)", "G(2,20)")


def test_published_recipe() -> None:
    cfg = compose("experiment=pitfalls/failure", "scale=paper")
    assert (cfg.model.depth, cfg.model.width, cfg.model.heads, cfg.data.batch_size) == (12, 384, 6, 256)
    assert (cfg.data.train, cfg.data.test, cfg.optimizer.lr) == (200_000, 20_000, 5e-4)
    assert cfg.trainer.max_steps * cfg.data.batch_size == 500 * cfg.data.train
