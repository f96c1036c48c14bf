"""Evaluation of a trained run, on its own test set or on other problems."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from nextfail.config import parse
from nextfail.errors import UserError
from nextfail.runs.folder import RunFolder
from nextfail.tasks.base import Batch, Task
from nextfail.tasks.data import DrawnData, TaskData, fixed_loader
from nextfail.training.load import load, remake_data, remake_task, require_unchanged
from nextfail.training.metrics import AnswerMetrics
from nextfail.training.module import TaskModule
from nextfail.training.rehearsal import record_of
from nextfail.training.sampled import sampled
from nextfail.training.trainer import one_process, quieten


def evaluate(
    folder: RunFolder,
    *,
    checkpoint: str,
    sizes: dict[str, Any] | None,
    ignorable: Collection[str] = (),
    file: Path | None,
    trust: bool,
    samples: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate a run, without executing code that its folder names unless it is trusted.

    Args:
        folder: a run folder.
        checkpoint: "last", "best" or a path.
        sizes: settings of a task of another size.
        ignorable: keys of `sizes` that are ignored where the model fixes them, as it does its labels.
        file: problems in the task's text format, instead of sampled ones.
        trust: whether the user's own classes named in run.json may be imported.
        samples: answers to sample per problem, beside greedy decoding.
        temperature, seed: of the samples.

    Returns:
        The metrics, the outcome, and what was evaluated.

    Raises:
        UserError: the folder, checkpoint, size or file cannot be used; or answers cannot be sampled.
    """
    for name, value, annotation in (
        ("samples", samples, "AtLeast0"),
        ("temperature", temperature, "Positive"),
        ("seed", seed, "AtLeast0"),
    ):
        if refusal := parse(annotation).refusal(name, value):
            raise UserError(refusal)
    quieten()
    one_process()
    run = folder.run()
    module, path, steps = load(folder, checkpoint, trust)
    if sizes is not None:
        fit(module, sizes, ignorable)
    problems = module.task.read(file) if file else own_problems(folder, module.task, trust)
    torch.set_num_threads(run["threads"])
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        precision=folder.identity().settings["precision"],
        plugins=[LightningEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.adapt(trainer.strategy.root_device.type)
    loader = fixed_loader(problems, run["data"].get("eval_batch_size", 1000))
    trainer.test(module, loader, verbose=False)
    task = module.task
    drawn = {}
    if samples:
        module.to(trainer.strategy.root_device)  # Lightning moves it off at the end of a test
        with trainer.precision_plugin.val_step_context():
            drawn = sampled(module.eval(), loader, samples, temperature, seed)
    finite = all(bool(p.isfinite().all()) for p in module.parameters())
    return {
        "identity": run["hash"],
        "model": run["choices"]["model"],
        "objective": run["choices"]["objective"],
        "seed": run["seed"],
        "checkpoint": str(path),
        "steps": steps,
        "problems": str(file) if file else f"{task} test set",
        "task": record_of(task),
        **module.results,
        **drawn,
        "outcome": task.outcome(module.results, finite, module.objective.judged_by),
    }


def fit(module: TaskModule, sizes: dict[str, Any], ignorable: Collection[str] = ()) -> None:
    """Switch a module to problems of another size.

    Args:
        sizes, ignorable: see `evaluate`.

    Raises:
        UserError: they exceed the model's vocabulary or maximum length; or a setting cannot be changed.
    """
    task = module.task.resized(sizes)
    for key in sizes.keys() - ignorable:
        if (now := getattr(task, key)) != sizes[key]:
            raise UserError(f"task.{key}={sizes[key]}: this run's model is for task.{key}={now}")
    needed, most = module.objective.max_length(task), module.backbone.max_length
    if module.backbone.bounded and needed > most:
        raise UserError(f"{task} needs {needed} tokens, and this run's model reads at most {most}")
    module.task = module.objective.task = task
    module.metrics = AnswerMetrics(task)


def own_problems(folder: RunFolder, task: Task, trust: bool) -> Batch:
    """The run's test set or, for another size, one sampled in the same way."""
    run, identity = folder.run(), folder.identity()
    if task != remake_task(folder, trust):
        drawn = identity.classes["data"]["name"] == "drawn"
        settings = {key: identity.settings["data"][key] for key in ("validation", "test", "seed") if drawn}
        data: TaskData = DrawnData(task, run["seed"], train=None, **settings)
    elif test_file := run.get("files", {}).get("test_file"):  # without the other files, which may have moved
        require_unchanged(run, "test_file", test_file)
        return task.read(Path(test_file))
    else:
        data = remake_data(folder, task, trust)
    data.setup()
    assert data.test is not None
    return data.test
