"""A small CSV table that grows row by row, is written atomically, and can be truncated to a step."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nextfail.errors import UserError
from nextfail.files import Inside
from nextfail.runs.records import ODD, Malformed, text_of
from nextfail.text import csv_cell

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """The rows of a table, without empty cells; an empty list if the file does not exist.

    Raises:
        Malformed: it cannot be read, or is not CSV.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(text_of(path) or "", newline="")))
    except csv.Error as error:
        raise Malformed(f"{path.name} {ODD}: {error}") from error
    return [{key: value for key, value in row.items() if key and value} for row in rows]


def number(row: Row, key: str) -> float:
    """A cell as a number; NaN if it is missing or not a number."""
    try:
        return float(row[key])
    except (KeyError, ValueError):
        return math.nan


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A table as CSV text, in which no spreadsheet finds a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    writer.writerows([csv_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


class Table:
    """Rows with a `step` column, one per step and split.

    Args:
        files: the folder of the table.
        name: file name; existing rows are kept up to `resume_step`.
        resume_step: step of the checkpoint to resume from; 0 for a new run.
    """

    def __init__(self, files: Inside, name: str, resume_step: int) -> None:
        self.files, self.name = files, name
        try:
            self.rows = [row for row in read_rows(files.root / name) if int(row["step"]) <= resume_step]
        except (LookupError, ValueError) as error:
            raise UserError(f"{files.root / name} {ODD}: {error!r}") from error
        self._write()

    def add(self, *rows: Row) -> None:
        """Append rows, which may have new columns; a row of the same step and split is replaced."""
        new = {_key(row) for row in rows}
        self.rows = [row for row in self.rows if _key(row) not in new] + list(rows)
        self._write()

    def _write(self) -> None:
        # rewrite the whole file: it is small, and a new column changes the header
        columns = dict.fromkeys(["step"])
        for row in self.rows:
            columns |= dict.fromkeys(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        self.files.write(self.name, text.getvalue())


def _key(row: Row) -> tuple[str, str | None]:
    return row["step"], row.get("split")
