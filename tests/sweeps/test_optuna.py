"""A study counts a trial as done only with a value to optimise."""

from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from hydra_plugins.nextfail_plugins.optuna_sweeper import OptunaSweeper
from nextfail.errors import UserError
from nextfail.sweeps import sweep


class Launcher:
    """Gives each trial the next of some values."""

    settings: dict[str, Any] = {}

    def __init__(self, values: list[float]) -> None:
        self.values, self.ran = values, 0

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        self.ran += len(job_overrides)
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=self.values.pop(0)) for _ in job_overrides]


@pytest.fixture
def sweeper(made: tuple[HydraContext, DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OptunaSweeper:
    monkeypatch.setattr(sweep, "_finished", [])
    made_sweeper = OptunaSweeper(str(tmp_path / "study.log"), "s", n_trials=2, n_jobs=1, seed=0, params=None)
    from hydra.core.override_parser.overrides_parser import OverridesParser

    made_sweeper.parser = OverridesParser.create(config_loader=made[0].config_loader)
    return made_sweeper


def test_a_trial_without_a_value_stays_open_and_is_told(sweeper: OptunaSweeper, tmp_path: Path) -> None:
    sweeper.launcher = Launcher([0.5, float("nan")])  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"1 trials have no exact match .* stay open, such as optimizer\.lr="):
        sweeper.sweep(["optimizer.lr=interval(0.1,1)"])
    assert '"of": 1' in (tmp_path / "best.json").read_text()
    sweeper.launcher = launcher = Launcher([0.7])  # type: ignore[assignment]
    sweeper.sweep(["optimizer.lr=interval(0.1,1)"])
    assert launcher.ran == 1 and '"exact_match": 0.7' in (tmp_path / "best.json").read_text()  # type: ignore[attr-defined]
