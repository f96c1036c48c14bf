"""Everything that works with model=transformer works with model=mamba."""

import csv
import json
from pathlib import Path

import pytest
from commands import TINY, call, refused, sweep
from inside import train_here

from nextfail.runs.folder import RunFolder
from nextfail.training.evaluate import evaluate

RUN = ("debug=default", "model=mamba", "model.depth=1", "model.width=8", "model.d_state=4", "data.test=16")
SHORT = ("trainer.max_steps=2", "trainer.val_every=1")


@pytest.mark.slow
def test_a_sweep_over_both_architectures(tmp_path: Path) -> None:
    sweep("model=transformer,mamba", "objective=teacher_forcing,reverse", "name=both", cwd=tmp_path)
    folders = sorted(tmp_path.glob("runs/both/*/result.json"))
    results = [json.loads(path.read_text()) for path in folders]
    assert sorted((each["model"], each["objective"]) for each in results) == [
        (model, objective) for model in ("mamba", "transformer") for objective in ("reverse", "teacher_forcing")
    ]
    mamba = next(path.parent for path in folders if json.loads(path.read_text())["model"] == "mamba")
    assert "scan on cpu: a fused kernel for the CPU" in (mamba / "train.log").read_text()
    evaluated = json.loads(call("eval", mamba, "--task", "g2_5", "--json", cwd=tmp_path).stdout)
    assert evaluated["exact_match"]["n"] > 0
    call("report", "runs/both", cwd=tmp_path)
    table = (tmp_path / "runs" / "both" / "report" / "report.md").read_text()
    assert "mamba" in table and "transformer" in table


@pytest.mark.parametrize("objective", ["teacher_forcing", "reverse", "teacherless"])
def test_every_objective_takes_steps_in_every_form(objective: str, tmp_path: Path) -> None:
    losses = {}
    for form in ("fused", "parallel", "loop"):
        result = train_here(tmp_path / form, *RUN, *SHORT, f"objective={objective}", f"model.scan={form}")
        assert result["steps"] == 2
        with (tmp_path / form / "metrics.csv").open() as file:
            losses[form] = [float(row["loss"]) for row in csv.DictReader(file) if row["split"] == "train"]
    assert losses["fused"] == pytest.approx(losses["loop"], rel=1e-4)
    assert losses["parallel"] == pytest.approx(losses["loop"], rel=1e-4)


OTHERS = [
    ("model=mamba2", "model.d_state=4", "model.head_dim=8"),
    ("model=hybrid", "model.layers=[mamba2,attention]", "model.head_dim=8", "model.positions=rope"),
    ("model=transformer", "model.positions=rope", "model.norm=rms", "model.mlp=swiglu", "model.qk_norm=true"),
    ("model=transformer", "model.positions=none", "model.mlp=null", "model.conv=2"),
]


@pytest.mark.parametrize("settings", OTHERS, ids=lambda settings: ",".join(settings[:2]))
def test_other_backbones_are_evaluated_from_their_folder_alone(settings: tuple[str, ...], tmp_path: Path) -> None:
    result = train_here(tmp_path, "debug=default", "data.test=16", "model.width=16", *SHORT, *settings)
    again = evaluate(RunFolder(tmp_path), checkpoint="last", sizes=None, file=None, trust=False)
    assert again["exact_match"] == result["exact_match"] and again["token_accuracy"] == result["token_accuracy"]
    assert result["flops"] > 0 and result["model"] == settings[0].removeprefix("model=")


def test_flops_by_hand(tmp_path: Path) -> None:
    flops = train_here(tmp_path, *RUN, *SHORT, "task=g2_3")["flops"]
    T, path, C, D, N, R, K, V = 18, 3, 8, 16, 4, 1, 4, 54  # the last path token is not read
    T -= 1
    products = T * C * D + path * C * D + T * D * (R + 2 * N) + T * R * D + path * D * C + path * C * V
    scan, taps = 6 * T * D * N, 2 * T * D * K
    batch = 2 * json.loads((tmp_path / "run.json").read_text())["data"]["batch_size"]
    assert flops == 3 * batch * (2 * products + scan + taps)


@pytest.mark.slow
def test_keys_of_another_model_are_refused(tmp_path: Path) -> None:
    assert "heads" in refused("train", *TINY, "model=mamba", "model.heads=2", cwd=tmp_path)
    message = refused("train", *TINY, "model=mamba", "model.scan=quick", "hydra.run.dir=run", cwd=tmp_path)
    assert "model.scan='quick' is unknown: choose auto, mamba_ssm, fused, parallel or loop" in message
    assert "model.scan=mamba_ssm runs on cuda, not on cpu" in refused(
        "train", *TINY, "model=mamba", "model.scan=mamba_ssm", "hydra.run.dir=other", cwd=tmp_path
    )
