"""docs/new_objective.md, followed literally: its files, and its commands in its order, with a small budget."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "new_objective.md").read_text()
FILES = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
LITTLE = ("trainer.max_steps=2", "trainer.val_every=1", "data.train=64", "data.validation=8", "data.test=8",
          "data.batch_size=4", "model.depth=1", "model.width=16")  # fmt: skip


def test_from_file_to_leaderboard_row(tmp_path: Path) -> None:
    assert [name for name, _ in FILES] == ["landmark.py", "conf/objective/landmark.yaml"]
    for name, content in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert len(FILES[0][1].splitlines()) <= 25
    assert [command.split()[0] for command in COMMANDS] == ["nextfail-train", "nextfail-train", "nextfail-report"]
    for command in COMMANDS:
        name, *arguments = command.split()
        more = LITTLE if "experiment=leaderboard" in arguments else ()
        script = Path(sys.executable).with_name(name)
        done = subprocess.run([script, *arguments, *more], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    report = (tmp_path / "runs/leaderboard/report/report.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| landmark | transformer |")]
    assert len(rows) == 2  # what it scored and what it took
    assert all(
        len(list(tmp_path.glob(f"runs/leaderboard/*{name}*/result.json"))) == 3 for name in ("landmark", "teacher")
    )
