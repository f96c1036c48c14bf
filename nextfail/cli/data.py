"""nextfail-data: write problems in the published text format.

nextfail-data --graph g2_5 --n 20000 --seed 1 --out test.txt
"""

from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nextfail.cli.common import named_graph, parser_of
from nextfail.errors import UserError, guarded
from nextfail.terminal import console, say


def main() -> None:
    """Entry point."""
    parser = parser_of("nextfail-data", __doc__)
    parser.add_argument("--graph", required=True, metavar="NAME", help="size, such as g2_5: an option of conf/graph")
    parser.add_argument("--n", required=True, type=int, metavar="N", help="problems to write")
    parser.add_argument("--seed", required=True, type=int, metavar="S", help="what they are drawn from")
    parser.add_argument("--out", required=True, type=Path, metavar="PATH", help="a file that does not exist yet")
    arguments = parser.parse_args()
    guarded(parser.prog, lambda: write(arguments.graph, arguments.n, arguments.seed, arguments.out))


def write(graph: str, count: int, seed: int, out: Path) -> None:
    """Write the file under a progress bar."""
    sizes: dict[str, Any] = named_graph(graph)
    if count < 1:
        raise UserError(f"--n {count} is too few: needs at least 1")

    from nextfail.seeding import generator  # torch takes a second, which a mistake should not cost
    from nextfail.tasks.path_star import textfile
    from nextfail.tasks.path_star.graph import PathStar

    writing = textfile.write(out, PathStar(**sizes), count, generator("file", seed))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console(error=True), transient=True) as progress:
        task = progress.add_task(out.name, total=count)
        for done in writing:
            progress.update(task, completed=done)
    say(f"{out}: {count:,} problems of {PathStar(**sizes)}")


if __name__ == "__main__":
    main()
