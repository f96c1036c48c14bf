"""What sweeps cost: skipping what is done, telling what is where, and keeping a run safe while it trains."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Row, below
from nextfail.runs.files import read_json, write_json
from nextfail.runs.identity import digest

RUNS = int(os.environ.get("NEXTFAIL_BENCH_RUNS", "1000"))  # of the sweep that is all done
MANY = 5000  # runs whose status is asked for


def done_sweep() -> list[Row]:
    """Skipping runs that are done, and what Hydra itself takes to compose and launch as many empty jobs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = f"seed=range({RUNS})"
        pretend(folder, seeds)
        ours = timed([sys.executable, "-X", "importtime", "-m", "nextfail.cli.train", "-m", seeds], folder)
        assert "torch" not in imported(folder), "torch was imported for runs that are done"
        (folder / "empty.py").write_text(EMPTY)
        hydra = timed([sys.executable, "empty.py", "-m", seeds, "hydra/launcher=basic"], folder)
    peer = f"Hydra's basic launcher, {RUNS:,} empty jobs"
    return [Row(f"sweep of {RUNS:,} done runs", ours, "s", peer, ours / hydra, **below(1.2, ours / hydra))]
