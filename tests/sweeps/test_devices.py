"""One run on each GPU, with lists of GPUs that are made up."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.types import HydraContext
from omegaconf import DictConfig

from nextfail.config import LAUNCHERS
from nextfail.errors import UserError
from nextfail.sweeps import job
from nextfail.sweeps import pool as pool_file
from nextfail.sweeps.devices import VISIBLE, gpus, places
from nextfail.sweeps.effect import require_in_sweep
from nextfail.sweeps.pool import Pool, _Worker

TWO = ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    ("found", "per_gpu", "most", "expected"),
    [
        (TWO, 1, None, TWO),
        (TWO, 2, None, ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]),
        (TWO, 2, 3, ["GPU-a", "GPU-b", "GPU-a"]),
        (TWO, 1, 8, TWO),
        ([None], 1, None, [None]),  # Apple's
        ([], 1, 3, [None] * 3),
    ],
)
def test_places(found: list[str | None], per_gpu: int, most: int | None, expected: list[str | None]) -> None:
    assert places(found, per_gpu, most) == expected


def test_a_place_on_each_core_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextfail.sweeps.devices.cores", lambda: 5)
    assert places([], 3, None) == [None] * 5


@pytest.mark.parametrize(
    ("count", "visible", "expected"),
    [
        (3, None, ["0", "1", "2"]),
        (2, "5, 7", ["5", "7"]),
        (1, "GPU-8f1,GPU-none", ["GPU-8f1"]),  # what is after a wrong name is not seen
        (0, "", []),
        (0, None, []),
    ],
)
def test_gpus_as_the_environment_names_them(
    count: int, visible: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # to be taken back
    monkeypatch.delenv(VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    assert gpus() == expected
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert gpus() == (expected or [None])


class Wanted:
    """What a pool looks at of a job."""

    def __init__(self, accelerator: str) -> None:
        self.config = SimpleNamespace(trainer=SimpleNamespace(accelerator=accelerator))
        self.reason = ""

    def refuse(self, reason: str) -> None:
        self.reason = reason


class Fakes:
    """Processes that end when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, found: list[str | None]) -> None:
        self.alive: set[Any] = set()
        monkeypatch.setattr(pool_file, "gpus", lambda: found)
        monkeypatch.setattr(Pool, "_worker", self.worker)

    def worker(self, job: Any, device: str | None) -> _Worker:
        self.alive.add(job)
        process: Any = SimpleNamespace(is_alive=lambda: job in self.alive, exitcode=0)
        words: Any = SimpleNamespace(poll=lambda: False)
        return _Worker(job, process, words, device)


@pytest.mark.parametrize("per_gpu", [1, 2])
def test_no_gpu_has_more_runs_than_it_may(per_gpu: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch, [*TWO])
    pool = Pool(None, None, per_gpu)  # type: ignore[arg-type]
    waiting: list[Any] = [Wanted("gpu") for _ in range(9)]
    pool.prepare(waiting)
    assert pool.room == 2 * per_gpu
    done = 0
    while waiting or pool.busy:
        batch, waiting = waiting[: pool.room], waiting[pool.room :]
        pool.start(batch)
        on = Counter(worker.device for worker in pool.workers)
        assert set(on) <= set(TWO) and max(on.values()) <= per_gpu
        assert not waiting or pool.room == 0
        fakes.alive.discard(pool.workers[done % len(pool.workers)].job)
        done += len(pool.ended())
    assert done == 9 and pool.room == 2 * per_gpu


def test_without_a_gpu_only_what_needs_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Fakes(monkeypatch, [])
    jobs: list[Any] = [Wanted(accelerator) for accelerator in ("gpu", "cpu", "auto", "cuda")]
    pool = Pool(None, 3, 1)  # type: ignore[arg-type]
    pool.prepare(jobs)
    assert ["needs a GPU, and torch" in job.reason for job in jobs] == [True, False, False, True]
    assert pool.room == 3


def test_nobody_looks_for_gpus_where_no_run_wants_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_file, "gpus", lambda: pytest.fail("torch was asked"))
    pool = Pool(None, 2, 1)  # type: ignore[arg-type]
    pool.prepare([Wanted("cpu")])  # type: ignore[list-item]
    assert pool.room == 2


def composed(made: tuple[HydraContext, DictConfig], *overrides: str) -> DictConfig:
    context, master = made
    return context.config_loader.load_configuration("train", ["hydra/launcher=slurm", *overrides], master.hydra.mode)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [("trainer=gpu", 1), ("trainer=cpu", None), ("trainer=gpu hydra.launcher.gpus=2", 2)],
)
def test_slurm_is_asked_for_a_gpu(
    overrides: str, expected: int | None, made: tuple[HydraContext, DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra_plugins.nextfail_plugins import launchers

    config = made[0].config_loader.load_configuration(
        "train", ["hydra/launcher=slurm", *overrides.split()], made[1].hydra.mode
    )
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(launchers, "_submit", lambda: SimpleNamespace(Slurm=lambda *given: asked.append(given[2])))
    settings = {str(key): config.hydra.launcher[key] for key in LAUNCHERS[launchers.SlurmLauncher.name]}
    launcher = launchers.SlurmLauncher(**settings)
    launcher.context = made[0]
    launcher.backend()
    assert asked[0].get("gpus_per_node") == expected


def test_runs_with_and_without_a_gpu_do_not_share_an_array(made: tuple[HydraContext, DictConfig]) -> None:
    master, gpu = composed(made, "trainer=cpu"), composed(made, "trainer=gpu")
    with pytest.raises(UserError, match=r"makes hydra\.launcher\.gpus=1, and the other runs have None"):
        require_in_sweep(master, [(["trainer=gpu"], gpu)])


def test_a_launcher_of_ones_own_that_lacks_a_setting_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra_plugins.nextfail_plugins.launchers import LocalLauncher

    monkeypatch.setattr(job, "begun", False)  # to be taken back
    with pytest.raises(UserError, match=r"hydra\.launcher\.per_gpu is missing: give a value, as in \+hydra"):
        LocalLauncher(n_jobs=1).launch([], 0)
