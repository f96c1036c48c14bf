"""A lock is held by one owner, taken from the dead, and left to the living."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nextfail import process
from nextfail.errors import RunCut, UserError
from nextfail.runs import lock, slurm
from nextfail.runs.lock import STALE, InUse, Lock, Owner, owner_of


def write(path: Path, owner: Owner, silence: float = 0.0) -> None:
    """A lock whose owner was last heard of some seconds ago."""
    path.write_text(json.dumps(asdict(owner)))
    now = path.stat().st_mtime
    os.utime(path, (now - silence, now - silence))


def dead_process() -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Owner:
    """An owner on another machine of a cluster that cannot be asked for its name."""
    monkeypatch.setattr(slurm, "cluster", lambda: None)
    return replace(Owner.here(), host="far", machine="far away", job=None)


def test_one_at_a_time_and_free_after_release(path: Path) -> None:
    first = Lock(path)
    first.acquire()
    with pytest.raises(InUse, match=f"in use: process {os.getpid()} on "):
        Lock(path).acquire()
    first.check()
    first.release()
    Lock(path).acquire()
    assert [item.name for item in path.parent.iterdir()] == [".lock"]  # nothing else is left lying about


def test_what_a_lock_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    Lock(path).acquire()
    says = json.loads(path.read_text())
    assert (says["pid"], says["started"], says["job"]) == (os.getpid(), process.started(os.getpid()), "12_3")


def test_dead_process_of_this_machine_is_followed_at_once(path: Path) -> None:
    write(path, replace(Owner.here(), pid=dead_process().pid, started=None))
    Lock(path).acquire()


def test_number_of_a_dead_process_that_was_given_to_another(path: Path) -> None:
    started = process.started(os.getpid())
    assert started is not None
    write(path, replace(Owner.here(), token="other", started=started - 3600))
    Lock(path).acquire()


def test_process_that_ended_and_was_not_waited_for_is_dead(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    since = process.started(child.pid)
    assert process.alive(child.pid, since)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
    assert not process.alive(child.pid, since)
    child.wait()


@pytest.mark.parametrize(("silence", "taken"), [(0.0, False), (STALE - 5, False), (STALE + 5, True)])
def test_owner_on_another_machine_is_followed_only_after_its_heartbeat(
    path: Path, far: Owner, silence: float, taken: bool
) -> None:
    write(path, far, silence)
    if taken:
        Lock(path).acquire()
        assert owner_of(path)[0] != far  # type: ignore[index]
    else:
        with pytest.raises(InUse, match="on far"):
            Lock(path).acquire()
        assert owner_of(path)[0] == far  # type: ignore[index]


@pytest.mark.parametrize(
    ("state", "silence", "taken"),
    [
        ("RUNNING", 5.0, False),
        ("RUNNING", STALE + 5, True),
        ("SUSPENDED", STALE + 5, False),
        ("CANCELLED", 0.0, True),
        ("PENDING", 0.0, True),
        ("GONE", 0.0, True),
    ],
)
def test_owner_in_a_job_is_asked_after(
    path: Path, far: Owner, monkeypatch: pytest.MonkeyPatch, state: str, silence: float, taken: bool
) -> None:
    monkeypatch.setattr(slurm, "ask", lambda jobs: {job: slurm.JobState(state) for job in jobs})
    owner = replace(far, job="7")
    write(path, owner, silence)
    alive = owner.alive(silence, slurm.ask)
    assert alive is not taken


def test_earlier_life_of_the_same_job_is_dead(far: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(slurm, "ask", lambda jobs: None)
    assert replace(far, job="7").alive(0.0)  # on another node of a job with several
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert not replace(far, job="7").alive(0.0)
    assert replace(far, job="7", cluster="another").alive(0.0)


def test_silent_slurm_leaves_the_heartbeat_to_decide(far: Owner) -> None:
    owner = replace(far, job="7")
    assert owner.alive(0.0, lambda jobs: None) and not owner.alive(STALE + 1, lambda jobs: None)


@pytest.mark.parametrize("content", ["", "{", '{"token": 1}', "[]"])
def test_lock_that_makes_no_sense_counts_until_it_is_stale(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(InUse, match="somebody"):
        Lock(path).acquire()
    os.utime(path, (0, 0))
    Lock(path).acquire()


def test_of_many_that_find_a_dead_owner_one_alone_takes_over(path: Path) -> None:
    for _ in range(30):
        write(path, replace(Owner.here(), token="dead", pid=dead_process().pid))
        locks = [Lock(path) for _ in range(8)]
        start = threading.Barrier(len(locks))
        won: list[Lock] = []

        def take(mine: Lock, start: threading.Barrier = start, won: list[Lock] = won) -> None:
            start.wait()
            try:
                mine.acquire()
                won.append(mine)
            except InUse:
                pass

        threads = [threading.Thread(target=take, args=(mine,)) for mine in locks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holders = [mine for mine in won if not _lost(mine)]
        assert len(holders) == 1
        holders[0].release()
        for mine in won:
            mine.release()
        assert not list(path.parent.iterdir())


def _lost(mine: Lock) -> bool:
    try:
        mine.check()
    except RunCut:
        return True
    return False


def test_lock_that_was_taken_over_is_noticed_and_not_removed(path: Path, far: Owner) -> None:
    mine = Lock(path)
    mine.acquire()
    write(path, far)
    with pytest.raises(RunCut, match="another process took this run over"):
        mine.check()
    mine.release()
    assert owner_of(path)[0] == far  # type: ignore[index]


def test_heartbeat_keeps_a_lock_young(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.02)
    mine = Lock(path)
    mine.acquire()
    os.utime(path, (0, 0))
    _eventually(lambda: path.stat().st_mtime > 0)
    path.unlink()
    _eventually(lambda: mine.lost)


def test_file_system_without_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    mine = Lock(path)
    mine.acquire()
    mine.check()
    with pytest.raises(InUse):
        Lock(path).acquire()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        Lock(tmp_path / "file" / ".lock").acquire()


def test_a_sign_of_life_from_the_future_is_none(path: Path, far: Owner) -> None:
    for ahead in (30 * 86400, 86400 * 365 * 15):
        write(path, far, silence=-ahead)
        mine = Lock(path)
        mine.acquire()
        mine.release()
    write(path, far, silence=-5.0)  # clocks differ a little
    with pytest.raises(InUse):
        Lock(path).acquire()


@pytest.mark.parametrize("kind", ["folder", "pipe", "zero", "nowhere"])
def test_what_is_no_lock_is_refused_and_not_waited_for(kind: str, path: Path) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "zero" else path.parent / "nothing")
    with pytest.raises(UserError, match=r"cannot lock the run: .*\.lock"):
        Lock(path).acquire()
    assert [each.name for each in path.parent.iterdir()] == [".lock"]


@pytest.mark.parametrize("change", [{"pid": "../x"}, {"pid": -1}, {"pid": 2**40}, {"machine": None}, {"restarts": "1"}])
def test_an_owner_that_makes_no_sense_is_nobody(change: dict[str, object], path: Path) -> None:
    path.write_text(json.dumps(asdict(Owner.here()) | change))
    found = owner_of(path)
    assert found is not None and found[0] is None


def _eventually(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it never became true")
