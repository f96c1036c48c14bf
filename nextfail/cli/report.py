"""nextfail-report: tables, figures and pages on any number of runs, finished or not.

nextfail-report runs/demo
nextfail-report runs/demo runs/demo_teacherless --out report
nextfail-report runs/leaderboard --format latex > table.tex
nextfail-report runs/demo --metric train/loss
"""

from pathlib import Path

from nextfail.cli.common import parser_of
from nextfail.errors import guarded
from nextfail.files import Inside
from nextfail.terminal import console, say


def main() -> None:
    """Entry point."""
    parser = parser_of("nextfail-report", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where to look for runs, at any depth")
    parser.add_argument("--out", type=Path, metavar="PATH", help="folder of the report (default: FOLDER/report)")
    parser.add_argument("--format", choices=("csv", "latex", "html"), help="print only the tables, in this format")
    parser.add_argument("--metric", metavar="NAME", help="show this metric of metrics.csv, as in train/loss, instead "
                        "of the results; without a split, of the validation set if it has it")  # fmt: skip
    arguments = parser.parse_args()
    guarded(parser.prog, lambda: run(arguments.folders, arguments.out, arguments.format, arguments.metric))


def run(folders: list[Path], out: Path | None, kind: str | None = None, metric: str | None = None) -> None:
    """Write the files, then print the tables and the paths.

    Args:
        out: folder of the report; None for `report` in the first folder, and then nothing is written outside of it.
        kind: csv, latex or html, to print the tables in this format and nothing else.
        metric: shown over training instead of the results.
    """
    from nextfail.reports import report
    from nextfail.reports.collect import collect
    from nextfail.reports.formats import FORMATS
    from nextfail.studies.pitfalls import page

    collection = collect(folders)
    report.claim(out or folders[0] / "report")
    if metric is not None:
        from nextfail.reports import series  # slow to import

        tasks = series.gather(collection, metric := series.full_name(metric, collection))
    held = page.sections(collection)
    files = Inside(folders[0]).below("report") if out is None else Inside(out)
    written = [*report.write(collection, files), *page.write(collection, held, files)]
    if metric is None:
        grids = report.grids(collection)
    else:
        grids, written = series.grids(tasks, metric), series.write(tasks, metric, files)
    if kind is not None:
        say(FORMATS[kind](grids).rstrip("\n"))
        return
    shown = console(width=140)
    for grid in grids:
        report.print_grid(shown, grid)
    if metric is None:
        report.print_words(collection, shown)
        if (table := page.table(held)) is not None:
            shown.print(table)
    for path in written:
        shown.print(path, soft_wrap=True)


if __name__ == "__main__":
    main()
