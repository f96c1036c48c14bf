"""Put the pages of the documentation site together in build/site, as they lie in the repository: python docs/site.py

README, docs/ and the other pages link to one another and to files of the code, with paths that hold in a checkout. So
the site has the same folders: code that a page links to becomes a page, other files are copied, and a folder becomes a
list of its files.
"""

import re
import shutil
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
PAGES = ["README.md", "RESULTS.md", "LOG.md", "MODEL_CARD.md", "CONTRIBUTING.md", "CHANGELOG.md"]
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")

MODULES = {
    "Python API": "nextfail.api",
    "Tasks": "nextfail.tasks.base",
    "Data": "nextfail.tasks.data",
    "Objectives": "nextfail.objectives.base",
    "Backbones": "nextfail.models.backbone",
    "Stacks of mixers": "nextfail.models.stack",
    "Mixers": "nextfail.models.mixers.base",
    "The LightningModule": "nextfail.training.module",
    "Types of configuration keys": "nextfail.config",
}
"""What the reference shows, by heading."""


CODE = {".py": "python", ".yaml": "yaml"}
"""Files that become pages, and the language in which they are written."""


def assemble() -> None:
    """Write every page and what it links to."""
    shutil.rmtree(SITE, ignore_errors=True)
    for page in [*(ROOT / name for name in PAGES), *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for target in {match[2] for match in LINK.finditer(text)}:
            include((page.parent / target).resolve())
        write(page, LINK.sub(partial(linked, page.parent), text))
    entries = [f"## {title}\n\n::: {name}\n    options:\n      heading_level: 3\n" for title, name in MODULES.items()]
    write(ROOT / "reference" / "index.md", "\n".join(["# Reference\n", *entries]))


def linked(folder: Path, match: re.Match[str]) -> str:
    """A link as the site has it."""
    target = match[2]
    if (folder / target).is_dir():
        target = f"{target.rstrip('/')}/index.md"
    elif Path(target).suffix in CODE:
        target += ".md"
    return f"{match[1]}{target}{match[3]}"


def include(path: Path) -> None:
    """Add a file or folder that is no page of the documentation itself."""
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        for each in files:
            include(each)
        rows = [f"- [{each.name}]({each.name}{'.md' if each.suffix in CODE else ''})" for each in files]
        write(path / "index.md", "\n".join([f"# {path.relative_to(ROOT)}\n", *rows]))
    elif path.suffix in CODE:
        text = path.read_text(encoding="utf-8")
        write(path.with_name(f"{path.name}.md"), f"# {path.relative_to(ROOT)}\n\n````{CODE[path.suffix]}\n{text}````\n")
    elif path.is_file() and (path.suffix != ".md" or "results" in path.parts):
        place = SITE / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def write(path: Path, text: str) -> None:
    """Write a page to its place."""
    place = SITE / path.relative_to(ROOT)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    assemble()
