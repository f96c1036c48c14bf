"""One training run from configuration to result.json."""

import copy
import logging
import os
import socket
from typing import Any

import torch

from nextfail import __version__
from nextfail.errors import UserError
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import SCHEMA
from nextfail.runs.lock import Lock
from nextfail.runs.provenance import git_commit, versions
from nextfail.seeding import derive
from nextfail.tasks.data import TaskData
from nextfail.training.build import make_data, make_module, make_task
from nextfail.training.callbacks import Heartbeat, StopAt, StopWhenDiverged
from nextfail.training.checkpoints import Checkpoints, latest_whole, read_checkpoint
from nextfail.training.longer import adopt
from nextfail.training.module import TaskModule
from nextfail.training.rehearsal import Rehearsal, flops_per_step, judged
from nextfail.training.trainer import make_trainer, one_process, quieten

log = logging.getLogger(__name__)


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


def within_budget(settings: dict[str, Any], module: TaskModule, data: TaskData) -> dict[str, Any]:
    """The trainer's settings, with max_steps lowered to what max_flops allows.

    Raises:
        UserError: it does not allow one step.
    """
    most = settings.get("max_flops")
    if most is None:
        return settings
    data.setup()
    here = copy.deepcopy(module)  # on the CPU, where not every implementation of a scan runs
    here.adapt("cpu")
    flops = settings["options"].get("accumulate_grad_batches", 1) * flops_per_step(here, data)
    if flops > most:
        raise UserError(f"trainer.max_flops={most:g} is less than one step of this run, which takes {flops:.2g} FLOPs")
    steps = min(settings["max_steps"], int(most // flops))
    return settings | {"max_steps": steps, "val_every": min(settings["val_every"], steps)}


def _compare_versions(began: dict[str, Any], commit: str | None) -> None:
    """Warn if the run was started by another version of nextfail."""
    then, now = (began.get("version", "of an earlier schema"), began.get("commit")), (__version__, commit)
    if then != now:
        log.warning("started with nextfail %s (commit %s), resumed with %s (commit %s)", *then, *now)
