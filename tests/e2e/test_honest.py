"""A command that ends with success has done what was asked of it, and nothing else."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from commands import SHORT, TINY, call, command, refused, result, short
from inside import train_here

RANKS = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1", "SLURM_PROCID": "1", "SLURM_NTASKS": "4",
         "SLURM_LOCALID": "1", "SLURM_RESTART_COUNT": ""}  # fmt: skip


def test_the_search_of_the_readme_searches(tmp_path: Path) -> None:
    tiny = ("trainer.max_steps=4", "trainer.val_every=2", "data.train=64", "data.validation=20", "data.test=20")
    done = call("train", "experiment=search", *tiny, *SHORT[1:], "hydra.sweeper.n_trials=2", cwd=tmp_path)
    assert done.stdout.startswith("best of 2 trials: exact match") and "2 runs: 2 done now" in done.stderr
    best = json.loads((tmp_path / "runs/search/best.json").read_text())
    assert {text.partition("=")[0] for text in best["overrides"]} >= {"optimizer.lr", "optimizer.weight_decay"}


@pytest.mark.slow
def test_ranks_in_the_environment_change_nothing(tmp_path: Path) -> None:
    short("hydra.run.dir=plain", cwd=tmp_path)
    short("hydra.run.dir=ranked", "logger=tensorboard", cwd=tmp_path, env=RANKS)
    plain, ranked = (tmp_path / name for name in ("plain", "ranked"))
    assert (plain / "metrics.csv").read_text() == (ranked / "metrics.csv").read_text()
    assert "validation" in (plain / "metrics.csv").read_text() and result(plain) == result(ranked)
    assert sum(path.stat().st_size for path in (ranked / "tensorboard").iterdir()) > 500
    assert call("eval", "ranked", "--json", cwd=tmp_path, env=RANKS).stdout == call(
        "eval", "plain", "--json", cwd=tmp_path
    ).stdout.replace("plain/", "ranked/")


def test_experiments_side_by_side_are_refused_with_the_commands_to_run(tmp_path: Path) -> None:
    told = refused("train", "-m", "experiment=demo,demo_teacherless", "seed=0", cwd=tmp_path)
    assert "nextfail-train -m experiment=demo seed=0\n  nextfail-train -m experiment=demo_teacherless seed=0" in told
    assert not list(tmp_path.rglob("run.json"))
    assert "takes effect only in a sweep: add -m" in refused("train", "hydra/launcher=slurm_test", cwd=tmp_path)


@pytest.mark.parametrize("override", ["+lr=0.1", "++trainr.max_steps=5"])
def test_unknown_keys_are_refused_in_sweeps_too(override: str, tmp_path: Path) -> None:
    assert "unknown key" in refused("train", *SHORT, override, cwd=tmp_path)
    told = call("train", "-m", *SHORT, f"{override},7", "seed=0,1", cwd=tmp_path, code=1).stderr
    assert "4 runs: 4 refused" in told and "unknown key" in told and "did you mean" in told


def test_an_unknown_key_in_an_experiment_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text("# @package _global_\noptimiser:\n  lr: 0.5\n")
    told = refused("train", "--config-dir", "conf", *SHORT, "experiment=mine", cwd=tmp_path)
    assert "unknown key optimiser.lr: did you mean optimizer.lr?" in told


@pytest.mark.parametrize("content", ["name: x\n", "defaults:\n  - override /data: online\n"])
def test_an_experiment_file_without_its_first_line_says_so(content: str, tmp_path: Path) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(content)
    told = refused("train", "--config-dir", "conf", "experiment=mine", cwd=tmp_path)
    assert "line `# @package _global_`" in told


def test_several_options_of_one_section_are_refused_before_training(tmp_path: Path) -> None:
    told = refused("train", *SHORT, "objective=[reverse,teacherless]", cwd=tmp_path)
    assert "choose one, or run each with nextfail-train -m objective=reverse,teacherless" in told
    assert not list(tmp_path.rglob("run.json"))


BROKEN = """
from nextfail.objectives import TeacherForcing


class Broken(TeacherForcing):
    reads_prompt_once = False

    def {}(self, *arguments, **named):
        raise KeyError("at the end")
"""


@pytest.mark.parametrize("method", ["predict", "generate", "forced"])
def test_what_the_result_needs_fails_before_the_first_step(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"broken_{method}.py").write_text(BROKEN.format(method))
    with pytest.raises(KeyError, match="at the end"):
        train_here(tmp_path / "run", *SHORT, f"objective._target_=broken_{method}.Broken")
    assert "train" not in (tmp_path / "run/metrics.csv").read_text() and not (tmp_path / "run/checkpoints").exists()


@pytest.mark.slow
def test_a_run_that_a_recipe_was_not_made_for_is_told_once(tmp_path: Path) -> None:
    asked = ("recipe=laptop_hard_token", "task=g2_4", "trainer.max_steps=1", "data.train=64")
    message = "recipe=laptop_hard_token was made for task degree=2 path_length=5 or degree=5 path_length=5, model"
    told = call("train", "-m", "debug=default", *asked, "seed=0,1", "hydra.launcher.n_jobs=1", cwd=tmp_path).stderr
    assert told.count(message) == 1 and "this run has task degree=2 path_length=4, model transformer" in told
    single = call("train", "debug=default", *asked, "seed=0", cwd=tmp_path)
    assert single.stderr.count(message) == 1


def test_debug_wins_over_every_experiment(tmp_path: Path) -> None:
    shown = call("train", "--cfg", "job", "experiment=leaderboard/token_order", "debug=default", cwd=tmp_path).stdout
    for line in ("name: debug", "  accelerator: cpu", "  max_steps: 6", "  val_every: 3", "  validation: 100"):
        assert f"\n{line}\n" in f"\n{shown}"
    shown = call("train", "--cfg", "job", "debug=default", "trainer=gpu", "trainer.max_steps=7", cwd=tmp_path).stdout
    assert "  accelerator: gpu\n" in shown and "  max_steps: 7\n" in shown  # what is typed wins over debug


def test_an_experiment_may_choose_launcher_and_sweeper(tmp_path: Path) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/launcher: slurm_test\nhydra:\n  mode: MULTIRUN\n"
    )
    shown = call("train", "--config-dir", "conf", "experiment=mine", "--cfg", "hydra", cwd=tmp_path).stdout
    assert "SlurmTestLauncher" in shown


def test_commands_say_what_they_are(tmp_path: Path) -> None:
    for name in ("train", "eval", "data", "report", "status"):
        assert call(name, "--version", cwd=tmp_path).stdout == "nextfail 0.1.0\n"
        shown = call(name, "--help", cwd=tmp_path).stdout
        assert f"nextfail-{name} " in shown and "powered by Hydra" not in shown
    shown = call("train", "--help", cwd=tmp_path).stdout
    assert shown.count("\n  nextfail-train ") >= 3 and "Trains a model on a task" in shown


@pytest.mark.slow
def test_flags_may_stand_anywhere(tmp_path: Path) -> None:
    assert "2 runs: 2 done now" in call("train", *SHORT, "seed=0,1", "-m", cwd=tmp_path).stderr
    told = refused("train", "-m", "--cfg", "job", cwd=tmp_path)
    assert "cannot be used with -m" in told


def until_closed(name: str, *arguments: object, cwd: Path, lines: int = 1) -> subprocess.CompletedProcess[str]:
    """A command whose standard output is read for some lines and then closed."""
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process: subprocess.Popen[str] = subprocess.Popen(command(name, *arguments), cwd=cwd, **piped)  # type: ignore[call-overload]
    assert process.stdout is not None and process.stderr is not None
    read = "".join(process.stdout.readline() for _ in range(lines))
    process.stdout.close()
    errors = process.stderr.read()
    return subprocess.CompletedProcess(process.args, process.wait(timeout=120), read, errors)


@pytest.mark.slow
def test_a_reader_that_leaves_costs_nothing(run_folder: Path, tmp_path: Path) -> None:
    done = until_closed("report", run_folder, "--out", "report", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"report.md", "results.csv", "index.html"} <= {path.name for path in (tmp_path / "report").iterdir()}
    for name, arguments in {"status": [run_folder, "--json"], "eval": [run_folder, "--json"]}.items():
        done = until_closed(name, *arguments, cwd=tmp_path, lines=0)
        assert (done.returncode, done.stderr) == (0, "")
    slow = ("callbacks.progress.every=0", "trainer.max_steps=100", "hydra.run.dir=run")
    done = until_closed("train", *TINY, *slow, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "run/result.json").exists()


@pytest.mark.slow
def test_evaluating_on_a_file_needs_no_training_file(tmp_path: Path) -> None:
    for name, count in {"train.txt": 400, "test.txt": 50, "other.txt": 30}.items():
        call("data", "--task", "g2_5", "--n", count, "--seed", count, "--out", name, cwd=tmp_path)
    files = ("data=files", "data.train_file=train.txt", "data.test_file=test.txt", "data.validation=50")
    short(*files, "hydra.run.dir=run", cwd=tmp_path)
    (tmp_path / "train.txt").unlink()
    on_file = json.loads(call("eval", "run", "--file", "other.txt", "--json", cwd=tmp_path).stdout)
    assert on_file["exact_match"]["n"] == 30
    assert json.loads(call("eval", "run", "--json", cwd=tmp_path).stdout)["exact_match"]["n"] == 50
    assert json.loads(call("eval", "run", "--task", "g2_3", "--json", cwd=tmp_path).stdout)["exact_match"]["n"] == 2000
    (tmp_path / "test.txt").write_text("7,1|1,4|7,3|3,9/7,4=7,1,4\n")
    assert "is no longer the test_file of this run" in refused("eval", "run", cwd=tmp_path)


@pytest.mark.parametrize(
    "option", ["disabled", *(pytest.param(name, marks=pytest.mark.slow) for name in ("none", "stdout", "default"))]
)
def test_logs_may_be_hydras(option: str, tmp_path: Path) -> None:
    short(f"hydra/job_logging={option}", "hydra.run.dir=run", cwd=tmp_path)
    assert (tmp_path / "run/result.json").exists()


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    for folder in ("/proc/run", "/dev/null/run"):
        assert f"cannot use {folder}: " in refused("train", *SHORT, f"hydra.run.dir={folder}", cwd=tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here (needs root)")
    try:
        short(f"hydra.run.dir={disk}/run", cwd=tmp_path)
        (disk / "run/result.json").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for folder in ("run", "new"):
            told = refused("train", *SHORT, f"hydra.run.dir={disk}/{folder}", cwd=tmp_path)
            assert "Read-only file system" in told
        told = call("train", "-m", *SHORT, f"hydra.sweep.dir={disk}/s", "seed=0,1", cwd=tmp_path, code=2).stderr
        assert "Read-only file system" in told and "Traceback" not in told
    finally:
        subprocess.run(["umount", str(disk)], check=True)


GROUPS = ["task", "data", "model", "model/size", "objective", "optimizer", "scheduler", "trainer", "recipe",
          "experiment", "debug", "callbacks", "logger", "hydra/launcher", "hydra/sweeper"]  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_without_an_option_is_one_message(group: str, tmp_path: Path) -> None:
    for text in (f"{group}=null", f"~{group}"):
        if text in ("~callbacks", "~logger", "~debug"):
            continue  # a run is whole without
        told = refused("train", *SHORT[1:], text, cwd=tmp_path)
        assert text in told or group in told
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.slow
def test_groups_that_a_run_is_whole_without(tmp_path: Path) -> None:
    short("~callbacks", "~logger", "hydra.run.dir=run", cwd=tmp_path)
    assert (tmp_path / "run/result.json").exists()


def test_an_empty_group_in_a_sweep_is_one_message(tmp_path: Path) -> None:
    told = refused("train", "-m", *SHORT, "optimizer=adamw,null", cwd=tmp_path)
    assert "optimizer=null" in told


@pytest.mark.slow
def test_a_budget_below_the_interval_is_validated_at_its_end(tmp_path: Path) -> None:
    short("trainer.max_steps=2", "trainer.val_every=100", "hydra.run.dir=run", cwd=tmp_path)
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["2", "train"], ["2", "validation"], ["2", "test"]]
    assert (tmp_path / "run/checkpoints/last.ckpt").exists()
