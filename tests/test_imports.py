"""Imports point one way: tasks and models know nobody, objectives those, training those three; reports know runs."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nextfail

ROOT = Path(nextfail.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
BASE = {"config", "errors", "files", "paths", "seeding", "source", "terminal", "text"}  # modules that know no part
MAY = {
    "tasks": {"tasks", *BASE},
    "models": {"models", *BASE},
    "objectives": {"objectives", "tasks", "models", *BASE},
    "training": {"training", "objectives", "tasks", "models", "runs", "stop", "__version__", *BASE},
    "runs": {"runs", "process", *BASE},
    "reports": {"reports", "runs", "tasks", *BASE},
    "studies": {"studies", "reports", "runs", "tasks", "__version__", *BASE},
    "sweeps": {"sweeps", "runs", "stop", "__version__", *BASE},
    "cli": {
        "cli",
        "sweeps",
        "training",
        "objectives",
        "tasks",
        "models",
        "runs",
        "reports",
        "studies",
        "stop",
        "__version__",
        *BASE,
    },
    "api": {"training", "objectives", "tasks", "models", "runs", "reports", *BASE},
    "errors": {"terminal"},
    "files": {"errors"},
    "paths": set(),
    "seeding": set(),
    "config": set(),
    "reference": {"config", "files", "paths", "source", "syntax"},
    "source": {"config", "errors", "syntax"},
    "syntax": set(),
    "terminal": {"text"},
    "text": set(),
    "stop": set(),
    "process": set(),
    "__init__": {"api", "models", "objectives", "tasks"},
}
DOOR = ROOT / "sweeps" / "job.py"
"""The one file through which sweeps know of training."""

HEAVY = {"torch", "lightning", "torchmetrics", "hydra", "omegaconf", "transformers"}


def imports(file: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, also inside functions."""
    package = ["nextfail", *file.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            near = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*near, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    own = {name.split(".")[1] for name in imports(file) if name.startswith("nextfail.")}
    may = MAY[part(file)] | ({"training"} if file == DOOR else {"reports"} if file.name == "figure.py" else set())
    assert own <= may, f"{file} imports {own - may}"


@pytest.mark.parametrize(
    "file", [f for f in FILES if part(f) in ("runs", "reports", "studies")], ids=lambda file: file.name
)
def test_runs_are_read_without_heavy_libraries(file: Path) -> None:
    assert not {name.split(".")[0] for name in imports(file)} & HEAVY


FACTS = {f"nextfail.tasks.{file.parent.name}.facts" for file in ROOT.glob("tasks/*/facts.py")}


def test_what_reports_need_of_a_task_needs_no_torch() -> None:
    names = [name for file in FILES if part(file) in ("reports", "studies") for name in imports(file)]
    modules = {name.rpartition(".")[0] for name in names if name.startswith("nextfail.tasks.")} | FACTS
    imported = "; ".join(f"import {name}" for name in sorted({*modules, "nextfail.tasks.path_star.figure"}))
    code = f"import sys; {imported}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_part_is_looked_at() -> None:
    assert {part(file) for file in FILES} == set(MAY)
    assert {"torch.nn.functional", "nextfail.errors.UserError"} <= set(
        imports(ROOT / "models" / "mixers" / "attention.py")
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_of_torch_spin_briefly_unless_told_otherwise(environment: dict[str, str], expected: str) -> None:
    known = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import nextfail, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    told = subprocess.run([sys.executable, "-c", code], env=known | environment, capture_output=True, text=True)
    assert told.stdout.strip() == expected
