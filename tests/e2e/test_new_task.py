"""docs/new_task.md, followed literally from an installed wheel: its files, and its commands in its order, in little."""

import json
import re
from pathlib import Path

import pytest
from commands import call

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "new_task.md").read_text()
FILES = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^\$ nextfail-(.+)$", PAGE, re.MULTILINE)
LITTLE = ("trainer.max_steps=4", "trainer.val_every=2", "data.train=64", "data.validation=8", "data.test=8",
          "data.batch_size=4", "model.depth=1", "model.width=16", "optimizer.lr=0.01")  # fmt: skip


def test_from_file_to_table(installed: dict[str, str], tmp_path: Path) -> None:
    assert [name for name, _ in FILES] == ["my_tree.py", "conf/task/my_tree.yaml"]
    for name, content in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert [command.split()[0] for command in COMMANDS] == ["train"] * 3 + ["status", "report"]
    for command in COMMANDS:
        name, *arguments = command.split()
        little = LITTLE if name == "train" and "debug=default" not in arguments else ()
        call(name, *arguments, *little, cwd=tmp_path, env=installed)
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/my_tree/*/result.json")]
    assert sorted(result["objective"] for result in results) == ["reverse", "teacher_forcing", "teacherless"]
    assert all(0 <= result["first_choice_accuracy"]["value"] <= 1 for result in results)
    assert "MyTree" in (tmp_path / "runs/my_tree/report/report.md").read_text()
    header = (tmp_path / "runs/my_tree/report/results.csv").read_text().splitlines()[0]
    assert "first_choice_accuracy" in header and "nodes" in header
