"""nextfail-report: tables, figures and pages on any number of runs, finished or not.

nextfail-report runs/demo
nextfail-report runs/demo runs/demo_teacherless --out report
"""

from pathlib import Path

from nextfail.cli.common import parser_of
from nextfail.errors import guarded
from nextfail.files import Inside
from nextfail.terminal import console


def main() -> None:
    """Entry point."""
    parser = parser_of("nextfail-report", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where to look for runs, at any depth")
    parser.add_argument("--out", type=Path, metavar="PATH", help="folder of the report (default: FOLDER/report)")
    arguments = parser.parse_args()
    guarded(parser.prog, lambda: run(arguments.folders, arguments.out))


def run(folders: list[Path], out: Path | None) -> None:
    """Write the files, then print the tables and the paths.

    Args:
        out: folder of the report; None for `report` in the first folder, and then nothing is written outside of it.
    """
    from nextfail.reports import report
    from nextfail.reports.collect import collect
    from nextfail.studies.pitfalls import page

    collection = collect(folders)
    report.claim(out or folders[0] / "report")
    held = page.sections(collection)
    files = Inside(folders[0]).below("report") if out is None else Inside(out)
    written = [*report.write(collection, files), *page.write(collection, held, files)]
    shown = console(width=140)
    report.print_report(collection, shown)
    if (table := page.table(held)) is not None:
        shown.print(table)
    for path in written:
        shown.print(path, soft_wrap=True)


if __name__ == "__main__":
    main()
