"""nextfail-report: table, figures and pages of any number of runs, done or not.

nextfail-report runs/demo
nextfail-report runs/demo runs/demo_teacherless --out report
"""

from pathlib import Path

from nextfail.cli.common import parser_of
from nextfail.errors import guarded


def main() -> None:
    """Entry point."""
    parser = parser_of("nextfail-report", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where to look for runs, at any depth")
    parser.add_argument("--out", type=Path, metavar="PATH", help="folder of the report (default: FOLDER/report)")
    arguments = parser.parse_args()
    guarded(parser.prog, lambda: run(arguments.folders, arguments.out or arguments.folders[0] / "report"))


def run(folders: list[Path], out: Path) -> None:
    """Write the files, then print the tables and the paths."""
    from rich.console import Console

    from nextfail.paper import page
    from nextfail.runs import report
    from nextfail.runs.collect import collect

    collection = collect(folders)
    report.claim(out)
    held = page.sections(collection)
    written = [*report.write(collection, out), *page.write(collection, held, out)]
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 140
    report.print_report(collection, console)
    if (table := page.table(held)) is not None:
        console.print(table)
    for path in written:
        console.print(path, soft_wrap=True)


if __name__ == "__main__":
    main()
