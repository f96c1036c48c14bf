"""A task of a user's own, in a file of theirs: trained, evaluated and reported with no line of nextfail changed."""

import json
from pathlib import Path

import pytest
from commands import TINY, call, refused

COPY = '''
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from nextfail.tasks import Batch, Task


@dataclass(frozen=True)
class Copy(Task):
    """Tokens, "=", and the same tokens again: no token is hard, nothing is probed."""

    length: int
    symbols: int = 20

    @property
    def vocab(self):
        texts = [*map(str, range(self.symbols)), "=", "$"]
        signs = {"equals": self.symbols, "blank": self.symbols + 1, "end": None, "pairs": None}
        return SimpleNamespace(size=len(texts), texts=texts, **signs)

    prompt_length = property(lambda self: self.length + 1)
    answer_length = property(lambda self: self.length)
    chance = property(lambda self: self.symbols**-self.length)
    distinct = property(lambda self: self.symbols**self.length)

    def sample(self, count, generator, group=1):
        answers = torch.randint(self.symbols, (count, self.length), generator=generator)
        return Batch.full(torch.cat([answers, torch.full((count, 1), self.symbols)], 1), answers)

    def keys(self, batch):
        return (batch.answers * self.symbols ** torch.arange(self.length)).sum(1)

    def outcome(self, metrics, finite, judged_by):
        return "copied" if metrics[judged_by]["value"] > 0.9 else "not copied"
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "copy_task.py").write_text(COPY)
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/copy.yaml").write_text("_target_: copy_task.Copy\nlength: 4\n")
    return tmp_path


OWN = ("--config-dir", "conf", *TINY, "task=copy", "trainer.max_steps=10", "trainer.val_every=5", "name=copy")


@pytest.mark.slow
def test_a_task_without_a_hard_token(mine: Path) -> None:
    for objective in ("teacher_forcing", "teacherless"):
        said = call("train", *OWN, f"objective={objective}", cwd=mine).stdout
        assert "not copied" in said
    folder = mine / f"runs/copy/{next(path.name for path in (mine / 'runs/copy').iterdir() if 'forcing' in path.name)}"
    result = json.loads((folder / "result.json").read_text())
    assert result["task"]["settings"] == {"length": 4, "symbols": 20} and result["task"]["hard_position"] is None
    assert "hard_token_accuracy" not in result and len(result["token_accuracy"]) == 4
    assert "--trust" in refused("eval", folder, cwd=mine)
    assert (
        json.loads(call("eval", folder, "--trust", "--json", cwd=mine).stdout)["exact_match"] == result["exact_match"]
    )
    assert "teacher_forcing" in call("report", "runs/copy", cwd=mine).stdout
    assert "2 done" in call("status", "runs/copy", cwd=mine).stdout
    for name in ("exact_match", "tokens"):
        assert (mine / f"runs/copy/report/figures/{name}.png").stat().st_size > 1000
    assert "not copied" in (mine / "runs/copy/report/results.csv").read_text()


@pytest.mark.slow
def test_what_a_task_cannot_do_is_told_before_training(mine: Path) -> None:
    assert "needs a task with one hard token" in refused("train", *OWN, "objective=first_hop_only", cwd=mine)
    source = (mine / "copy_task.py").read_text()
    (mine / "copy_task.py").write_text(source.replace("@dataclass(frozen=True)\n", ""))
    assert "task" in refused("train", *OWN, cwd=mine)  # it takes no arguments now
    made = "    def __init__(self, length): self.length = length\n\n    @property\n    def vocab"
    plain = source.replace("@dataclass(frozen=True)\n", "").replace("    @property\n    def vocab", made)
    (mine / "copy_task.py").write_text(plain)
    assert "is not a dataclass" in refused("train", *OWN, cwd=mine)
    (mine / "copy_task.py").write_text(source.replace('"not copied"', "300 * 'x'"))
    assert "outcome: Expected `str` of length <= 200" in refused("train", *OWN, cwd=mine)
    (mine / "copy_task.py").write_text(source.replace('"not copied"', "None"))
    assert "outcome: Expected `str`, got `null`" in refused("train", *OWN, cwd=mine)


@pytest.mark.slow
def test_a_task_with_a_long_title_is_done(mine: Path) -> None:
    source = (mine / "copy_task.py").read_text()
    (mine / "copy_task.py").write_text(
        source.replace("    symbols: int = 20\n", f"    symbols: int = 20\n    note: str = '{'x' * 300}'\n")
    )
    call("train", *OWN, cwd=mine)
    assert "1 done" in call("status", "runs/copy", cwd=mine).stdout
