"""Every mistake in a configuration is one message that names the key, before anything heavy is imported."""

import difflib
import subprocess
import sys
from typing import Any

import pytest
from inside import compose
from omegaconf import OmegaConf

from nextfail.config import SUPPORTED, TRAINER
from nextfail.errors import UserError
from nextfail.runs.identity import SECTIONS
from nextfail.sweeps.check import INSTEAD, TOP_LEVEL, check, unknown


def composed(*overrides: str) -> dict[str, Any]:
    """A configuration before it is checked."""
    cfg = compose(*overrides)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    content = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(content, dict)
    return content  # type: ignore[return-value]


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        check(composed(*overrides))
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+lr=0.1", "unknown key lr: did you mean optimizer.lr?"),
        ("++trainr.max_steps=5", "unknown key trainr.max_steps: did you mean trainer.max_steps?"),
        ("+optimiser.lr=0.5", "unknown key optimiser.lr: did you mean optimizer.lr?"),
        ("+optimiser={lr: 0.5, eps: 1}", "unknown key optimiser.lr: did you mean optimizer.lr?"),
        ("+optimiser={}", "unknown key optimiser: did you mean"),
        ("+model.heds=2", "unknown key model.heds: did you mean model.heads?"),
        ("+data.btach_size=2", "unknown key data.btach_size: did you mean data.batch_size"),
        ("+optimizer.learning_rate=1", "unknown key optimizer.learning_rate"),
        ("+objective.k=3", "unknown key objective.k: objective=multi_token has it"),
        ("+model.layers=3", "unknown key model.layers: model=hybrid has it"),
        ("+task.nodes=9", "unknown key task.nodes: did you mean task.num_nodes? task=tree has it"),
        ("+graph.num_nodes=9", "unknown key graph.num_nodes: did you mean task.num_nodes?"),
        ("+graph=g2_4", "unknown key graph: the graph is a task now: choose task=NAME, or set task.KEY"),
        ("+data.query=before", "unknown key data.query: did you mean task.query?"),
        ("+size.dept=9", "unknown key size.dept: did you mean size.depth"),
        ("+callbacks.progress.evry=1", "unknown key callbacks.progress.evry: did you mean callbacks.progress.every?"),
        ("+trainer.gradient_clip_val=1", "unknown key trainer.gradient_clip_val: did you mean trainer.gradient_clip?"),
        (
            "+trainer.options.profilr=simple",
            "unknown key trainer.options.profilr: did you mean trainer.options.prof",
        ),
        ("+trainer.options.devices=4", "trainer.options.devices is decided by nextfail: a run uses one device"),
        (
            "+trainer.options.max_epochs=4",
            "trainer.options.max_epochs is decided by nextfail: training is measured",
        ),
        ("+trainer.options.logger=true", "trainer.options.logger is decided by nextfail: choose logger=NAME"),
        (
            "+trainer.limit_val_batches=2",
            "unknown key trainer.limit_val_batches: did you mean trainer.options.limit",
        ),
        ("+trainer.devices=4", "unknown key trainer.devices: a run uses one device"),
        ("+devices=4", "unknown key devices: a run uses one device"),
        ("+trainer.max_epochs=4", "unknown key trainer.max_epochs: training is measured in steps"),
        ("+batch_size=4", "unknown key batch_size: set data.batch_size"),
        ("+model.vocab_size=9", "unknown key model.vocab_size"),
        ("+data.run_seed=9", "unknown key data.run_seed"),
        ("+zzz.qqq=1", "unknown key zzz.qqq: nextfail-train --cfg job lists all keys"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_right_one(override: str, message: str) -> None:
    assert message in refused(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=nan", "optimizer.lr=nan is not a finite number"),
        ("optimizer.betas=[0.9,inf]", "optimizer.betas=inf is not a finite number"),
        ("trainer.stop_at=nan", "trainer.stop_at=nan is not a finite number"),
        ("trainer.gradient_clip=inf", "trainer.gradient_clip=inf is not a finite number"),
        ("seed=nan", "seed=nan is not a finite number"),
        ("optimizer.lr=null", "optimizer.lr=null is not a number"),
        ("optimizer.lr=abc", "optimizer.lr='abc' is not a number"),
        ("optimizer.lr=true", "optimizer.lr=true is not a number"),
        ("model.depth=true", "model.depth=true is not a whole number"),
        ("model.depth=2.5", "model.depth=2.5 is not a whole number"),
        ("model.depth=null", "model.depth=null is not a whole number"),
        ("data.seed=abc", "data.seed='abc' is not a whole number"),
        ("data.train=many", "data.train='many' is not a whole number of at least 1 or null"),
        ("task.query=3", "task.query=3 is unknown: choose after or before"),
        ("task.degree=two", "task.degree='two' is not a whole number"),
        ("~model.depth", "model.depth is missing: give a value"),
        ("~task.degree", "task.degree is missing: give a value"),
        ("~trainer.threads", "trainer.threads is missing"),
        ("~seed", "seed has no value"),
        ("~on_existing", "on_existing has no value"),
        ("seed=null", "seed has no value"),
        ("seed=1.5", "seed=1.5 is not a whole number of at least 0"),
        ("name=null", "name has no value"),
        ("name=''", "name='' is not the name of a folder"),
        ("name=..", "name='..' is not the name of a folder"),
        ("name=../x", "name='../x' is not the name of a folder below runs/"),
        ("name=a/../../x", "is not the name of a folder below runs/"),
        ("name=/elsewhere/x", "is not the name of a folder below runs/"),
        ("name=3", "name=3 is not the name of a folder"),
        ("on_existing=maybe", "choose resume, restart or fail"),
        ("trainer.accelerator=tpu", "trainer.accelerator='tpu' is unknown: choose cpu, gpu, cuda, mps or auto"),
        ("trainer.accelerator=null", "trainer.accelerator=null is unknown"),
        ("trainer.threads=1000000", "trainer.threads=1000000 is not a whole number from 1 to 1024"),
        ("trainer.threads=0", "trainer.threads=0 is not a whole number from 1 to 1024"),
        ("trainer.precision=16-true", "trainer.precision=16-true needs a GPU"),
        ("trainer.precision=16", "trainer.precision=16-mixed is not supported, since it would scale gradients"),
        ("trainer.precision=16-mixed", "trainer.precision=16-mixed is not supported"),
        ("trainer.precision=null", "trainer.precision=null is unknown"),
        ("trainer.precision=fp8", "trainer.precision='fp8' is unknown"),
        (
            "trainer.options.profiler=fast",
            "trainer.options.profiler='fast' is unknown: choose simple, advanced",
        ),
        ("trainer.options.deterministic=yes", "trainer.options.deterministic='yes' is not true or false, warn or null"),
        ("trainer.options.limit_val_batches=-1", "trainer.options.limit_val_batches=-1 is not a whole number"),
        ("trainer.options.limit_val_batches=0", "limit_val_batches=0 is not a whole number of at least 1 or null"),
        (
            "trainer.options.limit_test_batches=0.5",
            "limit_test_batches=0.5 is not a whole number of at least 1 or null",
        ),
        ("trainer.options.accumulate_grad_batches=0", "accumulate_grad_batches=0 is not a whole number of at least 1"),
        ("trainer.options=3", "trainer.options=3 is not a group of settings"),
        ("trainer.val_every=0", "trainer.val_every=0 is not a whole number of at least 1"),
        ("objective._target_=null", "objective has no _target_"),
        ("objective._target_=''", "objective._target_=: there is no module"),
        ("objective._target_=.mine.Mine", "objective._target_=.mine.Mine: there is no module"),
        ("callbacks.progress=3", "callbacks.progress=3 is not a group of settings with a _target_"),
        ("+logger.mine=[a]", "logger.mine=['a'] is not a group of settings with a _target_"),
        ("+logger.mine={a: b}", "logger.mine has no _target_"),
        ("~optimizer", "optimizer has no value"),
    ],
)
def test_values_are_refused_by_name(override: str, message: str) -> None:
    assert message in refused(override)


@pytest.mark.parametrize("problems", ["0", "-1", "2.5", "null"])
def test_callbacks_state_their_types_as_well(problems: str) -> None:
    told = refused("callbacks=train_set", f"callbacks.train_set.problems={problems}")
    assert told == f"callbacks.train_set.problems={problems} is not a whole number of at least 1"


@pytest.mark.parametrize("section", [*SECTIONS, "trainer", "name", "on_existing"])
@pytest.mark.parametrize("value", [None, "absent"])
def test_every_section_that_is_needed_is_asked_for(section: str, value: str | None) -> None:
    config = composed()
    if value is None:
        config[section] = None
    else:
        del config[section]
    with pytest.raises(UserError, match=f"^{section} has no value: give one"):
        check(config)


@pytest.mark.parametrize("section", ["callbacks", "logger", "vars", "size"])
def test_what_may_be_absent_counts_as_empty(section: str) -> None:
    for value in (None, {}):
        config = composed() | {section: value}
        check(config)
        assert config[section] == {}
    config = composed()
    config.pop(section, None)
    check(config)
    with pytest.raises(UserError, match=f"{section}=3 is not a group of settings"):
        check(composed() | {section: 3})


def test_free_values_have_a_section() -> None:
    check(composed("+vars.steps_by_length={l3: 4000}", "+vars.anything.at.all=1"))


def test_one_spelling_is_recorded() -> None:
    for spelled, meant in {"32": "32-true", "bf16": "bf16-mixed", "64": "64-true", "bf16-true": "bf16-true"}.items():
        check(config := composed(f"trainer.precision={spelled}"))
        assert config["trainer"]["precision"] == meant and meant in SUPPORTED
    check(config := composed("trainer.max_steps=50"))
    assert config["trainer"]["val_every"] == 50


@pytest.mark.parametrize("accelerator", TRAINER["accelerator"].type.kinds[0].choices)
def test_half_precision_is_refused_where_it_is_known_to_be_a_cpu(accelerator: str) -> None:
    overrides = (f"trainer.accelerator={accelerator}", "trainer.precision=16-true")
    if accelerator == "cpu":
        assert "needs a GPU" in refused(*overrides)
    else:
        check(composed(*overrides))


def test_a_class_that_cannot_be_read_takes_any_key() -> None:
    check(composed("+logger.mine={_target_: lightning.pytorch.loggers.WandbLogger, whatever: 1}"))
    check(composed("+callbacks.mine={_target_: torch.no.Thing, a: 1}"))
    assert "there is no module nowhere" in refused("+callbacks.mine={_target_: nowhere.Thing, a: 1}")


@pytest.mark.parametrize("leaf", INSTEAD)
def test_keys_of_other_programs_are_not_ours(leaf: str) -> None:
    assert leaf not in TOP_LEVEL and str(unknown(f"trainer.{leaf}", [])).startswith(f"unknown key trainer.{leaf}: ")


def test_the_nearest_key_is_near() -> None:
    known = ["optimizer.lr", "optimizer.eps", "model.depth", "data.seed", "seed"]
    for key, right in {"optimizer.l": "optimizer.lr", "model.dpeth": "model.depth", "sead": "seed"}.items():
        assert right in str(unknown(key, known))
        assert difflib.get_close_matches(key, known)


def test_torch_is_not_imported() -> None:
    code = "import sys; from nextfail.sweeps import check; print({'torch', 'lightning'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
