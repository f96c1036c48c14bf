"""Every run of every claim takes two steps at the published scale, on a CPU and with small batches."""

from pathlib import Path

import pytest
from inside import compose, train_here
from omegaconf import OmegaConf
from test_experiments import PUBLISHED, different_runs, runs_of
from tiny import make_model

from benchmarks.paper_cost import cost
from nextfail.studies.pitfalls.claims import CLAIMS
from nextfail.sweeps import recipe

ASKED = [f"pitfalls/{claim.name}" for claim in CLAIMS if claim.name != "pretrained"]
ON_A_CPU = ["recipe=paper", "trainer.accelerator=cpu", "trainer.precision=32-true"]
LITTLE = [
    "trainer.max_steps=2",
    "trainer.val_every=2",
    *(f"data.{key}=2" for key in ("validation", "test", "batch_size")),
]

RUNS = sorted({tuple(run) for name in ASKED for run in different_runs(name, "recipe=paper")})


def test_claims_share_their_runs() -> None:
    assert len(RUNS) == 5 * 2 * 4  # graphs, models, objectives: each once, however many claims ask for it


@pytest.mark.paper
@pytest.mark.parametrize("axes", RUNS, ids=",".join)
def test_two_steps(axes: tuple[str, ...], tmp_path: Path) -> None:
    result = train_here(tmp_path, "experiment=pitfalls/failure", *ON_A_CPU, *LITTLE, *axes)
    assert result["steps"] == 2 and result["parameters"] > 10_000_000
    assert result["task"]["name"] in ("G(2,5)", "G(5,5)", "G(10,5)", "G(20,5)", "G(2,20)")


@pytest.mark.paper
@pytest.mark.parametrize("axes", different_runs("pitfalls/pretrained", "recipe=paper"), ids=",".join)
def test_two_steps_of_a_pretrained_model(axes: list[str], tmp_path: Path) -> None:
    source = f"model.source={make_model(tmp_path / 'model', numbers=100, longest=256)}"
    result = train_here(tmp_path / "run", "experiment=pitfalls/pretrained", source, *ON_A_CPU, *LITTLE, *axes)
    assert (result["steps"], result["model"]) == (2, "gpt2")


REMEDIES = [(name, run) for name in PUBLISHED for run in runs_of(name)]


def test_remedies_with_published_results_have_their_settings() -> None:
    assert set(PUBLISHED) == {
        f"leaderboard/{objective}"
        for objective in (
            "multi_token",
            "token_order",
            "next_latent",
            "future_summary",
            "any_order",
            "belief_state",
            "token_masking",
        )
    }
    top = compose("experiment=leaderboard/token_order", "task=g5_5")
    assert (top.model.depth, top.model.width, top.model.heads, top.task.num_nodes) == (8, 384, 6, 30)
    assert (top.data.train, top.data.batch_size, top.optimizer.lr) == (300_000, 4096, 3e-4)
    assert (top.trainer.max_steps, top.trainer.gradient_clip, top.scheduler.warmup) == (7400, None, 1500)
    ahead = compose("experiment=leaderboard/multi_token", "task=g5_5")
    assert (ahead.objective.k, ahead.objective.removed) == (4, 1)  # 7 blocks and 4 heads
    latent = compose("experiment=leaderboard/next_latent", "task=g7_7")
    assert (latent.model.depth, latent.model.width, latent.task.num_nodes) == (12, 384, 100)
    assert (latent.data.train, latent.data.batch_size, latent.optimizer.lr) == (200_000, 512, 5e-4)
    assert (latent.trainer.max_steps, latent.trainer.gradient_clip, latent.scheduler.warmup) == (20_000, 100, 0)
    assert (latent.model.positions, latent.model.norm, latent.model.mlp) == ("rope", "rms", "swiglu")
    assert (latent.objective.horizon, latent.objective.prompt) == (None, True)
    belief = compose("experiment=leaderboard/belief_state", "task=g5_5")
    assert (belief.model.depth, belief.model.width, belief.model.heads, belief.task.num_nodes) == (6, 768, 8, 50)
    assert (belief.trainer.max_steps, belief.data.batch_size, belief.optimizer.lr) == (5000, 256, 1e-4)
    assert (belief.optimizer.weight_decay, list(belief.optimizer.betas)) == (0, [0.9, 0.95])
    assert latent.trainer.accelerator == "gpu"
    masking = compose("experiment=leaderboard/token_masking", "task=g2_5")
    assert (masking.model.depth, masking.model.width, masking.model.heads, masking.task.num_nodes) == (8, 64, 2, 9)
    assert masking.trainer.max_steps * masking.data.batch_size == pytest.approx(100e6, rel=1e-4)


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_published_settings_have_a_baseline(experiment: str) -> None:
    """The same with teacher_forcing composes, and keys of the remedy are not in its way."""
    assert set(compose(f"experiment={experiment}", "objective=teacher_forcing").objective) == {"_target_"}


def test_settings_that_differ_have_folders_of_their_own() -> None:
    names: dict[str, dict[str, object]] = {}
    for experiment in PUBLISHED:
        cfg = compose(f"experiment={experiment}", "objective=teacher_forcing", "task=g2_5")
        setting = OmegaConf.to_container(OmegaConf.masked_copy(cfg, ["task", "data", "model", "optimizer", "trainer"]))
        assert names.setdefault(cfg.name, setting) == setting


@pytest.mark.paper
@pytest.mark.parametrize(("experiment", "axes"), REMEDIES, ids=str)
def test_two_steps_of_published_remedies(experiment: str, axes: list[str], tmp_path: Path) -> None:
    result = train_here(tmp_path, f"experiment={experiment}", *ON_A_CPU[1:], *LITTLE, *axes)
    assert result["steps"] == 2
    least = {"leaderboard/token_masking": 400_000, "leaderboard/any_order": 6_000_000}
    assert result["parameters"] > least.get(experiment, 10_000_000)


@pytest.mark.paper
def test_cost_is_counted_from_the_published_budget() -> None:
    counted = cost("g2_5", "transformer", "reverse")
    assert (counted.problems, counted.tokens) == (100_000_000, 3_200_000_000)
    products = 12 * 12 * 384**2  # parameters in matrices: 4 C^2 of attention and 8 C^2 of the MLP in each block
    assert counted.flops == pytest.approx(6 * products * counted.tokens, rel=0.25)  # 6 a parameter and token
    assert counted.gpu_hours == pytest.approx(counted.flops / 100e12 / 3600)


def test_published_recipe() -> None:
    cfg = compose("experiment=pitfalls/failure", "recipe=paper")
    cfg, _ = recipe.applied(cfg, cfg.hydra)
    assert (cfg.model.depth, cfg.model.width, cfg.model.heads, cfg.data.batch_size) == (12, 384, 6, 256)
    assert (cfg.data.train, cfg.data.test, cfg.optimizer.lr) == (200_000, 20_000, 5e-4)
    assert cfg.trainer.max_steps * cfg.data.batch_size == 500 * cfg.data.train
    assert (cfg.optimizer.weight_decay, cfg.trainer.gradient_clip) == (0, None)
