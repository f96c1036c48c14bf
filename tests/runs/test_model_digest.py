"""A pretrained model is known by its content, and by its name where it is not on this machine."""

import shutil
from pathlib import Path

import pytest

from nextfail.errors import UserError
from nextfail.runs.identity import model_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "README.md"):
        (tmp_path / "one" / name).write_text(name)
    return tmp_path / "one"


def test_place_does_not_count(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "two")
    assert model_digest(str(folder)) == model_digest(str(tmp_path / "two"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_content_counts(folder: Path, name: str) -> None:
    before = model_digest(str(folder))
    (folder / name).write_text("something else")
    assert model_digest(str(folder)) != before
    (folder / name).rename(folder / f"other-{name}")
    assert model_digest(str(folder)) != before


def test_what_is_not_the_model_does_not_count(folder: Path) -> None:
    before = model_digest(str(folder))
    (folder / "README.md").write_text("new")
    assert model_digest(str(folder)) == before


@pytest.mark.parametrize("source", ["gpt2-large", "", None, 3])
def test_what_is_no_folder_stays_as_it_is(source: object) -> None:
    assert model_digest(source) == source


def test_file_that_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*model\.safetensors"):
        model_digest(str(folder))
