"""Hydra as a launcher meets it."""

from collections.abc import Iterator

import hydra
import pytest
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from nextfail.paths import CONF
from nextfail.sweeps import job  # noqa: F401, registers a resolver


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[HydraContext, DictConfig]]:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        shell: Hydra = GlobalHydra.instance().hydra  # type: ignore[assignment]
        master = shell.compose_config("train", [], run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        HydraConfig.instance().set_config(master)
        yield HydraContext(config_loader=shell.config_loader, callbacks=Callbacks()), master
