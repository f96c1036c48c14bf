"""What README.md tells a newcomer to do works as it stands there."""

import re
from pathlib import Path

from commands import TINY, call

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_new_objective(tmp_path: Path) -> None:
    blocks = dict(re.findall(r"```(python|yaml)\n# ([^\n]*\n.*?)```", README, re.DOTALL))
    name, yaml = blocks["yaml"].split(",", 1)[0], blocks["yaml"]
    (tmp_path / "landmark.py").write_text("# " + blocks["python"])
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("# " + yaml)
    own = re.search(r"nextfail-train (--config-dir conf) (objective=landmark)", README)
    assert own and len(blocks["python"].splitlines()) <= 24
    call("train", *own[1].split(), *TINY, own[2], "hydra.run.dir=run", cwd=tmp_path)
    assert (tmp_path / "run" / "result.json").exists()


def test_every_file_named_in_the_tree_exists() -> None:
    named = re.findall(r"^ {4,6}([\w/]+\.(?:py|md))", README, re.MULTILINE)
    assert len(named) > 10
    for name in named:
        assert (ROOT / "nextfail" / name).exists() or (ROOT / name).exists(), name


def test_every_override_named_is_known(tmp_path: Path) -> None:
    commands = re.findall(r"nextfail-train ((?:[\w./]+=[\w.,/]+ ?)+)", README)
    assert commands
    for arguments in commands:
        overrides = [text for text in arguments.split() if "," not in text]
        call("train", "--cfg", "job", *overrides, cwd=tmp_path)
