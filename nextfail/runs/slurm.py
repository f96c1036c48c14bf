"""State of SLURM jobs, queried with SLURM's commands."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

LIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
        "RESIZING", "RESV_DEL_HOLD", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED"}  # fmt: skip
"""States of a job that has not ended."""

PATIENCE = 20.0  # timeout of a SLURM command in seconds


@dataclass(frozen=True)
class JobState:
    """State of one job, as SLURM reports it.

    Args:
        state: SLURM's state, such as PENDING or OUT_OF_MEMORY; GONE if SLURM does not know the job (any more).
        reason: why it is pending or how it ended; may be empty.
    """

    state: str
    reason: str = ""

    @property
    def live(self) -> bool:
        """Whether it is running, pending, or about to restart."""
        return self.state in LIVE

    @property
    def waits(self) -> bool:
        """Whether it is waiting in the queue."""
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT")

    @property
    def fatal(self) -> bool:
        """Whether it ended in a way that resubmitting it would not fix."""
        return self.state in ("OUT_OF_MEMORY", "FAILED", "BOOT_FAIL", "DEADLINE")

    def __str__(self) -> str:
        return f"{self.state} ({self.reason})" if self.reason else self.state


def this_job() -> str | None:
    """The id of this process's job, stable across requeues: SLURM's, or that of submitit's local executor."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    local = os.environ.get("SUBMITIT_LOCAL_JOB_ID")
    return os.environ.get("SLURM_JOB_ID") or (f"local-{local}" if local else None)


def is_slurms(job: str | None) -> bool:
    """Whether a job id is SLURM's, rather than None or a local one."""
    return job is not None and not job.startswith("local-")


def restarts() -> int:
    """How often this process's job was requeued; 0 if SLURM gives no number."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isascii() and count.isdigit() else 0


@cache
def cluster() -> str | None:
    """Name of the cluster that runs this process's job, or that this machine can query."""
    return os.environ.get("SLURM_CLUSTER_NAME") or _setting("ClusterName")


def ask(jobs: Iterable[str]) -> dict[str, JobState] | None:
    """States of jobs, by id: one query to the controller (squeue), and one to accounting (sacct) for the rest.

    Returns:
        None if SLURM does not answer now; an empty dictionary if SLURM is not installed. Jobs that neither knows are
        GONE.
    """
    asked = sorted({job for job in jobs if is_slurms(job)})
    if not asked or shutil.which("squeue") is None:
        return {}
    arrays = ",".join(sorted({job.partition("_")[0] for job in asked}))
    listed = _lines("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={arrays}")
    if listed is None:
        return None
    found = {job: JobState(state, "" if reason == "None" else reason) for job, state, reason in listed}
    if any(job not in found or not found[job].live for job in asked):
        columns = "--format=JobID,State,ExitCode"
        ended = _lines("sacct", "--noheader", "--allocations", "--parsable2", columns, f"--jobs={arrays}")
        for job, state, code in ended or []:
            known = found.get(job)
            word = known.state if known else state.partition(" ")[0]  # "CANCELLED by 0"
            if known is None and word in LIVE:
                found[job] = JobState("GONE", f"{word} in the accounting database, and not in the queue")
            elif (known is None or not known.live) and code != "0:0":
                found[job] = JobState(word, f"exit code {code}")  # exit status and signal, such as "0:9"
            elif known is None:
                found[job] = JobState(word)
    return {
        job: found.get(job, JobState("GONE", "neither in the queue nor in the accounting database")) for job in asked
    }


def limit(setting: str) -> int | None:
    """A number from SLURM's configuration, such as MaxArraySize; None if it cannot be queried."""
    value = _setting(setting)
    return int(value) if value and value.isdecimal() else None


def _setting(setting: str) -> str | None:
    for line in _lines("scontrol", "show", "config") or []:
        name, _, value = line[0].partition("=")
        if name.strip() == setting:
            return value.strip()
    return None


def _lines(*command: str) -> list[list[str]] | None:
    """The cells of each line that a SLURM command prints; None if it fails, times out or is not installed."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "Invalid job id" not in done.stderr:  # this is an answer: the job is no longer known
        return None
    return [line.split("|") for line in done.stdout.splitlines() if line]
