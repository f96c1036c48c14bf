"""docs/new_backbone.md, followed literally from an installed wheel: its files and commands, in little."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call

from nextfail.errors import UserError
from nextfail.objectives import Objective
from nextfail.source import own
from nextfail.tasks import PathStar
from nextfail.training.build import fit
from nextfail.training.load import own_class
from nextfail.training.module import TaskModule

PAGE = (Path(__file__).parents[2] / "docs" / "new_backbone.md").read_text()
FILES = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^\$ nextfail-(.+)$", PAGE, re.MULTILINE)
LITTLE = ("trainer.max_steps=4", "trainer.val_every=2", "data.train=64", "data.validation=8", "data.test=8",
          "data.batch_size=4", "model.width=16")  # fmt: skip
TASK = PathStar(2, 4, 20)
OBJECTIVES = sorted(name for name in own() if (made := own_class(name)) and issubclass(made, Objective))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("gru", "gru_cached", "means"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.slow
def test_from_file_to_table(installed: dict[str, str], written: Path) -> None:
    assert [name for name, _ in FILES] == [
        "gru.py",
        "conf/model/gru.yaml",
        "gru_cached.py",
        "means.py",
        "conf/model/means.yaml",
    ]
    assert len(FILES[0][1].splitlines()) <= 40
    for command in COMMANDS:
        name, *arguments = command.split()
        little = LITTLE if name == "train" and "debug=default" not in arguments else ()
        call(name, *arguments, *little, cwd=written, env=installed)
    results = [json.loads(path.read_text()) for path in written.glob("runs/gru/*/result.json")]
    assert sorted(result["objective"] for result in results) == ["reverse", "teacher_forcing"]
    assert "| teacher_forcing | gru |" in (written / "runs/gru/report/report.md").read_text()


def backbone(kind: Any, objective: Objective) -> Any:
    return kind(depth=2, width=16, **fit(TASK, objective))


def test_decoding_without_a_cache_is_decoding_with_one(written: Path) -> None:
    from gru import GRU  # type: ignore[import-not-found]
    from gru_cached import CachedGRU  # type: ignore[import-not-found]

    plain = GRU(depth=2, width=16, vocab_size=24, max_length=40, dropout=0.3).eval()
    cached = CachedGRU(depth=2, width=16, vocab_size=24, max_length=40, dropout=0.3).eval()
    cached.load_state_dict(plain.state_dict())
    ids = torch.randint(24, (3, 12), generator=torch.Generator().manual_seed(0))
    for kind in (plain, cached):
        first, cache = kind.step(ids[:, :7], last=1)
        rest, _ = kind.step(ids[:, 7:], cache)
        torch.testing.assert_close(torch.cat([first, rest], 1), plain(ids)[:, 6:])
        again, _ = kind.step(ids[:, 7:9], cache, last=1)  # a cache stays as it is
        torch.testing.assert_close(again, plain(ids)[:, 8:9])
    other = plain.fresh()
    assert other.rnn.dropout == 0.3 and not torch.equal(other.tokens.weight, plain.tokens.weight)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_runs_with_it_or_says_why_not(name: str, written: Path) -> None:
    from gru import GRU

    torch.manual_seed(0)
    objective = own_class(name)()
    reasons = {"any_order": "needs a backbone with", "multi_token": r"needs a backbone with before_norm"}
    if name in reasons:
        with pytest.raises(UserError, match=reasons[name]):
            TaskModule(TASK, backbone(GRU, objective), objective)
        return
    module = TaskModule(TASK, backbone(GRU, objective), objective)
    batch = TASK.sample(4, torch.Generator().manual_seed(0)).long()
    module.objective.loss(module.backbone, batch).total.backward()
    assert module(batch.prompts).shape == batch.answers.shape


def test_sizes_are_checked(written: Path) -> None:
    from gru import GRU

    for key, value in {"depth": 0, "width": -1}.items():
        with pytest.raises(UserError, match=f"model.{key}="):
            GRU(**{"depth": 1, "width": 8, "vocab_size": 24, "max_length": 40, key: value})


@torch.no_grad()
def test_a_mixer_decodes_as_one_pass_does(written: Path) -> None:
    from means import Means  # type: ignore[import-not-found]

    model = Means(depth=2, width=16, vocab_size=24, max_length=40, conv=2)
    ids = torch.randint(24, (3, 12), generator=torch.Generator().manual_seed(0))
    first, cache = model.step(ids[:, :7])
    rest, _ = model.step(ids[:, 7:], cache)
    torch.testing.assert_close(torch.cat([first, rest], 1), model(ids))
