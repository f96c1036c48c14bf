"""The one door to writing: inside a folder, whole or not at all, through no link; and reading of regular files only."""

import ast
import os
import string
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nextfail
from nextfail.errors import UserError
from nextfail.files import PARTIAL, Inside, read_text, trap
from nextfail.runs.records import lenient

WRITERS = {"write_text", "write_bytes", "unlink", "rmtree", "mkdir", "makedirs", "rename", "touch", "symlink_to",
           "hardlink_to", "copyfile", "copy", "move", "utime", "truncate"}  # fmt: skip


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of somebody else's, with one file."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "diary.svg").write_text("mine")
    return folder


def untouched(theirs: Path) -> bool:
    return [path.name for path in theirs.iterdir()] == ["diary.svg"] and (theirs / "diary.svg").read_text() == "mine"


def test_files_are_written_read_and_removed(tmp_path: Path) -> None:
    files = Inside(tmp_path / "new/folder")
    files.write("a/b/c.txt", "one")
    files.write("a/b/c.txt", b"two")
    assert (tmp_path / "new/folder/a/b/c.txt").read_text() == "two"
    files.write_json("x.json", {"a": [float("nan"), 1.5]})
    assert lenient(tmp_path / "new/folder/x.json", Any) == {"a": [None, 1.5]}
    assert files.names() == ["a", "x.json"] and files.names("a/b") == ["c.txt"] and files.names("nowhere") == []
    assert files.move("x.json", "y.json") and not files.move("x.json", "y.json")
    assert files.link("y.json", "z.json") and not files.link("y.json", "z.json")
    files.remove("y.json")
    files.remove("y.json")
    files.remove("no/such/folder.txt")
    files.remove_tree("a")
    files.remove_tree("a")
    assert files.names() == ["z.json"]


def test_what_fails_while_it_is_written_leaves_the_old_file(tmp_path: Path) -> None:
    files = Inside(tmp_path)
    files.write("a.txt", "old")
    with pytest.raises(RuntimeError), files.writing("a.txt") as file:
        file.write(b"half")
        raise RuntimeError
    with pytest.raises(UserError, match="exists"), files.writing("a.txt", replace=False) as file:
        file.write(b"new")
    assert (tmp_path / "a.txt").read_text() == "old" and files.names() == ["a.txt"]


def test_a_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", refuse)
    files = Inside(tmp_path)
    files.write("a", "content")
    assert files.link("a", "b") and not files.link("a", "b") and (tmp_path / "b").read_text() == "content"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..", "a/..", "x\0y"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    files = Inside(tmp_path / "in")
    files.make("a")
    for write in (lambda: files.write(name, "x"), lambda: files.remove(name), lambda: files.remove_tree(name),
                  lambda: files.move("a", name), lambda: files.make(name), lambda: files.names(name)):  # fmt: skip
        with pytest.raises(UserError, match="is not inside"):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@given(parts=st.lists(st.sampled_from(["..", ".", "a", "b", "", *string.ascii_lowercase[:3]]), max_size=5))
def test_nothing_is_ever_written_outside(parts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("out")
    files = Inside(folder / "in")
    for change in (lambda name: files.write(name, "x"), files.make, files.remove, files.remove_tree):
        with suppress(UserError):
            change("/".join(parts))
    assert {path.name for path in folder.iterdir()} <= {"in"}


def test_a_linked_folder_is_not_entered(tmp_path: Path, theirs: Path) -> None:
    files = Inside(tmp_path / "in")
    files.make()
    (tmp_path / "in/figures").symlink_to(theirs)
    for write in (
        lambda: files.write("figures/diary.svg", "x"),
        lambda: files.write("figures/new/diary.svg", "x"),
        lambda: files.remove("figures/diary.svg"),
        lambda: files.remove_tree("figures/diary.svg"),
        lambda: files.make("figures"),
        lambda: files.below("figures"),
        lambda: files.names("figures"),
        lambda: files.touch("figures/diary.svg"),
    ):
        with pytest.raises(UserError, match="figures is a link"):
            write()
        assert untouched(theirs)
    files.remove_tree("figures")  # the link itself
    assert untouched(theirs) and not (tmp_path / "in/figures").is_symlink()


def test_a_linked_file_is_replaced_and_what_it_leads_to_is_not(tmp_path: Path, theirs: Path) -> None:
    files = Inside(tmp_path / "in")
    files.make()
    (tmp_path / "in/a.svg").symlink_to(theirs / "diary.svg")
    files.write("a.svg", "new")
    assert untouched(theirs) and (tmp_path / "in/a.svg").read_text() == "new"
    (tmp_path / "in/b.svg").symlink_to(theirs / "diary.svg")
    files.remove("b.svg")
    assert untouched(theirs) and files.names() == ["a.svg"]


def test_the_folder_itself_may_be_a_link(tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "in").symlink_to(theirs)
    Inside(tmp_path / "in").write("new.txt", "x")
    assert (theirs / "new.txt").read_text() == "x"


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder/inner").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot write .*file"):
        Inside(tmp_path).write("file/x", "x")
    with pytest.raises(UserError, match=r"cannot create .*file"):
        Inside(tmp_path / "file").make()
    with pytest.raises(UserError, match=r"cannot write .*folder: Is a directory"):
        Inside(tmp_path).write("folder", "x")
    assert Inside(tmp_path).names() == ["file", "folder"], "nothing partial is left"
    assert not any(path.name.endswith(PARTIAL) for path in tmp_path.rglob("*"))


def test_links_that_lead_out_are_found(tmp_path: Path, theirs: Path) -> None:
    run = tmp_path / "run"
    (run / "wandb/run-1").mkdir(parents=True)
    (run / "wandb/latest-run").symlink_to("run-1")  # as W&B makes it
    assert trap(run) is None
    (run / "wandb/run-1/debug.log").symlink_to(theirs)  # and this, too
    assert trap(run) is None
    (run / "wandb/hparams.yaml").symlink_to(theirs / "diary.svg")
    assert trap(run) == run / "wandb/hparams.yaml"
    (run / "train.log").symlink_to(theirs / "diary.svg")
    assert trap(run) == run / "train.log"


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").write_text("{}")
    (tmp_path / "deep").write_text("[" * 200_000)
    for name in ("pipe", "zero", ".", "nowhere"):
        with pytest.raises(OSError):
            read_text(tmp_path / name)
        assert lenient(tmp_path / name, Any) is None
    assert lenient(tmp_path / "deep", Any) is None
    assert lenient(tmp_path / "link", Any) == {}
    with pytest.raises(OSError):
        read_text(tmp_path / "link", follow=False)
    with pytest.raises(OSError, match="more than 1 bytes"):
        read_text(tmp_path / "real", most=1)


def test_nothing_else_in_the_package_writes_files() -> None:
    root = Path(nextfail.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        if path.name == "files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                own = node.func.attr in WRITERS and not _is_ours(node.func.value)
                opened = node.func.attr in ("open", "fdopen") and any(_writes(each) for each in node.args)
                if own or opened:
                    found.append(f"{path.relative_to(root)}:{node.lineno} {ast.unparse(node)}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
                found.append(f"{path.relative_to(root)}:{node.lineno} {ast.unparse(node)}")
    allowed = ("terminal.py",)  # opens the null device
    assert [each for each in found if not each.startswith(allowed)] == []


def _is_ours(value: ast.expr) -> bool:
    """Whether a method is called on Inside, on a job's place in a sweep, or on a copy of a configuration."""
    return ast.unparse(value).rpartition(".")[2] in ("files", "job", "copy") or ast.unparse(value).startswith("Inside(")


def _writes(argument: ast.expr) -> bool:
    mode = argument.value if isinstance(argument, ast.Constant) else ""
    return isinstance(mode, str) and bool(set(mode) & set("wxa+"))
