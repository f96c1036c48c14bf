"""Benchmark nextfail on a GPU with one command, in at most eight minutes.

    python -m benchmarks.gpu                # into results/gpu/DATE-CARD-COMMIT.json and .md, or into $OUT if set
    python -m benchmarks.gpu --rehearse     # all parts with tiny sizes on a CPU, in two minutes

Every part is a separate process with a time limit: if one fails, hangs or is killed, the others still run. Each row is
saved as soon as it is measured.

A machine without access to a package registry needs torch, lightning, torchmetrics, numba, scipy, transformers, psutil
and pytest installed. Copy the other dependencies of `import nextfail` there as wheels for its Python: hydra-core,
omegaconf, antlr4-python3-runtime (distributed as source, so a wheel must be built), cloudpickle and msgspec; and
mamba-ssm, built against its torch, to have Mamba's kernels:

    pip wheel --no-deps -w wheels hydra-core==1.3.8 omegaconf==2.3.1 antlr4-python3-runtime==4.9.3 cloudpickle msgspec
    pip install --no-index --no-deps --target site wheels/*.whl              # there
    PYTHONPATH=site python -m benchmarks.gpu --commit HASH                   # in the checkout, which is not installed
"""

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from nextfail.files import Inside
from nextfail.runs.provenance import git_commit

ROOT = Path(__file__).parents[1]
PARTS = {"tests": 130, "graphs": 45, "reproducible": 60, "steps": 170, "crowd": 60, "learning": 150}
"""Parts in order, which are functions of gpu_runs and gpu_steps, and their time limits in seconds."""
SHARED = {"TRITON_CACHE_AUTOTUNING": "1"}
"""Processes share the results of Triton autotuning, which takes a minute."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU, into a temporary folder")
    parser.add_argument("--minutes", type=float, default=8, metavar="M", help="of all parts together (%(default)s)")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}; repeat")
    parser.add_argument("--commit", default=git_commit(), metavar="HASH", help="where the checkout has no history")
    parser.add_argument("--part", nargs=3, metavar=("PART", "FILE", "END"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        name, file, end = arguments.part
        return do(name, Path(file), float(end), arguments.rehearse)
    if not arguments.rehearse and not cards():
        sys.exit("benchmarks.gpu: torch finds no CUDA GPU here; --rehearse tries every part on the CPU")
    with tempfile.TemporaryDirectory() as scratch:
        report = Report(Path(scratch) if arguments.rehearse else folder(), arguments.commit, arguments.rehearse)
        patience = 4 if arguments.rehearse else 1  # a rehearsal tests that everything works, not how fast
        end = time.monotonic() + 60 * arguments.minutes * patience
        for name in arguments.only or PARTS:
            work(name, min(PARTS[name] * patience, end - time.monotonic()), report)
        print(report.markdown())
        if arguments.rehearse:
            sys.exit(report.failed())
        print(f"written to {report.path}.json and .md")
    return None


def do(name: str, file: Path, end: float, rehearse: bool) -> None:
    """Run one part in this process; writes its rows into a file."""
    from benchmarks import gpu_runs, gpu_sizes, gpu_steps

    sizes = gpu_sizes.TINY if rehearse else gpu_sizes.FULL
    part = getattr(gpu_runs, name, None) or getattr(gpu_steps, name)
    part(gpu_sizes.Bench(file, end, sizes))


def folder() -> Path:
    """The folder for results."""
    return Path(os.environ["OUT"]) if os.environ.get("OUT") else ROOT / "results" / "gpu"


def cards() -> list[str]:
    """Names of the CUDA GPUs."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


class Report:
    """The results so far, saved to disk after every row.

    Args:
        where: folder of the two files.
        commit: commit that is measured.
        rehearsal: whether this is a rehearsal, on a CPU with tiny sizes.
    """

    def __init__(self, where: Path, commit: str | None, rehearsal: bool) -> None:
        card = "cpu" if rehearsal else cards()[0]
        today = datetime.date.today().isoformat()
        self.path = where / "-".join([today, *card.replace("/", " ").split(), str(commit)[:7]])
        about = {**machine(), "card": card, "git_commit": commit, **_cuda(rehearsal)}
        self.content: dict[str, Any] = {"date": today, "rehearsal": rehearsal, "machine": about, "parts": {}}
        where.mkdir(parents=True, exist_ok=True)
        self.save()

    def save(self) -> None:
        """Write both files."""
        files = Inside(self.path.parent)
        files.write_json(f"{self.path.name}.json", self.content)
        files.write(f"{self.path.name}.md", self.markdown())

    def failed(self) -> str | None:
        """Message with the parts that did not finish and the checks that failed; None if there are none."""
        parts = self.content["parts"]
        wrong = [name for name, part in parts.items() if part["state"] != "done"]
        wrong += [row["what"] for part in parts.values() for row in part["rows"] if row["value"] is False]
        return f"failed: {', '.join(wrong)}" if wrong else None

    def markdown(self) -> str:
        """The results as a table, one row per measurement."""
        about = self.content["machine"]
        lines = [f"# {about['card']}, {self.content['date']}, commit {about['git_commit']}", ""]
        torch, cuda, driver = about["versions"]["torch"], about.get("cuda"), about.get("driver")
        lines += [
            f"`python -m benchmarks.gpu`: torch {torch}, CUDA {cuda}, driver {driver}, {about['cores']} cores",
            "",
        ]
        if self.content["rehearsal"]:
            lines += ["A rehearsal: tiny sizes on a CPU, which say nothing about a GPU.", ""]
        lines += ["| part | what | measured | unit | note |", "|---|---|---|---|---|"]
        for name, part in self.content["parts"].items():
            for row in part["rows"]:
                value = _number(row["value"])
                lines.append(f"| {name} | {row['what']} | {value} | {row['unit']} | {row['note']} |")
            lines.append(f"| {name} | *{part['state']}* | {part['seconds']:.0f} | s | {part['error']} |")
        return "\n".join(lines) + "\n"


def work(name: str, limit: float, report: Report) -> None:
    """Run one part in a new process, for at most `limit` seconds."""
    part: dict[str, Any] = {"state": "running", "seconds": 0.0, "error": "", "rows": []}
    report.content["parts"][name] = part
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        rows, log = Path(scratch) / "rows", Path(scratch) / "log"
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, str(rows), str(begin + limit)]
        rehearsal = report.content["rehearsal"]
        command += ["--rehearse"] if rehearsal else []
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # may be relative, and commands run elsewhere
        path = os.pathsep.join([str(ROOT), *(str(Path(each).absolute()) for each in given if each)])
        with log.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | SHARED | {"PYTHONPATH": path} | ({"OMP_NUM_THREADS": "1"} if rehearsal else {}),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            try:
                while process.poll() is None and time.monotonic() - begin < limit:
                    time.sleep(0.5)
                    _collect(rows, part, begin, report)
            finally:
                part["state"] = {None: "out of time", 0: "done"}.get(process.poll(), "failed")
                _end(process.pid)
                process.wait()
                _collect(rows, part, begin, report)
        if part["state"] != "done":
            part["error"] = " ".join(log.read_text(errors="replace").strip().splitlines()[-1:])[:300].replace("|", "/")
            print(log.read_text(errors="replace")[-6000:], file=sys.stderr)
    report.save()
    print(f"{name}: {part['state']} after {part['seconds']:.0f} s", flush=True)


def _collect(rows: Path, part: dict[str, Any], begin: float, report: Report) -> None:
    """Read what a part has written so far; its last line may be incomplete."""
    part["seconds"] = round(time.monotonic() - begin, 1)
    lines = rows.read_text().split("\n")[:-1] if rows.exists() else []
    if len(lines) > len(part["rows"]):
        part["rows"] = [json.loads(line) for line in lines]
        report.save()


def _end(group: int) -> None:
    """Kill a process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _cuda(rehearsal: bool) -> dict[str, Any]:
    if rehearsal:
        return {}
    import torch

    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, timeout=30).stdout.split()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        driver = None
    about = torch.cuda.get_device_properties(0)
    return {"cuda": torch.version.cuda, "driver": driver, "memory_gib": round(about.total_memory / 2**30, 1)}


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {True: "yes", False: "no"}.get(value, str(value))
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
