"""What is said of a run, from its folder, its lock and what SLURM says; SLURM's commands are scripts here."""

import errno
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import cut_short, make_run, write

from nextfail.cli.status import counts, statuses
from nextfail.errors import UserError
from nextfail.runs import slurm
from nextfail.runs.folder import RunFolder
from nextfail.runs.lock import Owner
from nextfail.runs.records import lenient
from nextfail.runs.slurm import JobState
from nextfail.runs.status import look, note, status_of, survey
from nextfail.sweeps.records import remember, remembered

NOW = time.time()


def say(folder: Path, jobs: dict[str, JobState] | None = None) -> tuple[str, str]:
    status = look(RunFolder(folder), status_of(RunFolder(folder)), jobs)
    return status["state"], status.get("reason", "")


def hold(folder: Path, **other: Any) -> None:
    (folder / ".lock").write_text(json.dumps(asdict(replace(Owner.here(), **other))))


def begun(folder: Path, state: str = "running", **more: Any) -> Path:
    """A run at step 20 of 40, without a result."""
    made = make_run(folder, exact=None, status={"state": state, "step": 20, "max_steps": 40, **more})
    (made / "checkpoints").mkdir()
    return made


def test_done_is_the_result_whatever_else_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", status={"state": "running"})
    assert survey([run])[run]["outcome"] == "clever_hans" and say(run)[0] == "done"
    cut_short(run / "result.json")
    assert say(run)[0] == "cut"


def test_running_while_its_lock_is_held(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    hold(run)
    assert say(run) == ("running", "at step 20 of 40, last heartbeat 0 s ago")
    hold(run, started=1)  # died, and its number was given to this process
    state, reason = say(run)
    assert state == "cut" and "at step 20 of 40; the same command resumes from its last checkpoint" in reason


@pytest.mark.parametrize("error, state", [(errno.EIO, "running"), (errno.ESTALE, "running"), (errno.EACCES, "cut")])
def test_a_disk_that_is_away_is_no_dead_owner(
    error: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run")
    hold(run)

    def fail(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("nextfail.runs.lock.read_text", fail)
    assert say(run)[0] == state


def test_a_lock_that_is_a_folder_holds_nobody_up(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run / ".lock").mkdir()
    assert say(run)[0] == "cut"


def test_a_cut_run_says_from_which_step_it_goes_on(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", state="cut", checkpoint=1500)
    assert say(run)[1] == "at step 20 of 40; the same command resumes from step 1,500"
    (run / "checkpoints").rmdir()
    assert say(run)[1] == "at step 20 of 40; the same command resumes from the start"


def test_failed_keeps_its_error(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "failed", error="no space")
    assert say(run) == ("failed", "no space")
    (run / "error.txt").touch()
    assert say(run) == ("failed", "no space (see error.txt there)")


@pytest.mark.parametrize(
    ("said", "job", "state", "words"),
    [
        ("running", JobState("PENDING", "BeginTime"), "pending", "job 7_1: PENDING (BeginTime)"),
        ("cut", JobState("PENDING"), "pending", "job 7_1: PENDING"),
        ("running", JobState("CANCELLED"), "cut", "job 7_1 ended: CANCELLED, at step 20 of 40"),
        ("cut", JobState("TIMEOUT"), "cut", "job 7_1 ended: TIMEOUT"),
        ("running", JobState("OUT_OF_MEMORY"), "failed", "job 7_1 ended: OUT_OF_MEMORY"),
        ("running", JobState("FAILED", "exit code 137:0"), "cut", "FAILED (exit code 137:0)"),
        ("running", JobState("NODE_FAIL"), "cut", "job 7_1 ended: NODE_FAIL"),
        ("running", JobState("GONE", "neither here nor there"), "cut", "GONE (neither here nor there)"),
    ],
)
def test_slurm_knows_of_a_run_that_says_nothing(
    tmp_path: Path, said: str, job: JobState, state: str, words: str
) -> None:
    run = begun(tmp_path / "run", said, job="7_1")
    got, reason = say(run, {"7_1": job})
    assert got == state and words in reason


@pytest.mark.parametrize(
    ("job", "state"),
    [(JobState("PENDING", "Priority"), "pending"), (JobState("RUNNING"), "pending"), (JobState("FAILED"), "failed"),
     (JobState("CANCELLED"), "cut"), (None, "pending")],
)  # fmt: skip
def test_run_that_was_sent_off_and_has_not_begun(tmp_path: Path, job: JobState | None, state: str) -> None:
    run = RunFolder(tmp_path)
    write(run.job_json, {"job": "7_1", "time": NOW})
    assert say(tmp_path, {"7_1": job} if job else None)[0] == state


def test_requeued_job_that_has_not_begun_again(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "cut", job="7")
    assert say(run, {"7": JobState("RUNNING")})[0] == "cut"  # a session of somebody's, in which it was begun by hand
    write(run / "job.json", {"job": "7", "time": NOW - 100})
    assert say(run, {"7": JobState("RUNNING")}) == ("pending", "job 7: RUNNING")


def test_job_that_was_sent_waits_while_slurm_does_not_answer(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "cut", job="7")  # saved at its time limit, and in the queue again or not
    write(run / "job.json", {"job": "7", "time": NOW - 100})
    assert say(run, None) == ("pending", "job 7: SLURM does not answer")


def test_what_a_run_says_counts_from_its_start_on(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "failed", error="old", job="6")
    write(run / "job.json", {"job": "7", "time": time.time() + 1})
    assert say(run, {"7": JobState("PENDING")})[0] == "pending"
    note(RunFolder(run), "failed", error="new", job="7")
    assert say(run, {"7": JobState("FAILED")}) == ("failed", "new")


@pytest.mark.parametrize("name", ["status.json", "job.json"])
def test_broken_files_are_no_more_than_missing(tmp_path: Path, name: str) -> None:
    run = begun(tmp_path / "run")
    (run / name).write_text('{"job": "7"')
    assert say(run)[0] == "cut"
    (run / name).write_text("[]")
    assert say(run)[0] == "cut"


def test_note_keeps_what_is_not_said_anew(tmp_path: Path) -> None:
    run = RunFolder(begun(tmp_path / "run"))
    note(run, "cut", error=None)
    status = lenient(run.status_json, Any)
    assert status and (status["state"], status["step"], status["error"]) == ("cut", 20, None)


def test_missing_runs_are_told_by_what_was_asked_for(tmp_path: Path) -> None:
    sweep = tmp_path / "runs" / "x"
    make_run(sweep / "seed=0")
    remember(sweep, {"seed=0": ["seed=0"], "seed=1": ["seed=1"]})
    remember(sweep, {"seed=0": ["seed=0"], "seed=1": ["seed=1"]})
    remember(sweep, {f"seed={n}": [f"seed={n}"] for n in range(4)})
    (sweep / ".sweeps" / "broken.json").write_text("{")
    assert len(list((sweep / ".sweeps").iterdir())) == 3
    assert remembered(tmp_path)["runs/x/seed=3"] == ["seed=3"]
    for folder in (tmp_path, sweep):
        assert counts(statuses([folder])) == "4 runs: 1 done, 3 missing"


def test_one_run_two_ways_is_one(tmp_path: Path) -> None:
    make_run(tmp_path / "x" / "seed=0")
    assert len(statuses([tmp_path, tmp_path / "x", tmp_path / "x" / "seed=0"])) == 1
    with pytest.raises(UserError, match="there is no folder"):
        statuses([tmp_path / "nowhere"])


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others in which commands are looked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_slurm_is_asked_once_for_all_jobs_and_its_accounts_for_the_rest(commands: Path) -> None:
    script(
        commands,
        "squeue",
        f'echo "$@" >> {commands}/asked; printf "7_0|RUNNING|None\\n7_1|PENDING|Priority\\n7_4|FAILED|X\\n"',
    )
    script(
        commands, "sacct", 'printf "7_2|CANCELLED by 0|0:0\\n7_3|RUNNING|0:0\\n7_1|RUNNING|0:0\\n7_4|RUNNING|137:0\\n"'
    )
    answer = slurm.ask(["7_0", "7_1", "7_2", "7_3", "7_4", "8", "local-5"])
    assert answer == {
        "7_0": JobState("RUNNING"),
        "7_1": JobState("PENDING", "Priority"),
        "7_2": JobState("CANCELLED"),
        "7_3": JobState("GONE", "RUNNING in the accounting database, and not in the queue"),
        "7_4": JobState("FAILED", "exit code 137:0"),
        "8": JobState("GONE", "neither in the queue nor in the accounting database"),
    }
    assert (commands / "asked").read_text().count("--jobs=7,8") == 1


def test_slurm_that_does_not_answer(commands: Path) -> None:
    script(commands, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert slurm.ask(["7"]) is None
    assert slurm.ask([]) == {}


def test_machine_without_slurm_waits_for_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    write(tmp_path / "job.json", {"job": "7", "time": NOW})
    assert slurm.ask(["7"]) == {} and survey([tmp_path])[tmp_path]["state"] == "missing"


def test_job_that_slurm_forgot_is_gone(commands: Path) -> None:
    script(commands, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    script(commands, "sacct", "exit 1")
    assert slurm.ask(["7"]) == {"7": JobState("GONE", "neither in the queue nor in the accounting database")}


def test_settings_of_the_cluster(commands: Path) -> None:
    script(commands, "scontrol", "printf 'MaxArraySize            = 1001\\nMaxJobCount = 10\\n'")
    assert slurm.limit("MaxArraySize") == 1001 and slurm.limit("MaxStepCount") is None
