"""A job of a sweep gets what Hydra itself would compose for it."""

import pytest
from hydra.errors import HydraException
from hydra.types import HydraContext
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, read_write

from nextfail.cli.common import named_task
from nextfail.paths import CONF
from nextfail.sweeps.compose import Composer

GROUPS = ["objective=reverse", "task=g2_4", "model=mamba", "data=online", "experiment=demo", "debug=default",
          "hydra/launcher=slurm", "model/size=readme"]  # fmt: skip
VALUES = ["seed=3", "optimizer.lr=0.1", "trainer.max_steps=7", "model.depth=2", "trainer.stop_at=null", "name=x",
          "hydra.verbose=true", "+model.more=1", "++optimizer.lr=0.2", "~trainer.stop_at", "data.seed=${seed}",
          "callbacks.progress.every=1", "optimizer.lr=1e-3", "name='a=b,c'"]  # fmt: skip


def plain(config: DictConfig) -> dict[str, object]:
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    content["hydra"]["job"].pop("override_dirname")  # type: ignore[index]
    return content  # type: ignore[return-value]


groups = st.lists(st.sampled_from(GROUPS), max_size=2, unique=True)
values = st.lists(st.sampled_from(VALUES), max_size=3, unique=True)


@settings(max_examples=12, phases=[Phase.explicit, Phase.generate])  # to shrink an example would take minutes
@given(st.lists(st.tuples(groups, values), min_size=1, max_size=3))
def test_as_hydra_composes(made: tuple[HydraContext, DictConfig], jobs: list[tuple[list[str], list[str]]]) -> None:
    context, master = made
    composer = Composer(context, master)
    for choices, sets in jobs * 2:  # the second time from a copy
        overrides = choices + sets
        try:
            expected = plain(context.config_loader.load_sweep_config(master, overrides))
        except HydraException:
            with pytest.raises(HydraException):
                composer.compose(overrides)
            continue
        assert plain(composer.compose(overrides)) == expected


@pytest.mark.parametrize(
    "later",
    ["++seed=5", "++trainer={max_steps: 4}", "++trainer.max_steps=4", "++optimizer={lr: 0.5}", "~optimizer.eps"],
)
def test_the_order_of_overrides_counts(made: tuple[HydraContext, DictConfig], later: str) -> None:
    context, master = made
    composer = Composer(context, master)
    for seed in (1, 2, 3):
        values = [f"seed={seed}", f"trainer.max_steps={seed}", f"optimizer.lr={seed}"]
        for overrides in ([*values, later], [later, *values]):
            expected = plain(context.config_loader.load_sweep_config(master, overrides))
            assert plain(composer.compose(overrides)) == expected


def test_values_alone_are_composed_once(made: tuple[HydraContext, DictConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    context, master = made
    calls = []
    real = context.config_loader.load_sweep_config
    monkeypatch.setattr(context.config_loader, "load_sweep_config", lambda *given: calls.append(1) or real(*given))
    composer = Composer(context, master)
    names = ("reverse", "teacherless")
    seeds = [composer.compose([f"seed={seed}", f"objective={name}"]) for seed in range(5) for name in names]
    assert [config.seed for config in seeds] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and len(calls) == 2
    assert all(config.hydra.overrides.task == [f"seed={config.seed}", f"objective={name}"]
               for config, name in zip(seeds, names * 5, strict=True))  # fmt: skip


def test_no_copy_where_hydra_names_the_folder(made: tuple[HydraContext, DictConfig]) -> None:
    context, master = made
    master = master.copy()
    with read_write(master.hydra):
        master.hydra.sweep.subdir = "${hydra.job.override_dirname}"
    composer = Composer(context, master)
    assert [composer.compose([f"seed={seed}"]).hydra.job.override_dirname for seed in (1, 2)] == ["seed=1", "seed=2"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "task").glob("*.yaml")))
def test_a_task_that_a_plain_command_reads_is_what_hydra_composes(
    made: tuple[HydraContext, DictConfig], name: str
) -> None:
    composed = OmegaConf.to_container(Composer(*made).compose([f"task={name}"]).task)
    assert named_task(name, [], whole=True) == composed
    assert isinstance(composed, dict)
    assert named_task(name, [], whole=False).items() <= composed.items()
