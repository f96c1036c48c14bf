"""One training run from configuration to result.json."""

import logging
import os
import socket
import warnings
from dataclasses import fields
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.flop_counter import FlopCounterMode

from nextfail import __version__
from nextfail.errors import UserError
from nextfail.files import json_text
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import SCHEMA, leaves
from nextfail.runs.lock import Lock
from nextfail.runs.provenance import git_commit, versions
from nextfail.runs.records import LONGEST, Malformed, Result, parse
from nextfail.seeding import derive
from nextfail.tasks.base import Task
from nextfail.tasks.data import TaskData
from nextfail.training.build import make, make_data, make_module, make_task, require
from nextfail.training.callbacks import Heartbeat, StopAt, StopWhenDiverged
from nextfail.training.checkpoints import Checkpoints, WholeFiles, latest_whole, read_checkpoint
from nextfail.training.csvlog import MetricsFile
from nextfail.training.longer import adopt
from nextfail.training.metrics import AnswerMetrics
from nextfail.training.module import TaskModule

log = logging.getLogger(__name__)
PROFILERS: dict[str, Any] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
EXAMPLES = 8  # test problems stored with the generated answers


def train(config: dict[str, Any], folder: RunFolder, lock: Lock, shorter: RunFolder | None = None) -> dict[str, Any]:
    """Train, evaluate and record the run of a claimed folder; resumes from its checkpoint if there is one.

    Args:
        config: resolved configuration.
        folder: run folder that already has run.json.
        lock: of this folder, held.
        shorter: the same run with a smaller budget, finished, to start from if this one has no checkpoint yet.

    Returns:
        The content of result.json.

    Raises:
        UserError: the configuration cannot be run.
        RunCut: the run was asked to stop, and its state is saved.
    """
    quieten()
    one_process()
    run, commit = folder.run(), git_commit()
    resume, complaints = latest_whole(folder.checkpoints, run["hash"])
    for complaint in complaints:
        log.warning("%s; resuming from the previous one", complaint)
    if shorter and not resume:
        resume = adopt(folder, shorter, run["hash"])
        log.info("continuing %s", shorter.path)
    step = read_checkpoint(resume, run["hash"])["global_step"] if resume else 0
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu = "" if given is None else f", GPU {given}"
    log.info("training from step %d, process %d on %s%s", step, os.getpid(), socket.gethostname(), gpu)
    if resume:
        _compare_versions(run.get("began", {}), commit)
    settings = config["trainer"]
    batches = settings["options"].get("accumulate_grad_batches", 1)
    heartbeat = Heartbeat(folder, batches * config["data"]["batch_size"], step)
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(derive("weights", config["seed"]))
    task = make_task(config)
    data, module = make_data(config, task), make_module(config, task)
    settings = within_budget(settings, module, data)
    diverged = StopWhenDiverged()
    checkpoints = Checkpoints(folder, run["hash"], settings["val_every"], lock, heartbeat.saved)
    rehearsal = Rehearsal(data)
    own = [rehearsal, diverged, StopAt(settings["stop_at"]), heartbeat, checkpoints]
    trainer = make_trainer(config | {"trainer": settings}, folder, own, step)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    steps = trainer.global_step
    trainer.test(module, datamodule=data, verbose=False)
    result = {
        "schema": SCHEMA,
        "identity": run["hash"],
        "model": run["choices"]["model"],
        "objective": run["choices"]["objective"],
        "seed": config["seed"],
        **judged(module, module.results, diverged.finite),
        "parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "steps": steps,
        "samples_seen": steps * batches * data.batch_size,
        "flops": steps * batches * rehearsal.flops_per_step,
        "seconds": heartbeat.seconds,
        "samples_per_second": steps * batches * data.batch_size / heartbeat.seconds if heartbeat.seconds else None,
        "accelerator": trainer.strategy.root_device.type,
        "versions": versions(),
        "git_commit": commit,
    }
    lock.check()
    folder.files.write_json(folder.examples_json.name, rehearsal.examples)
    folder.files.write_json(folder.result_json.name, result)
    heartbeat.write("done", step=steps, exact_match=result["exact_match"]["value"], outcome=result["outcome"])
    folder.files.remove(folder.error_txt.name)
    return result


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
        raise UserError(f"trainer.accelerator={settings['accelerator']}, trainer.precision={settings['precision']}: "
                        f"no trainer can be built here: {error}") from error  # fmt: skip
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


def within_budget(settings: dict[str, Any], module: TaskModule, data: TaskData) -> dict[str, Any]:
    """The trainer's settings, with max_steps lowered to what max_flops allows.

    Raises:
        UserError: it does not allow one step.
    """
    most = settings.get("max_flops")
    if most is None:
        return settings
    data.setup()
    flops = settings["options"].get("accumulate_grad_batches", 1) * flops_per_step(module, data)
    if flops > most:
        raise UserError(f"trainer.max_flops={most:g} is less than one step of this run, which takes {flops:.2g} FLOPs")
    steps = min(settings["max_steps"], int(most // flops))
    return settings | {"max_steps": steps, "val_every": min(settings["val_every"], steps)}


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


class Rehearsal(Callback):
    """Computes everything the result needs once before the first step, so that errors surface before training.

    FLOPs and examples are computed here because Lightning moves the module off its device at the end.

    Args:
        data: of the run.
    """

    def __init__(self, data: TaskData) -> None:
        self.data, self.flops_per_step = data, 0
        self.examples: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule) and self.data.test is not None
        self.flops_per_step = flops_per_step(pl_module, self.data)
        pl_module.eval()
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            batch = self.data.test.rows(slice(2)).long().to(pl_module.device)
            metrics = AnswerMetrics(pl_module.task).to(pl_module.device)
            metrics.update(pl_module.objective.predict(pl_module.backbone, batch), batch)
            measured = judged(pl_module, metrics.compute(), finite=True)
        try:
            rest = {"schema": SCHEMA, "identity": "", "steps": 0, "samples_seen": 0}
            parse("result.json", json_text(rest | measured), Result)
        except (TypeError, Malformed) as error:
            raise UserError(
                f"the metrics of {pl_module.task.title[:LONGEST]} cannot be saved in a result: {error}"
            ) from error
        self.on_test_end(trainer, pl_module)
        pl_module.train()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        with trainer.precision_plugin.val_step_context():  # same precision as the metrics
            self.examples = examples(pl_module, self.data)


def judged(module: TaskModule, metrics: dict[str, Any], finite: bool) -> dict[str, Any]:
    """The part of a result about the task, the metrics and the outcome."""
    by = module.objective.judged_by
    outcome = module.task.outcome(metrics, finite, by)
    return {"task": record_of(module.task), **metrics, "judged_by": by, "outcome": outcome}


def record_of(task: Task) -> dict[str, Any]:
    """The part of a result about the task."""
    settings = {each.name: getattr(task, each.name) for each in fields(task)}  # type: ignore[arg-type]
    return {"name": task.title[:LONGEST], "settings": settings, "hard_position": task.hard_position}


def one_process() -> None:
    """Tell Lightning and its loggers that this run is one process, whatever ranks the environment defines."""
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    rank_zero_only.rank = 0  # type: ignore[attr-defined]


def _compare_versions(began: dict[str, Any], commit: str | None) -> None:
    """Warn if the run was started by another version of nextfail."""
    then, now = (began.get("version", "of an earlier schema"), began.get("commit")), (__version__, commit)
    if then != now:
        log.warning("started with nextfail %s (commit %s), resumed with %s (commit %s)", *then, *now)


def flops_per_step(module: TaskModule, data: TaskData, rows: int = 2) -> int:
    """Floating-point operations of matrix products in one training step, forward and backward, counted on a few rows.

    Torch counts its own operations. Modules with others define `uncounted_flops`, which gets the arguments of their
    forward pass; the backward pass counts twice that, as for matrix products.
    """
    rows = min(rows, data.batch_size)
    batch = data.train_batch(0).rows(slice(rows)).to(module.device)
    others: list[int] = []
    hooks = [
        each.register_forward_pre_hook(lambda owner, given: others.append(owner.uncounted_flops(*given)))
        for each in module.modules()
        if hasattr(each, "uncounted_flops")
    ]
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        module.objective.loss(module.backbone, batch).total.backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()
    module.zero_grad()
    return (counter.get_total_flops() + 3 * sum(others)) * data.batch_size // rows


def examples(module: TaskModule, data: TaskData) -> list[dict[str, Any]]:
    """The first test problems and the model's answers, for figures."""
    assert data.test is not None
    batch = data.test.rows(slice(EXAMPLES)).long()
    decoded = module.objective.generate(module.backbone, batch.prompts.to(module.device), batch.answers.shape[1])
    return module.task.example(batch, decoded.cpu())


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
