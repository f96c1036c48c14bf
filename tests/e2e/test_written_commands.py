"""Every command that README, docs/, RESULTS and conf/ tell a user to type is one that works as it stands there.

Sweeps are planned to the last job and single runs are composed, checked and identified; then what trains is left out.
Commands that need nothing but a run folder or a file are run.
"""

import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, call
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from tiny import make_model

from nextfail.cli import train
from nextfail.paths import CONF
from nextfail.reports.collect import Collection
from nextfail.runs.identity import Identity
from nextfail.studies.pitfalls.claims import CLAIMS, cells
from nextfail.sweeps import job, sweep
from nextfail.sweeps.resolve import choices, resolve

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "MODEL_CARD.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = "|".join(f"nextfail-{name}" for name in ("train", "eval", "data", "report", "status"))


def in_page(text: str) -> Iterator[str]:
    """Commands of a page: lines of code, and whole spans of code between backticks."""
    joined = re.sub(r"\\\n\s*", " ", text)
    yield from re.findall(rf"^(?:    |\$ )((?:{NAMES})\b[^\n]*)", joined, re.MULTILINE)
    yield from re.findall(rf"`((?:{NAMES})(?: [^`]*)?)`", " ".join(joined.split()))


def in_file(text: str) -> Iterator[str]:
    """Commands in the comments before the first key of a YAML file, each at the end of its line or sentence."""
    for line in itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()):
        yield from re.findall(rf"((?:{NAMES}) .*)$", line)


def plain(command: str) -> str:
    """Without a comment behind it and the dots at its end."""
    return re.sub(r"\s+#.*|\s+\.\.\.$|[.:]$", "", command.strip())


GRAMMAR = re.compile(r"[\[\]{}…|]|\bFOLDER\b(?!$)|\bNAME\b|\bPATH\b")
"""Of commands that show what can be typed rather than what to type."""

CLAIMED = [cell.command for claim in CLAIMS for cell in cells(claim, Collection([], []))]
IN_PAGES = list(dict.fromkeys(plain(command) for page in PAGES for command in in_page(page.read_text())))
ELSEWHERE = list(dict.fromkeys([
    *(plain(command) for command in in_page((ROOT / "RESULTS.md").read_text()) if "=..." not in command),
    *(plain(command) for file in sorted(CONF.rglob("*.yaml")) for command in in_file(file.read_text())),
    # of the page of claims one for each claim, scale and model
    *{tuple(part for part in command.split() if not part.startswith("task")): command for command in CLAIMED}.values(),
]))  # fmt: skip


def trains(command: str) -> bool:
    return command.split()[0] == "nextfail-train" and not re.search(r"[…{]|KEY=VALUE|[=/]NAME", command)


TRAIN = [command for command in IN_PAGES if trains(command)]
TRAIN_ELSEWHERE = [command for command in ELSEWHERE if trains(command) and command not in TRAIN]
OTHER = [command for command in IN_PAGES if not command.startswith("nextfail-train") and not GRAMMAR.search(command)]


def test_enough_is_looked_at() -> None:
    assert len(TRAIN) > 12 and len(TRAIN_ELSEWHERE) > 80 and len(OTHER) > 4
    for command in ("nextfail-train", "nextfail-train experiment=search", "nextfail-train experiment=leaderboard/mamba",
                    "nextfail-train --config-dir conf objective=landmark"):  # fmt: skip
        assert command in TRAIN


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that a command may name: data files, a model, and the files of the pages' examples."""
    for page in PAGES:
        for name, content in re.findall(
            r"```(?:python|yaml)\n# ([\w./]+)[^\n]*\n(.*?)```", page.read_text(), re.DOTALL
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything up to the moment in which a run or its process would begin."""

    def claimed(cfg: Any) -> Any:
        config, _ = resolve(cfg, Path.cwd(), HydraConfig.get())
        choices(HydraConfig.get(), config)
        job.require_in_run(HydraConfig.get())
        Identity.of(config)
        result = {"exact_match": {"value": 0.0, "low": 0.0, "high": 0.0}, "cheat_accuracy": None, "outcome": "none"}
        said = {"task": {"name": ""}, "seed": config["seed"], "model": "", "objective": ""}
        return result | said, job.RunFolder(Path.cwd())

    class Executor:
        def __init__(self, folder: Path) -> None: ...

        def update_parameters(self, **parameters: Any) -> None: ...

    monkeypatch.setattr(job, "claim_and_train", claimed)
    monkeypatch.setattr(sweep.Sweep, "run", lambda self: None)
    monkeypatch.setattr(sweep, "_finished", [])
    monkeypatch.setattr("submitit.SlurmExecutor", Executor)


@pytest.mark.parametrize(
    "command", [*TRAIN, *(pytest.param(command, marks=pytest.mark.slow) for command in TRAIN_ELSEWHERE)], ids=str
)
def test_it_composes(
    command: str,
    folder: Path,
    nothing_trains: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = shlex.split(command)[1:]
    if any(text.endswith("FOLDER") or text == "model=gpt2" for text in arguments):
        make_model(folder / "FOLDER", longest=400)
    if "model=gpt2" in arguments and not any(text.startswith("model.source") for text in arguments):
        arguments.append("model.source=FOLDER")
    if "data=files" in arguments and len(arguments) == 1:
        arguments += ["data.train_file=a.txt", "data.test_file=b.txt"]
    monkeypatch.setattr(sys, "argv", ["nextfail-train", *arguments])
    GlobalHydra.instance().clear()
    code: object = 0
    try:
        train.main()
    except SystemExit as leaving:
        code = leaving.code
    told = capsys.readouterr()
    jobs = sweep._finished
    assert not [each for each in jobs if each.state == "refused"], told.err
    assert code in ((1,) if jobs else (0, None)), f"{code}\n{told.out}\n{told.err}"  # 1: planned jobs were not done
    assert "Traceback" not in told.err


def test_the_other_commands_run(run_folder: Path, tmp_path: Path) -> None:
    """On one run and one file in place of those that the pages made before."""
    call("train", *TINY, "trainer.max_steps=2", "hydra.run.dir=runs/default/plain", cwd=tmp_path)
    for command in OTHER:
        name, *arguments = shlex.split(command)
        arguments = [re.sub(r"^runs/(?!default/plain).*|^RUN$|^FOLDER$", "runs/default", text) for text in arguments]
        if name == "nextfail-eval":
            arguments[0] = "runs/default/plain"
        if "--watch" not in arguments:
            call(name.removeprefix("nextfail-"), *arguments, cwd=tmp_path)
