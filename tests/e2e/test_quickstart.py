"""docs/quickstart.ipynb, executed in a kernel as a reader executes it."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[2] / "docs/quickstart.ipynb"


def test_the_notebook_shows_what_it_says(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    stored = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in stored) == 3, "readers see the figures"
    lines = [line for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert len([line for line in lines if line.strip()]) < 15
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "\x1b" not in printed and "Warning" not in printed
    assert "teacher_forcing seed 0: clever_hans" in printed and "reverse seed 0: solved" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
