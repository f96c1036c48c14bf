"""The current state of runs: status.json, checked against locks, jobs and results, in readable form."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from nextfail.runs import lock, records, slurm
from nextfail.runs.folder import RunFolder
from nextfail.runs.records import Status

STATES = ("done", "running", "pending", "cut", "failed", "missing")
COLUMNS = ("step", "loss", "exact match", "hard token", "problems/s", "left")

ON = "the same command resumes from"
LONGEST_ERROR = 500  # characters
VAGUE = "status.json is missing or damaged"


def note(run: RunFolder, state: str, **more: Any) -> Status:
    """Update state, time and the given keys in status.json, keeping the others; returns the new content."""
    kept = records.lenient(run.status_json, Status) or {}
    if more.get("error"):
        more["error"] = " ".join(str(more["error"]).split())[:LONGEST_ERROR]
    status = cast(Status, {**kept, "state": state, "time": time.time(), **more})
    run.files.write_json(run.status_json.name, status)
    return status


def status_of(run: RunFolder) -> Status:
    """The content of status.json, or pending if job.json is newer; `sent` tells whether job.json names its job."""
    status = records.lenient(run.status_json, Status) or {}
    sent = records.lenient(run.job_json, Status)
    if sent and sent.get("job") != status.get("job") and sent.get("time", 0) > status.get("time", 0):
        status |= {"state": "pending", "job": sent.get("job"), "time": sent.get("time", 0), "error": None}
    return status | {"sent": sent is not None and sent.get("job") == status.get("job")}


def survey(folders: Iterable[Path]) -> dict[Path, Status]:
    """The status of each run: its status.json with the current `state`, and a `reason` unless it is done.

    Writes nothing. SLURM is queried once for all jobs.
    """
    runs = {folder: (RunFolder(folder), status_of(RunFolder(folder))) for folder in folders}
    jobs = {str(status["job"]) for run, status in runs.values() if status.get("job") and not run.result_json.exists()}
    answer = slurm.ask(jobs)
    return {folder: look(run, status, answer) for folder, (run, status) in runs.items()}


def look(run: RunFolder, status: Status, jobs: Mapping[str, slurm.JobState] | None) -> Status:
    """The status of one run.

    Args:
        status: its status, from `status_of`.
        jobs: job states from SLURM; None if it does not answer.
    """
    if result := run.result():
        return status | {"state": "done", "outcome": result["outcome"], "exact_match": result["exact_match"]["value"]}
    said, name = status.get("state"), status.get("job")
    job = (jobs or {}).get(str(name)) if name else None
    if said == "failed":
        return status | {"reason": f"{status.get('error')}{log_of(run)}"}
    if _held(run, jobs):
        return status | {"state": "running", "reason": f"{progress(status)}, last heartbeat {_ago(status)} ago"}
    if job and (job.waits or (job.live and status.get("sent"))):
        return status | {"state": "pending", "reason": f"job {name}: {job}"}
    if jobs is None and status.get("sent"):  # it may be in the queue, whatever its last state
        return status | {"state": "pending", "reason": f"job {name}: SLURM does not answer"}
    if job is None and not run.checkpoints.exists() and said in (None, "pending"):
        if run.error_txt.exists():
            return status | {"state": "failed", "reason": "see error.txt there"}
        if not run.run_json.exists():
            lost = f"submitted as job {name}, which SLURM does not know" if name else ""
            return status | {"state": "missing", "reason": lost}
        return status | {"state": "cut", "reason": f"begun, and {VAGUE}"}
    end = status.get("error") or (f"job {name} ended: {job}" if job and not job.live else "")
    if said == "done":
        end = "its result is missing or damaged"
    elif not end and said != "cut":
        end = f"no heartbeat for {_ago(status)}" if "time" in status else VAGUE
    never_begun = said in ("pending", None)
    fatal = job is not None and said != "cut" and (job.state == "OUT_OF_MEMORY" or (job.fatal and never_begun))
    where = f"{end}, {progress(status)}" if end else progress(status)
    return status | {"state": "failed" if fatal else "cut", "reason": f"{where}; {_onward(run, status)}"}


def progress(status: Status) -> str:
    """The progress of a run as text."""
    if "step" in status and "max_steps" in status:
        return f"at step {status['step']:,} of {status['max_steps']:,}"
    return "before its first step"


def _onward(run: RunFolder, status: Status) -> str:
    """The step from which the same command resumes."""
    if not run.checkpoints.exists():
        return f"{ON} the start"
    step = status.get("checkpoint")
    return f"{ON} step {step:,}" if step else f"{ON} its last checkpoint"


def log_of(run: RunFolder) -> str:
    """A reference to error.txt; empty if it does not exist."""
    return f" (see {run.error_txt.name} there)" if run.error_txt.exists() else ""


def row(status: Status) -> list[str]:
    """Step, loss, exact match, hard token, problems/s and time left (min:s) as text; empty if unknown."""
    rate, left = status.get("samples_per_second"), status.get("seconds_left")
    numbers = [status.get(key) for key in ("loss", "exact_match", "hard_token_accuracy")]
    return [
        f"{status.get('step', 0):,}/{status.get('max_steps', 0):,}",
        *("" if number is None else f"{number:.3f}" for number in numbers),
        f"{rate:,.0f}" if rate else "",
        f"{int(left) // 60}:{int(left) % 60:02d}" if left is not None else "",
    ]


def describe(status: Status) -> str:
    """The same as one line, without unknown values."""
    named = zip(COLUMNS, row(status), strict=True)
    return ", ".join(f"{name} {value}" for name, value in named if value)


def _held(run: RunFolder, jobs: Mapping[str, slurm.JobState] | None) -> bool:
    """Whether a process is training the run, according to its lock."""
    try:
        found = lock.owner_of(run.lock)
    except OSError as error:
        return error.errno in lock.PASSING  # transient: do not restart; the run reports other errors itself
    if found is None:
        return False
    owner, last = found
    silence = time.time() - last
    return lock.recent(silence) if owner is None else owner.alive(silence, lambda asked: jobs)


def _ago(status: Status) -> str:
    seconds = max(0, round(time.time() - float(status.get("time", 0))))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
