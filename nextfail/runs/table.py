"""A small CSV table that grows row by row, is always whole on disk, and can be cut back to a step."""

import csv
import io
from pathlib import Path

from nextfail.runs.files import write_text

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """The rows of a table, without empty cells; none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if key and value} for row in csv.DictReader(file)]


class Table:
    """Rows with a `step` column, one for each step and split.

    Args:
        path: the file; rows it has already are kept up to `resume_step`.
        resume_step: the step of the checkpoint gone on from; 0 for a new run.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        self.path = path
        self.rows = [row for row in read_rows(path) if int(row["step"]) <= resume_step]
        self._write()

    def add(self, *rows: Row) -> None:
        """Append rows, which may have new columns; one for the same step and split is replaced."""
        new = {_key(row) for row in rows}
        self.rows = [row for row in self.rows if _key(row) not in new] + list(rows)
        self._write()

    def _write(self) -> None:
        # the whole file each time: it is small, and a new column changes its first line
        columns = dict.fromkeys(["step"])
        for row in self.rows:
            columns |= dict.fromkeys(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def _key(row: Row) -> tuple[str, str | None]:
    return row["step"], row.get("split")
