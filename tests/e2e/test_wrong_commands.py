"""Wrong configurations, each as a user would type or save it: one line that names the key and what would be right, exit
code 2, and nothing left behind."""

from pathlib import Path

import pytest
from commands import refused

MINE = ("--config-dir", "conf", "experiment=mine")
OWN = ("--config-dir", "conf", "objective=mine")

CLASS = '''
from nextfail.objectives import TeacherForcing

class Mine(TeacherForcing):
    """My own.

    Args:
        rate: how much.
    """

    def __init__(self, rate: float = 0.5, kind: str = "a") -> None:
        super().__init__()
'''


def experiment(text: str) -> dict[str, str]:
    return {"conf/experiment/mine.yaml": f"# @package _global_\n{text}\n"}


def own(text: str) -> dict[str, str]:
    return {"conf/objective/mine.yaml": f"_target_: mine.Mine\n{text}\n", "mine.py": CLASS}


WRONG: list[tuple[str, dict[str, str], str]] = [
    # unknown keys, on the command line
    ("trainer.max_step=5", {}, "unknown key trainer.max_step: did you mean trainer.max_steps"),
    ("+max_steps=5", {}, "unknown key max_steps: did you mean trainer.max_steps?"),
    ("+optimizer.weight_deca=0.1", {}, "unknown key optimizer.weight_deca: did you mean optimizer.weight_decay?"),
    ("model.n_layers=4", {}, "unknown key model.n_layers"),
    ("+model.layer.norm=rms", {}, "unknown key model.layer"),
    ("+learning_rate=0.1", {}, "unknown key learning_rate"),
    ("+trainer.options.profilr=simple", {}, "unknown key trainer.options.profilr: did you mean trainer.options.pro"),
    ("hydra.launcher.njobs=2", {}, "unknown key hydra.launcher.njobs"),
    ("seeds=1", {}, "unknown key seeds: did you mean seed"),
    ("data.val=100", {}, "unknown key data.val: did you mean data.validation?"),
    ("objective.k=3", {}, "unknown key objective.k: objective=multi_token has it"),
    # no keys at all, and several values without -m
    ("reverse", {}, "reverse is neither GROUP=OPTION nor KEY=VALUE: did you mean objective=reverse?"),
    ("seed=0,1", {}, "seed=0,1 names several values: nextfail-train -m trains a run with each, and seed=[...] is"),
    ("objective=reverse,teacherless", {}, "names several values: nextfail-train -m trains a run with each\n"),
    # unknown keys, in a file
    ("mine", experiment("trainer: {max_step: 5}"), "unknown key trainer.max_step: did you mean trainer.max_steps?"),
    ("mine", experiment("optimiser: {lr: 0.1}"), "unknown key optimiser.lr: did you mean optimizer.lr?"),
    ("mine", experiment("data: {sizes: {train: 5}}"), "unknown key data.sizes"),
    ("mine", experiment("callbacks: {progress: {evry: 5}}"), "did you mean callbacks.progress.every?"),
    ("mine", experiment("trainer: {options: {max_epochs: 5}}"), "trainer.options.max_epochs is decided by nextfail"),
    # wrong types
    ("model.depth=true", {}, "model.depth=true is not a whole number of at least 1"),
    ("model.depth=4.5", {}, "model.depth=4.5 is not a whole number of at least 1"),
    ("data.seed=abc", {}, "data.seed='abc' is not a whole number of at least 0"),
    ("optimizer.lr=abc", {}, "optimizer.lr='abc' is not a number of at least 0"),
    ("optimizer.lr=[1,2]", {}, "optimizer.lr=[1, 2] is not a number of at least 0"),
    ("trainer.cuda_graphs=1", {}, "trainer.cuda_graphs=1 is not true or false"),
    ("trainer.stop_at=2", {}, "trainer.stop_at=2 is not a number above 0 and up to 1 or null"),
    ("model.positions=sine", {}, "model.positions='sine' is unknown: choose learned, rope or none"),
    ("seed=-1", {}, "seed=-1 is not a whole number of at least 0"),
    ("mine", experiment("data: {batch_size: lots}"), "data.batch_size='lots' is not a whole number of at least 1"),
    # NaN and infinity
    ("optimizer.lr=nan", {}, "optimizer.lr=nan is not a finite number"),
    ("trainer.gradient_clip=inf", {}, "trainer.gradient_clip=inf is not a finite number"),
    ("optimizer.betas=[0.9,nan]", {}, "optimizer.betas=nan is not a finite number"),
    # missing values
    ("data=files", {}, "data.train_file has no value: give one, as in data.train_file=..."),
    ("model=gpt2", {}, "model.source has no value: give one, as in model.source=..."),
    ("name=null", {}, "name=null is not the name of a folder below runs/"),
    ("~model.width", {}, "model.width is missing: give a value"),
    # groups: a typing error, a wrong option, dropped ones
    ("objective=teacher_forced", {}, "objective=teacher_forced: there is no such option: did you mean teacher_forcing"),
    ("objectiv=reverse", {}, "unknown key objectiv: did you mean objective"),
    ("task=g2_7", {}, "task=g2_7: there is no such option: did you mean g7_7 or g2_8"),
    ("experiment=demos", {}, "experiment=demos: there is no such option: did you mean demo"),
    ("experiment=pitfalls", {}, "experiment=pitfalls: this is a folder of options: choose one of pitfalls/cascade, "),
    ("experiment=leaderboard/mambo", {}, "experiment=leaderboard/mambo: there is no such option: did you mean lead"),
    ("recipe=laptops", {}, "recipe=laptops: there is no such option: did you mean laptop"),
    ("~optimizer", {}, "~optimizer: a group cannot be empty: choose one of adamw, muon"),
    ("model=null", {}, "model=null: a group cannot be empty"),
    ("trainer=", {}, "trainer=: a group cannot be empty"),
    # a user's own class
    ("own", own("rat: 0.5"), "unknown key objective.rat: did you mean objective.rate?"),
    ("own", own("rate: true"), "objective.rate=true is not a number"),
    ("own", own("kind: 3"), "objective.kind=3 is not text"),
    ("own", {"conf/objective/mine.yaml": "_target_: mine.Mine\n"}, "_target_=mine.Mine: there is no module mine"),
    # recipes
    ("recipe", {"conf/recipe/mine.yaml": "settings: []\n"}, "recipe=mine has no made_for"),
    ("recipe", {"conf/recipe/mine.yaml": "made_for: {}\nsetings: []\n"}, "recipe=mine: unknown key setings"),
    # what does not fit together, which is found once the task, the model or the budget is made
    ("task.num_nodes=8", {}, "task.num_nodes=8 is too small for G(2,5): needs at least 9"),
    ("model.heads=5", {}, "model.heads=5 does not divide model.width=96"),
    ("trainer.max_flops=10", {}, "trainer.max_flops=10 is less than one step of this run"),
    ("objective=any_order model=mamba", {}, "AnyOrder needs a backbone with bidirectional, which Mamba does not have"),
    ("scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau ~scheduler.warmup", {}, "ReduceLROnPlateau"),
    ("optimizer._target_=torch.optim.SGD ~optimizer.betas ~optimizer.eps", {}, "an optimizer is made from the module"),
    ("trainer.precision=16-true", {}, "trainer.precision=16-true needs a GPU"),
    ("name=../elsewhere", {}, "name='../elsewhere' is not the name of a folder below runs/"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "files", "message"), WRONG, ids=[typed for typed, *_ in WRONG])
def test_a_wrong_command_is_one_line(typed: str, files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    before = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    named = {"mine": MINE, "own": OWN, "recipe": ("--config-dir", "conf", "recipe=mine")}
    told = refused("train", *named.get(typed, typed.split()), cwd=tmp_path)
    assert message in told and told.count("\n") == 1
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before


def test_there_are_forty_of_them() -> None:
    assert len(WRONG) >= 40
