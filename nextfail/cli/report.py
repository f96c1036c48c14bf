"""nextfail-report: table, figures and pages of any number of runs, done or not.

nextfail-report runs/demo
nextfail-report runs/demo runs/demo_teacherless --out report
"""

import argparse
import sys
from pathlib import Path

from nextfail.errors import guarded


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="nextfail-report", description="Table, figures and pages of many runs.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where to look for runs, at any depth")
    parser.add_argument("--out", type=Path, metavar="PATH", help="folder of the report (default: FOLDER/report)")
    arguments = parser.parse_args()
    guarded(parser.prog, lambda: run(arguments.folders, arguments.out or arguments.folders[0] / "report"))


def run(folders: list[Path], out: Path) -> None:
    """Print the table, then write the files."""
    from rich.console import Console

    from nextfail.paper import page
    from nextfail.runs import report
    from nextfail.runs.collect import collect

    collection = collect(folders)
    report.claim(out)
    console = Console(width=None if sys.stdout.isatty() else 140, markup=False, highlight=False)
    report.print_report(collection, console)
    held = page.sections(collection)
    if (table := page.table(held)) is not None:
        console.print(table)
    for path in [*report.write(collection, out), *page.write(collection, held, out)]:
        console.print(path, soft_wrap=True)


if __name__ == "__main__":
    main()
