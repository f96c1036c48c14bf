"""Run folders that were damaged or made up: every reader answers in one line, writes nothing, and does not run away."""

import copy
import json
import math
import random
import resource
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import command
from hypothesis import given, settings
from hypothesis import strategies as st

import nextfail
from nextfail.errors import UserError
from nextfail.reports.collect import collect
from nextfail.reports.report import page, records
from nextfail.runs.folder import LAST, RunFolder
from nextfail.runs.identity import digest
from nextfail.runs.status import describe, survey
from nextfail.sweeps.known import Known
from nextfail.training.checkpoints import read_checkpoint
from nextfail.training.load import load, remake_task

JSON = ("run.json", "status.json", "result.json", "examples.json")
FILES = (*JSON, "metrics.csv", "timing.csv")

WHOLES = st.integers() | st.sampled_from([-1, 0, 2**31, 2**63, 10**30, 10**400])
TEXTS = st.text(max_size=20) | st.sampled_from(["\ud800", "x" * 300, "../x"])
SCALARS = st.none() | st.booleans() | WHOLES | st.floats() | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                                                                                           max_size=3))  # fmt: skip
DEEP = "[" * 200_000

many = settings(max_examples=1000, deadline=None)


class Files(dict[str, bytes]):
    def __repr__(self) -> str:
        return "the files of a run"


@pytest.fixture(scope="module")
def sound(run_folder: Path) -> Iterator[dict[str, bytes]]:
    yield Files({name: (run_folder / name).read_bytes() for name in FILES})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a JSON value something could be exchanged."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def exchanged(content: Any, place: tuple[Any, ...], new: Any) -> Any:
    changed = copy.deepcopy(content)
    at = changed
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = new
    return changed


def summed(run: Any) -> Any:
    """With the checksum that whoever changed it would give it."""
    run = {key: value for key, value in run.items() if key != "checksum"}
    try:
        return run | {"checksum": digest(run)}
    except (ValueError, UnicodeEncodeError):
        return run


def one_line(action: Callable[[], object]) -> None:
    """Whether an action works, or refuses in one line."""
    try:
        action()
    except UserError as error:
        assert str(error)


def readers(root: Path) -> None:
    """All that reads folders without their weights."""
    found = survey([root / "run"])[root / "run"]
    assert describe(found) is not None and found["state"]
    one_line(lambda: page(collect([root]), []))
    one_line(lambda: records(collect([root])))
    assert isinstance(Known(root)._by_hash, dict)
    one_line(lambda: nextfail.load(root / "run").metrics())
    one_line(lambda: remake_task(RunFolder(root / "run")))


def try_with(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "run").mkdir()
        for name, content in files.items():
            (root / "run" / name).write_bytes(content)
        readers(root)
        left = {path.name: path.read_bytes() for path in (root / "run").iterdir()}
        assert left == files and [path.name for path in root.iterdir()] == ["run"], "nothing is written"


@many
@given(st.sampled_from(JSON), st.data())
def test_values_of_any_kind(sound: dict[str, bytes], name: str, data: st.DataObject) -> None:
    content = json.loads(sound[name])
    place = data.draw(st.sampled_from([*places(content)]))
    changed = exchanged(content, place, data.draw(VALUES))
    if name == "run.json":
        changed = summed(changed)
    try_with(sound | {name: json.dumps(changed).encode()})


@many
@given(st.sampled_from(FILES), st.data())
def test_bytes_of_any_kind(sound: dict[str, bytes], name: str, data: st.DataObject) -> None:
    content = sound[name]
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    try_with(sound | {name: content[:start] + data.draw(st.binary(max_size=20)) + content[end:]})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [DEEP, '{"a":' * 200_000, "", "null", "[]", "3", '"\\ud800"', "NaN", "{}", "\0",
                                     '"' + "x" * 200_000, "a," * 200_000, "a\n" + "1," * 200_000])  # fmt: skip
def test_odd_files(sound: dict[str, bytes], name: str, content: str) -> None:
    try_with(sound | {name: content.encode()})


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_checkpoints_with_other_bytes(run_folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
                                      ) -> None:  # fmt: skip
    content = (run_folder / "checkpoints" / LAST).read_bytes()
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    changed = bytearray(content)
    for _ in range(data.draw(st.sampled_from([0, 1, 10, 1000]))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    end = data.draw(st.sampled_from([len(changed), chance.randrange(len(changed))]))
    path = tmp_path_factory.getbasetemp() / "changed.ckpt"
    path.write_bytes(changed[:end])
    run_hash = RunFolder(run_folder).run()["hash"]
    one_line(lambda: read_checkpoint(path, run_hash))
    one_line(lambda: load(RunFolder(run_folder), str(path)))


def test_a_checkpoint_that_unpacks_to_more_than_it_holds(run_folder: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"archive/data/{number}", b"\0" * 2**26)
    with pytest.raises(UserError, match="is compressed, which no checkpoint of nextfail is"):
        load(RunFolder(run_folder), str(bomb))
    sparse = tmp_path / "sparse.ckpt"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"1,099,511,627,776 bytes, and is not a checkpoint of a model of"):
        load(RunFolder(run_folder), str(sparse))


def test_a_model_that_is_larger_than_its_checkpoint_is_not_made(run_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    run["model"] |= {"width": 2**20, "depth": 50}
    (folder / "run.json").write_text(json.dumps(summed(run)))
    with pytest.raises(UserError, match="and is not a checkpoint of a model of"):
        load(RunFolder(folder))


@pytest.mark.parametrize("sizes", [{"width": 2**40}, {"depth": 10**9, "width": 4}])
def test_models_that_no_machine_holds_are_refused_at_once(run_folder: Path, tmp_path: Path, sizes: dict[str, int]
                                                          ) -> None:  # fmt: skip
    folder = shutil.copytree(run_folder, tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    run["model"] |= sizes
    (folder / "run.json").write_text(json.dumps(summed(run)))
    with pytest.raises(UserError, match=r"and is not a checkpoint of a model of|cannot be built"):
        load(RunFolder(folder))


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (2**30 + 2**29,) * 2)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(50))
def test_commands_answer_in_a_line(number: int, run_folder: Path, tmp_path: Path) -> None:
    """Kinds as above, through the commands. Torch alone reserves some 400 MB, hence the bound on memory."""
    chance = random.Random(number)
    folder = shutil.copytree(run_folder, tmp_path / "runs/run")
    path = folder / chance.choice((*FILES, f"checkpoints/{LAST}"))
    content = bytearray(path.read_bytes())
    if path.suffix == ".json" and number % 2:
        whole = json.loads(content)
        odd = chance.choice([None, True, -1, 10**30, "x", [], {}, 1e300, [[]] * 3, "\ud800", math.nan, "9" * 5000])
        changed = exchanged(whole, chance.choice([*places(whole)]), odd)
        content = bytearray(json.dumps(summed(changed) if path.name == "run.json" else changed).encode())
    else:
        for _ in range(chance.choice([1, 20])):
            content[chance.randrange(len(content))] = chance.randrange(256)
        content = content[: chance.choice([len(content), chance.randrange(len(content))])]
    path.write_bytes(content)
    name = chance.choice(["eval", "eval", "status", "report", "clean"])
    where = [folder] if name == "eval" else [tmp_path / "runs"]
    done = subprocess.run(command(name, *where), cwd=tmp_path, capture_output=True, text=True, timeout=120,
                          preexec_fn=limited)  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout and done.returncode in (0, 1, 2), done.stderr
    assert done.returncode == 0 or len(done.stderr.splitlines()) <= 3, done.stderr
    assert {each.name for each in tmp_path.iterdir()} == {"runs"}
