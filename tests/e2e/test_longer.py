"""A finished run that is asked for more steps is continued in a folder of its own, where its schedule allows that."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands import call, train

MORE = ("trainer.max_steps=30", "trainer.val_every=10")


def folder_of(where: Path, steps: int) -> Path:
    """Of the run with so many steps."""
    (found,) = where.glob(f"runs/*/*max_steps={steps}*")
    return found


def result(folder: Path) -> dict[str, object]:
    return {key: value for key, value in json.loads((folder / "result.json").read_text()).items()
            if key not in ("seconds", "samples_per_second")}  # fmt: skip


def test_a_longer_run_ends_as_if_it_had_never_been_shorter(tmp_path: Path) -> None:
    for name in ("once", "twice"):
        (tmp_path / name).mkdir()
    fewer = ("trainer.max_steps=20", "trainer.val_every=10")
    train(*fewer, cwd=tmp_path / "twice")
    told = train(*MORE, cwd=tmp_path / "twice").stderr
    assert "the same run exists with trainer.max_steps=20; it is continued in a folder of its own" in told
    assert "training from step 20" in (folder_of(tmp_path / "twice", 30) / "train.log").read_text()
    train(*MORE, cwd=tmp_path / "once")
    once, twice = (folder_of(tmp_path / name, 30) for name in ("once", "twice"))
    assert (once / "metrics.csv").read_bytes() == (twice / "metrics.csv").read_bytes()
    assert result(once) == result(twice) and result(twice)["steps"] == 30
    weights = [torch.load(each / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for each in (once, twice)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    short = json.loads((folder_of(tmp_path / "twice", 20) / "run.json").read_text())
    continued = json.loads((twice / "run.json").read_text())
    assert continued["continues"] == {"hash": short["hash"], "max_steps": 20}
    call("eval", twice, "--checkpoint", "best", cwd=tmp_path)


@pytest.mark.slow
def test_a_run_that_stopped_early_has_nothing_to_add(tmp_path: Path) -> None:
    train("trainer.max_steps=20", "trainer.val_every=10", "trainer.stop_at=0.0001", "objective=reverse", cwd=tmp_path)
    short = folder_of(tmp_path, 20)
    train(*MORE, "trainer.stop_at=0.0001", "objective=reverse", cwd=tmp_path)
    (longer,) = {*(tmp_path / "runs/debug").iterdir()} - {short}
    steps = result(short)["steps"]
    assert result(longer)["steps"] == (steps if steps != 20 else 30)


@pytest.mark.slow
def test_a_sweep_continues_what_it_can_and_says_so_once(tmp_path: Path) -> None:
    axes = ("seed=0,1", "scheduler=constant,cosine")
    fewer = ("trainer.max_steps=10", "trainer.val_every=10")
    train("-m", *fewer, *axes, cwd=tmp_path)
    told = train("-m", "trainer.max_steps=20", "trainer.val_every=10", *axes, cwd=tmp_path).stderr
    assert told.count("it is continued in a folder of its own (and 1 more)") == 1
    assert told.count("cannot be continued, since its learning rate depends on trainer.max_steps") == 1
    begun = {path.parent.name: "training from step 10" in path.read_text()
             for path in tmp_path.glob("runs/*/*max_steps=20*/train.log")}  # fmt: skip
    assert len(begun) == 4 and all(from_10 == ("constant" in name) for name, from_10 in begun.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("scheduler=wsd",), "its learning rate depends on trainer.max_steps (scheduler=wsd; constant does not)"),
        (("trainer.val_every=5",), "it was validated every 10 steps, and this one every 5"),
    ],
)
def test_what_cannot_be_continued_says_why(more: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    schedule = [each for each in more if each.startswith("scheduler")]
    train("trainer.max_steps=10", "trainer.val_every=10", *schedule, cwd=tmp_path)
    told = train("trainer.max_steps=20", "trainer.val_every=10", *more, cwd=tmp_path).stderr
    assert f"cannot be continued, since {reason}" in told and "step 0" in told
    again = train("trainer.max_steps=20", "trainer.val_every=10", *more, cwd=tmp_path).stderr
    assert "the same run exists" not in again


@pytest.mark.slow
def test_checkpoints_that_are_gone_and_a_restart(tmp_path: Path) -> None:
    fewer = ("trainer.max_steps=20", "trainer.val_every=10")
    train(*fewer, cwd=tmp_path)
    train(*MORE, "on_existing=restart", cwd=tmp_path)
    longer = folder_of(tmp_path, 30)
    assert "training from step 0" in (longer / "train.log").read_text()
    shutil.rmtree(longer)
    (folder_of(tmp_path, 20) / "checkpoints/best.ckpt").unlink()
    assert "since its checkpoints are gone" in train(*MORE, cwd=tmp_path).stderr
