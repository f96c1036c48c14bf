"""Lightning's Trainer and loggers for a configuration."""

import logging
import os
import warnings
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.utilities import rank_zero_only

from nextfail.errors import UserError
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import leaves
from nextfail.training.build import make, require
from nextfail.training.checkpoints import WholeFiles
from nextfail.training.csvlog import MetricsFile

PROFILERS: dict[str, Any] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def make_trainer(config: dict[str, Any], folder: RunFolder, own: list[Any], resume_step: int) -> L.Trainer:
    """A Lightning Trainer for the configuration that leaves files to nextfail."""
    settings = config["trainer"]
    loggers = [MetricsFile(folder, resume_step)]
    loggers += [make_logger(name, spec, config, folder) for name, spec in config["logger"].items() if spec]
    more = [require(f"callbacks.{name}", make(f"callbacks.{name}", spec), Callback)
            for name, spec in config["callbacks"].items() if spec]  # fmt: skip
    try:
        trainer = _trainer(settings, folder, loggers, own + more)
    except (ValueError, TypeError, MisconfigurationException) as error:
        hint = "" if settings["accelerator"] in ("cpu", "auto") else " (trainer=cpu runs everywhere)"
        raise UserError(f"trainer.accelerator={settings['accelerator']}, trainer.precision={settings['precision']}: "
                        f"no trainer can be built here: {error}{hint}") from error  # fmt: skip
    if settings["precision"].startswith("16") and trainer.strategy.root_device.type == "cpu":
        raise UserError(f"trainer.precision={settings['precision']} needs a GPU, and there is none: choose bf16-mixed")
    return trainer


def _trainer(settings: dict[str, Any], folder: RunFolder, loggers: list[Any], callbacks: list[Any]) -> L.Trainer:
    options = dict(settings["options"])
    if "profiler" in options:
        options["profiler"] = PROFILERS[options["profiler"]](dirpath=folder.path, filename="profile")
    batches = options.get("accumulate_grad_batches", 1)
    return L.Trainer(
        accelerator=settings["accelerator"],
        devices=1,
        precision=settings["precision"],
        max_steps=settings["max_steps"],
        max_epochs=-1,
        val_check_interval=batches * settings["val_every"],  # Lightning counts in batches
        check_val_every_n_epoch=None,
        gradient_clip_val=settings["gradient_clip"],
        num_sanity_val_steps=0,
        logger=loggers,
        callbacks=callbacks,
        # a run is one process, also inside a SLURM job; nextfail does the requeueing
        plugins=[LightningEnvironment(), WholeFiles()],
        default_root_dir=folder.path,
        enable_checkpointing=True,  # by the Checkpoints callback
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def make_logger(name: str, spec: dict[str, Any], config: dict[str, Any], folder: RunFolder) -> Any:
    """A logger that has the run's whole configuration, as dotted keys, and its name.

    In its string settings, {id} is replaced by the run's id, which is kept on resuming, and {run} by its folder's name.

    Raises:
        UserError: as for `make`.
    """
    began = str(folder.run().get("began", {}).get("id", ""))
    names = {"{id}": "".join(filter(str.isalnum, began)), "{run}": folder.path.name}
    for key, value in spec.items():
        for mark, text in names.items():
            if isinstance(value, str):
                spec = spec | {key: (value := value.replace(mark, text))}
    logger = require(f"logger.{name}", make(f"logger.{name}", spec), Logger)
    settings = leaves({key: value for key, value in config.items() if key not in ("logger", "callbacks")})
    logger.log_hyperparams({"run": folder.path.name, **dict(settings)})
    return logger


def one_process() -> None:
    """Tell Lightning and its loggers that this run is one process, whatever ranks the environment defines."""
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    rank_zero_only.rank = 0  # type: ignore[attr-defined]


def quieten() -> None:
    """Silence Lightning's advice that does not apply: sampling takes well under a millisecond per problem."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*exists and is not empty.*",
        ".*max_epochs.*",
        ".*`srun` command.*",
        ".*AccumulateGrad node's stream.*",  # from torch.cuda.make_graphed_callables
    ):
        warnings.filterwarnings("ignore", text)
