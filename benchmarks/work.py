"""The workload of benchmarks: the parts of a run as `nextfail-train` composes them, without Lightning."""

from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf

from nextfail.paths import CONF
from nextfail.sweeps.resolve import resolve
from nextfail.tasks import Batch
from nextfail.training.build import make_data, make_module, make_task
from nextfail.training.optim import schedule


def compose(*overrides: str) -> dict[str, Any]:
    """The configuration of `nextfail-train OVERRIDES`."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", list(overrides), return_hydra_config=True)
    OmegaConf.set_struct(cfg, False)
    return resolve(cfg, Path.cwd(), cfg.pop("hydra"))[0]


class Work:
    """Module, data, optimizer and scheduler of `nextfail-train OVERRIDES`, and training steps with them.

    Args:
        overrides: overrides of the command.
        device: device of module and batch.
    """

    def __init__(self, *overrides: str, device: str = "cpu") -> None:
        config = compose(*overrides)
        self.task = make_task(config)
        self.data = make_data(config, self.task)
        self.data.setup()
        self.module = make_module(config, self.task).to(device)
        assert self.module.make_optimizer is not None and self.module.make_scheduler is not None
        self.optimizer = self.module.make_optimizer(self.module)
        self.schedule = schedule(self.module.make_scheduler, self.optimizer, config["trainer"]["max_steps"])
        self.clip = config["trainer"]["gradient_clip"]
        self.batch = self.data.train_batch(0).to(device)

    def step(self, batch: Batch | None = None, bf16: bool = False) -> None:
        """One optimizer step; by default on the same batch each time."""
        with torch.autocast(self.module.device.type, torch.bfloat16, enabled=bf16):
            loss = self.module.training_step(batch or self.batch, 0)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()

    @torch.no_grad()
    def evaluate(self) -> None:
        """Compute all metrics on the test set."""
        for batch in self.data.test_dataloader():
            self.module.validation_step(batch, 0)
        self.module.metrics.compute()
        self.module.metrics.reset()
