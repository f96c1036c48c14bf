"""What nextfail-clean and nextfail-status --forget remove, and what they leave."""

from pathlib import Path

import pytest
from synthetic import make_run

from nextfail.cli import status as status_command
from nextfail.cli.clean import clean
from nextfail.errors import UserError
from nextfail.runs.lock import Lock
from nextfail.sweeps.records import forget, never_begun, remember, remembered


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A run that is done, one that failed, one that was cut, and one that was never started."""
    folder = tmp_path / "sweep"
    done = make_run(folder / "done")
    failed = make_run(folder / "failed", seed=1, exact=None, status={"state": "failed", "error": "disk full"})
    cut = make_run(folder / "cut", seed=2, exact=None, status={"state": "cut"})
    for run in (done, failed, cut):
        (run / "checkpoints").mkdir()
        for name in ("last.ckpt", "previous.ckpt", "best.ckpt"):
            (run / "checkpoints" / name).write_bytes(bytes(1_000_000))
    remember(folder, {name: [] for name in ("done", "failed", "cut", "never")})
    remember(folder, {"never": []})
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_without_yes_nothing_is_removed(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(sweep)
    clean([sweep], keep_last=True, really=False)
    said = capsys.readouterr().out
    assert files(sweep) == before
    assert "failed: disk full" in said and said.count("old checkpoint") == 2 and "never started" in said
    assert "4 to remove, 5.0 MB: --yes removes them" in said


def test_failed_runs_and_records_are_removed(sweep: Path) -> None:
    before = files(sweep)
    clean([sweep], keep_last=False, really=True)
    gone = {name for name in before if name not in files(sweep)}
    assert {name.partition("/")[0] for name in gone} == {"failed", ".sweeps"} and not (sweep / "failed").exists()
    assert remembered(sweep) == {name: [] for name in ("done", "failed", "cut")}, "it can be trained again"


def test_keep_last_leaves_what_a_cut_run_needs(sweep: Path) -> None:
    clean([sweep], keep_last=True, really=True)
    assert [path.name for path in (sweep / "done/checkpoints").iterdir()] == ["last.ckpt"]
    assert len([*(sweep / "cut/checkpoints").iterdir()]) == 3


def test_what_is_in_use_or_not_ours_is_kept(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "failed/notes.txt").write_text("mine")
    lock = Lock(sweep / "done/.lock")
    lock.acquire()
    clean([sweep], keep_last=True, really=True)
    lock.release()
    assert files(sweep / "failed") == {"notes.txt": b"mine"}
    assert len([*(sweep / "done/checkpoints").iterdir()]) == 3
    said = capsys.readouterr().out
    assert "kept notes.txt, which nextfail did not write" in said and said.count("is in use: process") == 2


def test_nothing_to_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "runs/a")
    clean([tmp_path / "runs"], keep_last=True, really=True)
    assert capsys.readouterr().out == "nothing to remove\n"
    with pytest.raises(UserError, match="there is no folder"):
        clean([tmp_path / "nowhere"], keep_last=True, really=True)


def test_dropped_axes_are_forgotten(sweep: Path) -> None:
    assert never_begun(sweep) == [sweep / "never"]
    command = status_command.parser()
    status_command.show(command.parse_args([str(sweep.parent), "--forget"]))
    assert set(remembered(sweep)) == {"done", "failed", "cut"} and never_begun(sweep) == []
    forget(sweep, [])
    assert set(remembered(sweep)) == {"done", "failed", "cut"}
