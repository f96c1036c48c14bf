"""The tables in results/ are what the report writes from the run folders there."""

from pathlib import Path

import pytest

from nextfail.reports.collect import collect
from nextfail.reports.report import table_csv

ROOT = Path(__file__).parents[2]
KEPT = sorted(path.name for path in (ROOT / "results").iterdir() if any(path.glob("*/run.json")))


@pytest.mark.parametrize("name", KEPT)
def test_the_table_is_what_the_report_writes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = collect([Path("results", name)])
    assert not found.problems
    assert Path("results", f"{name}.csv").read_text() == table_csv(found)


def test_there_is_a_table() -> None:
    assert "leaderboard" in KEPT
