"""The built wheel, from another folder, with a user's own configuration and class from outside the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TINY, call, refused

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

OWN = '''
from nextfail.objectives import Objective


class HardTokenTwice(Objective):
    """Teacher-forcing that counts the hard token twice."""

    def loss(self, backbone, batch):
        hidden = backbone(self.inputs(batch.prompts, batch.answers), last=batch.answers.shape[1])
        logits = backbone.logits(hidden)
        loss = self.cross_entropy(logits, batch.answers)
        hard = self.cross_entropy(logits[:, 1:2], batch.answers[:, 1:2]).total
        loss.parts = {"path": loss.total, "hard": hard}
        loss.total = loss.total + hard
        return loss
'''


def test_wheel_trains_evaluates_and_reports(installed: dict[str, str], tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import nextfail; print(nextfail.__file__)"],
        env=os.environ | installed, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert installed["PYTHONPATH"] in shown.stdout and str(ROOT) not in shown.stdout
    assert (Path(installed["PYTHONPATH"]) / "hydra_plugins/nextfail_plugins/launchers.py").exists()
    call("train", *TINY, "hydra.run.dir=run", cwd=tmp_path, env=installed)
    call("status", "run", cwd=tmp_path, env=installed)
    call("eval", "run", cwd=tmp_path, env=installed)
    call("report", "run", "--out", "report", cwd=tmp_path, env=installed)
    call("data", "--task", "g2_5", "--n", 5, "--seed", 0, "--out", "a.txt", cwd=tmp_path, env=installed)
    assert {"run", "report", "a.txt"} == {path.name for path in tmp_path.iterdir()}


def test_own_objective_from_outside(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "conf" / "objective").mkdir(parents=True)
    (tmp_path / "conf" / "objective" / "twice.yaml").write_text("_target_: mine.HardTokenTwice\n")
    own = ("--config-dir", "conf", "objective=twice")
    call("train", *own, *TINY, "hydra.run.dir=run", cwd=tmp_path, env=installed)
    call("train", "-m", *own, *TINY, "seed=0,1", cwd=tmp_path, env=installed)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["objective"] == "twice" and result["cheat_accuracy"]["n"] == 100
    assert "path,hard" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert "mine.HardTokenTwice" in refused("eval", "run", cwd=tmp_path)
    call(
        "eval", "run", "--trust", cwd=tmp_path, env=installed | {"PYTHONPATH": f"{installed['PYTHONPATH']}:{tmp_path}"}
    )
