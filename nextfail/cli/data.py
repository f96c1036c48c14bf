"""nextfail-data: write problems in the published text format.

nextfail-data --task g2_5 --n 20000 --seed 1 --out test.txt
"""

import os
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nextfail.cli.common import named_task, parser_of
from nextfail.errors import UserError, guarded
from nextfail.files import Inside
from nextfail.terminal import console, say

BLOCK = 10_000  # problems written at a time


def main() -> None:
    """Entry point."""
    parser = parser_of("nextfail-data", __doc__)
    parser.add_argument("--task", required=True, metavar="NAME", help="such as g2_5: an option of conf/task")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the task")
    parser.add_argument("--n", required=True, type=int, metavar="N", help="problems to write")
    parser.add_argument("--seed", required=True, type=int, metavar="S", help="what they are drawn from")
    parser.add_argument("--out", required=True, type=Path, metavar="PATH", help="a file that does not exist yet")
    arguments = parser.parse_args()
    settings = arguments.task, arguments.set
    guarded(parser.prog, lambda: write(*settings, arguments.n, arguments.seed, arguments.out))


def write(name: str, sets: list[str], count: int, seed: int, out: Path) -> None:
    """Write the file with a progress bar; it gets its name only when it is complete."""
    settings = named_task(name, sets, whole=True)
    if count < 1:
        raise UserError(f"--n {count} is too few: needs at least 1")
    if not out.name or os.path.lexists(out):
        raise UserError(f"{out} already exists and was not changed: choose another file, or remove it first")

    from nextfail.seeding import generator  # torch takes a second; report errors first
    from nextfail.training.build import make_task

    task, source = make_task({"task": settings}), generator("file", seed)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with (
        Inside(out.parent).writing(out.name, replace=False) as file,
        Progress(*columns, console=console(error=True), transient=True) as progress,
    ):
        bar = progress.add_task(out.name, total=count)
        for done in range(0, count, BLOCK):
            lines = task.lines(task.sample(min(BLOCK, count - done), source))
            file.writelines(f"{line}\n".encode() for line in lines)
            progress.update(bar, completed=min(done + BLOCK, count))
    say(f"{out}: {count:,} problems of {task}")


if __name__ == "__main__":
    main()
