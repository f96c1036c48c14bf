"""README.md is short, and what it and the pages under docs/ point to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_readme_takes_ten_minutes() -> None:
    assert len(PAGES[0].read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_page_is_linked_from_readme() -> None:
    assert all(f"(docs/{page.name})" in PAGES[0].read_text() for page in PAGES[1:])


def test_every_file_named_in_the_tree_exists() -> None:
    named = re.findall(r"^ {4,6}([\w/]+\.(?:py|md))", (ROOT / "docs/files.md").read_text(), re.MULTILINE)
    assert len(named) > 10
    for name in named:
        assert (ROOT / "nextfail" / name).exists() or (ROOT / name).exists(), name
