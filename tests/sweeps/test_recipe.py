"""Recipes: chosen by numbers, below the experiment, debug and what is typed, and never in silence."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inside import compose
from omegaconf import OmegaConf

from nextfail.cli.train import main
from nextfail.config import RECIPE
from nextfail.errors import UserError
from nextfail.paths import CONF
from nextfail.sweeps import recipe
from nextfail.sweeps.resolve import resolve

RECIPES = sorted((CONF / "recipe").glob("*.yaml"))
CLAIM = "experiment=pitfalls/failure"


def resolved(*overrides: str) -> tuple[dict[str, Any], list[str]]:
    cfg = compose(*overrides)
    OmegaConf.set_struct(cfg, False)
    return resolve(cfg, Path.cwd(), cfg.pop("hydra"))


def of(*overrides: str) -> dict[str, Any]:
    return resolved(*overrides)[0]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_is_flat_and_whole(file: Path) -> None:
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    assert content.keys() <= {"defaults", "recipe"}
    assert all(re.fullmatch(r"override /\w+(/\w+)?", key) for each in content.get("defaults", []) for key in each)
    recipe.require_whole(file.stem, content["recipe"])
    assert content["recipe"].keys() == RECIPE.keys()


def test_settings_are_chosen_by_numbers_and_not_by_names() -> None:
    by_name = of(CLAIM, "model=mamba", "task=g5_5")
    by_number = of(CLAIM, "model=mamba", "task=path_star", "task.degree=5", "task.path_length=5")
    assert by_name == by_number
    assert by_name["model"]["d_state"] == 16 and by_name["model"]["width"] == 128
    assert by_name["optimizer"]["lr"] == 0.003 and by_name["data"]["train"] is None
    assert of(CLAIM, "model=mamba", "task=g5_5", "task.degree=2")["model"]["d_state"] == 12


def test_both_sides_of_a_comparison_have_the_same_settings() -> None:
    claim = "experiment=pitfalls/teacherless"
    one, other = (of(claim, f"objective={name}", "task=g2_3") for name in ("teacherless", "teacher_forcing"))
    assert {key for key in one if one[key] != other[key]} == {"objective"}


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("trainer.max_steps=7", "trainer.max_steps", 7),
        ("model.d_state=4", "model.d_state", 4),
        ("model.depth=5", "model.depth", 5),
        ("size.depth=5", "model.depth", 5),
        ("model/size=paper", "model.depth", 12),
        ("scheduler=constant", "scheduler._target_", "nextfail.training.optim.constant"),
        ("scheduler.warmup=9", "scheduler.warmup", 9),
        ("name=mine", "name", "mine"),
    ],
)
def test_what_is_typed_wins(typed: str, key: str, value: Any) -> None:
    config = of("experiment=pitfalls/teacherless", "model=mamba", "task=g2_3", typed)
    assert OmegaConf.select(OmegaConf.create(config), key) == value


def test_an_option_does_not_take_what_the_recipe_sets_by_key() -> None:
    """As an experiment's own keys: they hold for whatever option is chosen."""
    assert of(CLAIM, "model=mamba", "optimizer=muon")["optimizer"]["lr"] == 0.01


def test_the_experiment_wins_over_the_recipe_and_debug_over_both(tmp_path: Path) -> None:
    assert of("experiment=demo", "recipe=laptop")["trainer"]["max_steps"] == 16000
    assert of("experiment=demo", "recipe=laptop")["data"]["batch_size"] == 64
    config = of("experiment=demo", "recipe=laptop", "debug=default")
    assert config["trainer"]["max_steps"] == 6 and config["trainer"]["stop_at"] is None and config["name"] == "debug"
    experiment = of("experiment=convolution", "recipe=laptop")  # made from another experiment
    assert experiment["trainer"]["max_steps"] == 16000


def test_nothing_is_said_of_a_run_that_a_recipe_was_made_for() -> None:
    for task in ("g2_3", "g2_4", "g2_5", "g5_5"):
        for model in ("transformer", "mamba"):
            assert resolved(CLAIM, f"task={task}", f"model={model}")[1] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task=g2_6",), "this run has task degree=2 path_length=6, model transformer"),
        (("task.degree=3",), "this run has task degree=3 path_length=5, model transformer"),
        (("model=mamba2",), "this run has task degree=2 path_length=5, model mamba2"),
        (("task=tree",), "this run has task Tree, model transformer"),
    ],
)
def test_another_run_is_told_so(overrides: tuple[str, ...], message: str) -> None:
    (said,) = resolved("recipe=laptop", *overrides)[1]
    assert said.startswith(
        "recipe=laptop was made for task degree=2 path_length=3 or 4 or 5 or degree=5 path_length=5, "
    )
    assert message in said


OWN = """# @package _global_
recipe:
  made_for: {}
  settings:
"""


def composed_from(folder: Path, text: str, *overrides: str) -> tuple[dict[str, Any], list[str]]:
    (folder / "recipe").mkdir(exist_ok=True)
    (folder / "recipe" / "mine.yaml").write_text(text)
    return resolved(f"hydra.searchpath=[file://{folder}]", "recipe=mine", *overrides)


def test_settings_that_an_option_does_not_have_are_left_out_and_named(tmp_path: Path) -> None:
    text = OWN + "    - set: {scheduler: {final: 0.2, warmup: 3}, model: {d_state: 4}}\n"
    config, said = composed_from(tmp_path, text)
    assert config["scheduler"]["warmup"] == 3 and "final" not in config["scheduler"]
    assert said == [
        "recipe=mine sets scheduler.final, which is left out, since constant has no such setting",
        "recipe=mine sets model.d_state, which is left out, since transformer has no such setting",
    ]
    config, said = composed_from(tmp_path, text, "scheduler=cosine", "model=mamba")
    assert config["scheduler"]["final"] == 0.2 and config["model"]["d_state"] == 4 and not said


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("task: {degre: 2}", "recipe=mine has the task degre, which nextfail does not have: did you mean degree?"),
        (
            "model: transfomer",
            "recipe=mine has the model transfomer, which nextfail does not have: did you mean t",
        ),
        ("objective: [revers]", "recipe=mine has the objective revers, which nextfail does not have: did you mean rev"),
    ],
)
def test_a_misspelt_condition_is_told(condition: str, message: str, tmp_path: Path) -> None:
    """It would never be met, in silence."""
    text = f"{OWN}    - {{for: {{{condition}}}, set: {{seed: 3}}}}\n"
    config, said = composed_from(tmp_path, text)
    assert config["seed"] == 0 and len(said) == 1 and said[0].startswith(message)


def test_a_wrong_value_in_a_recipe_is_refused_like_any_other(tmp_path: Path) -> None:
    for entry, message in {
        "{trainer: {max_steps: many}}": "trainer.max_steps='many' is not a whole number",
        "{trainr: {max_steps: 3}}": "unknown key trainr.max_steps: did you mean trainer.max_steps?",
        "{seed: -1}": "seed=-1 is not a whole number",
    }.items():
        with pytest.raises(UserError, match=re.escape(message)):
            composed_from(tmp_path, f"{OWN}    - set: {entry}\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{made_for: {}, settings: [], setings: []}", "recipe=mine: unknown key setings"),
        ("{settings: []}", "recipe=mine has no made_for"),
        ("3", "recipe=mine: 3 is not a section of made_for"),
        ("{made_for: {}}", "recipe=mine has no settings"),
        ("{made_for: {}, settings: {a: 1}}", "recipe=mine: settings={'a': 1} is not a list"),
        ("{made_for: {}, settings: [3]}", "recipe=mine: settings[0] is not an entry"),
        ("{made_for: {}, settings: [{for: {}}]}", "recipe=mine: settings[0] is not an entry"),
        ("{made_for: {}, settings: [{sets: {}}]}", "recipe=mine: settings[0] is not an entry"),
        ("{made_for: {graph: g2_5}, settings: []}", "recipe=mine: made_for={'graph': 'g2_5'} is not a section of task"),
        ("{made_for: {task: g2_5}, settings: []}", "recipe=mine: made_for.task='g2_5' is not a section of the task's"),
        ("{made_for: {}, settings: [{for: 3, set: {}}]}", "recipe=mine: settings[0].for=3 is not a section of task"),
    ],
)
def test_a_malformed_recipe_is_one_message(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        composed_from(tmp_path, f"# @package _global_\nrecipe: {content}\n")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_the_configuration_that_is_shown_is_the_one_that_is_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["nextfail-train", "--cfg", "job", CLAIM, "model=mamba", "--resolve"])
    main()
    shown = OmegaConf.create(capsys.readouterr().out)
    assert shown.model.d_state == 12 and shown.trainer.max_steps == 4000 and shown.model.depth == 2
    assert shown.recipe.made_for


numbers = st.integers(1, 4)


@given(condition=st.lists(numbers, min_size=1, max_size=3), degree=numbers, length=numbers)
def test_a_list_is_any_of_its_entries(condition: list[int], degree: int, length: int) -> None:
    run = {"task": {"degree": degree, "path_length": length}, "model": "mamba"}
    assert recipe.fits({"task": {"degree": condition}}, run) == (degree in condition)
    pairs = [{"degree": each, "path_length": each} for each in condition]
    assert recipe.fits({"task": pairs}, run) == (degree == length and degree in condition)
    assert recipe.fits({}, run) and not recipe.fits({"task": {"depth": 1}}, run)
