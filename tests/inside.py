"""Training inside the test's own process, for what would take too many processes."""

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from nextfail.paths import CONF
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import Identity
from nextfail.sweeps.resolve import resolve
from nextfail.training.run import train


def compose(*overrides: str) -> Any:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=[*overrides], return_hydra_config=True)


def train_here(folder: Path, *overrides: str) -> dict[str, Any]:
    """The result of a run in `folder`, begun or gone on with."""
    cfg = compose(*overrides, "callbacks=none")
    HydraConfig.instance().set_config(cfg)
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    OmegaConf.set_struct(cfg, False)
    config, _ = resolve(cfg, folder, cfg.pop("hydra"))
    run = RunFolder(folder)
    with run.locked() as lock:
        run.claim(Identity.of(config), {"choices": choices, "files": {}}, "resume")
        return train(config, run, lock)
