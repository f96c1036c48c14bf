"""nextfail-clean: remove failed runs, old checkpoints, and sweep records of runs that never started.

nextfail-clean runs/demo
nextfail-clean runs/demo --keep last --yes
"""

from pathlib import Path

from nextfail.cli.common import parser_of
from nextfail.errors import guarded
from nextfail.terminal import say
from nextfail.text import line


def main() -> None:
    """Entry point."""
    parser = parser_of("nextfail-clean", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders, or folders of sweeps")
    parser.add_argument("--keep", choices=["last"], help="also remove all but the last checkpoint of each finished run")
    parser.add_argument("--yes", action="store_true", help="remove; without it, only list what would be removed")
    arguments = parser.parse_args()
    guarded(parser.prog, lambda: clean(arguments.folders, arguments.keep == "last", arguments.yes))


def clean(folders: list[Path], keep_last: bool, really: bool) -> None:
    """Remove, or print what would be removed, one line per item."""
    from nextfail.sweeps.clean import removals, remove

    found = list(removals(folders, keep_last))
    size = 0
    for item in found:
        bytes_of_it = item.size()
        size += bytes_of_it
        left = remove(item) if really else ""
        say(line(f"{item.path}  {_megabytes(bytes_of_it)}  {left or item.why}"))
    if not found:
        say("nothing to remove")
    elif not really:
        say(f"{len(found)} to remove, {_megabytes(size)}: --yes removes them")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


if __name__ == "__main__":
    main()
