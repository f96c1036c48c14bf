"""What a sweep has to do, decided from its overrides and what is on the disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from synthetic import share

from nextfail.runs.folder import record
from nextfail.runs.identity import Identity
from nextfail.sweeps.plan import Job, plan
from nextfail.sweeps.records import remembered
from nextfail.sweeps.resolve import own_part, resolve
from nextfail.sweeps.sweep import counts, unfinished


class Planner:
    """Plans sweeps below one folder."""

    def __init__(self, context: HydraContext, master: DictConfig, folder: Path) -> None:
        self.context, self.master, self.folder = context, master.copy(), folder
        # overrides of Hydra's part are applied again to every job
        OmegaConf.set_readonly(self.master.hydra, False)
        self.master.hydra.overrides.hydra = [f"hydra.sweep.dir='{folder}'"]

    def __call__(self, *batch: str) -> list[Job]:
        return plan(self.context, self.master, [overrides.split() for overrides in batch], 0)

    def hydra(self, override: str) -> None:
        self.master.hydra.overrides.hydra.append(override)


@pytest.fixture
def planner(made: tuple[HydraContext, DictConfig], tmp_path: Path) -> Planner:
    return Planner(*made, tmp_path)


def finish(job: Job, **changed: Any) -> None:
    """Make the run of a job done, or that of another identity."""
    identity = Identity.of(resolve(own_part(job.config), Path.cwd(), job.config.hydra)[0])
    job.folder.path.mkdir(parents=True)
    run = record(replace(identity, settings=identity.settings | changed), {})
    job.folder.files.write_json("run.json", run)
    result = {"schema": 3, "outcome": "solved", "exact_match": share(1.0), "steps": 1, "samples_seen": 1}
    job.folder.files.write_json("result.json", result | {"identity": run["hash"]})


def test_done_runs_are_told_from_the_rest(planner: Planner) -> None:
    finish(planner("seed=1")[0])
    jobs = planner("seed=0", "seed=1", "seed=2")
    assert [(job.name, job.state, job.number) for job in jobs] == [
        ("seed=0", "todo", 0), ("seed=1", "before", 1), ("seed=2", "todo", 2)
    ]  # fmt: skip
    assert counts(jobs) == "3 runs: 1 done before, 2 not started"
    assert set(remembered(planner.folder)) == {"seed=0", "seed=1", "seed=2"}


def test_restart_does_what_is_done_again_and_fail_refuses_it(planner: Planner) -> None:
    finish(planner("seed=1")[0])
    assert [job.state for job in planner("seed=1 on_existing=restart")] == ["todo"]
    (job,) = planner("seed=1 on_existing=fail")
    assert job.state == "refused" and "exists already" in job.reason


def test_same_run_twice_is_one_job(planner: Planner) -> None:
    jobs = planner("seed=0", "seed=0", "seed=0 callbacks=none")
    assert jobs[0] is jobs[1] is jobs[2]


def test_sweep_that_gained_an_axis_finds_its_runs_under_their_old_names(planner: Planner) -> None:
    finish(planner("seed=1")[0])
    (cut,) = planner("seed=2")
    finish(cut)
    cut.folder.result_json.unlink()
    cut.folder.checkpoints.mkdir()
    grown = planner(*(f"seed={seed} objective={name}" for seed in (1, 2, 3) for name in ("teacher_forcing", "reverse")))
    assert [(job.name, job.state) for job in grown[::2]] == [
        ("seed=1", "before"), ("seed=2", "todo"), ("seed=3,objective=teacher_forcing", "todo")
    ]  # fmt: skip
    assert grown[2].config.hydra.sweep.subdir == "seed=2"
    assert [job.name for job in grown[1::2]] == [f"seed={seed},objective=reverse" for seed in (1, 2, 3)]
    anew = planner("seed=1 objective=teacher_forcing on_existing=restart")
    assert anew[0].name == "seed=1,objective=teacher_forcing" and anew[0].state == "todo"


def test_two_runs_in_one_folder_are_refused(planner: Planner) -> None:
    planner.hydra("hydra.sweep.subdir=one")
    jobs = planner("seed=0", "seed=1")
    assert [job.state for job in jobs] == ["todo", "refused"]
    assert "one is the folder of another run of this sweep, too: seed=0" in jobs[1].reason


def test_folder_of_another_run_is_refused_with_the_difference(planner: Planner) -> None:
    finish(planner("seed=1")[0], threads=7)
    (job,) = planner("seed=1")
    assert job.state == "refused" and "threads: 7 there, 1 asked for" in job.reason


def test_same_mistake_of_many_runs_is_one_line(planner: Planner) -> None:
    jobs = planner(*(f"seed={seed} trainer.val_every=0" for seed in range(3)), "seed=9")
    assert [job.state for job in jobs] == ["refused"] * 3 + ["todo"]
    refused, todo = unfinished(jobs)
    names = "seed=0,trainer.val_every=0 and 2 more"
    assert refused.startswith(f"  refused: {names}: trainer.val_every=0 is not")
    assert todo == "  not started: seed=9"


@pytest.mark.parametrize("value", ["a/b=c", "x" * 400, "ä b", "..", "a:b|c"])
def test_folders_are_safe_whatever_the_overrides(planner: Planner, value: str) -> None:
    (job,) = plan(planner.context, planner.master, [[f"name='{value}'", f"+data.note='{value}'", "seed=1"]], 0)
    assert job.folder.path.parent == planner.folder and len(job.name.encode()) <= 255
    assert not set(job.name) & set("/\\:|") and job.name not in (".", "..")
    job.folder.path.mkdir()
