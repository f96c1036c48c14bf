"""Run the benchmarks, print a table and write JSON.

python -m benchmarks
python -m benchmarks --only sampling --only generation --out speed.json
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.architectures import architectures
from benchmarks.convolution import convolution
from benchmarks.data import data_time, evaluation, sampling
from benchmarks.generation import generation
from benchmarks.lightning_share import lightning_share
from benchmarks.mamba import mamba_step, scan_forms, scan_length, second_core
from benchmarks.measure import Row, machine
from benchmarks.objectives import objectives
from benchmarks.side_by_side import side_by_side
from benchmarks.step import training_step
from benchmarks.sweeps import done_sweep, many_statuses, safety
from nextfail.files import Inside

ALL = {
    each.__name__: each
    for each in (
        sampling,
        data_time,
        evaluation,
        lightning_share,
        generation,
        side_by_side,
        training_step,
        objectives,
        convolution,
        mamba_step,
        scan_forms,
        scan_length,
        second_core,
        architectures,
        done_sweep,
        many_statuses,
        safety,
    )
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=ALL, metavar="NAME", help=f"one of {', '.join(ALL)}; repeat")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json", metavar="PATH")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    facts, rows = machine(), []
    for name in arguments.only or ALL:
        with console.status(name):
            rows += ALL[name]()
    console.print(table(rows))
    cpu, cores, load = facts["cpu"], facts["cores"], facts["load"][0]
    console.print(f"{cpu}, {cores} cores, {' '.join(facts['flags'])}; load {load:.1f} before; torch on 1 thread")
    Inside(arguments.out.parent).write_json(
        arguments.out.name, {"machine": facts, "rows": [asdict(row) for row in rows]}
    )
    console.print(f"written to {arguments.out}")


def table(rows: list[Row]) -> Table:
    """Format rows as a table for the terminal."""
    made = Table("what", "measured", "unit", "times", "its peer", "target", "met")
    for column in (1, 3):
        made.columns[column].justify = "right"
    for row in rows:
        value = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:.3g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        met = {True: "[green]yes", False: "[red]no", None: ""}[row.met]
        made.add_row(row.name, value, row.unit, ratio, row.peer, row.target, met)
    return made


if __name__ == "__main__":
    main()
