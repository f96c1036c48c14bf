"""Metrics of a trained run, on its own test set or on other problems."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from nextfail.errors import UserError
from nextfail.models.backbone import Backbone
from nextfail.runs.folder import RunFolder
from nextfail.runs.outcome import judge
from nextfail.tasks.data import DrawnData, PathStarData, fixed_loader
from nextfail.tasks.path_star import textfile
from nextfail.tasks.path_star.graph import Batch, PathStar
from nextfail.tasks.path_star.layout import CHOICES, PUBLISHED
from nextfail.training.build import make_graph, remake_data, remake_module, require_unchanged
from nextfail.training.checkpoints import BEST, LAST, read_checkpoint
from nextfail.training.metrics import PathMetrics
from nextfail.training.module import PathStarModule
from nextfail.training.run import one_process, quieten


def evaluate(
    folder: RunFolder, *, checkpoint: str, sizes: dict[str, int] | None, file: Path | None, trust: bool
) -> dict[str, Any]:
    """Evaluate a run without running any code that its folder names.

    Args:
        folder: a run folder.
        checkpoint: "last", "best" or a path.
        sizes: degree and path_length of other problems than the run's; labels are always the run's.
        file: problems in the published text format, instead of drawn ones.
        trust: whether classes of the user's own may be imported, as named by run.json.

    Returns:
        The metrics, the outcome, and what was evaluated.

    Raises:
        UserError: the folder, checkpoint, size or file cannot be used.
    """
    quieten()
    one_process()
    run = folder.run()
    module = remake_module(folder, trust)
    named = {"last": folder.checkpoints / LAST, "best": folder.checkpoints / BEST}
    path = named.get(checkpoint, Path(checkpoint))
    state = read_checkpoint(path, run["hash"])
    module.load_state_dict(state["state_dict"])
    if sizes is not None:
        fit(module, sizes)
    problems = read_problems(run, module.graph, file) if file else own_problems(folder, module.graph, trust)
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
    for each in module.modules():
        if isinstance(each, Backbone):
            each.adapt(trainer.strategy.root_device.type)
    trainer.test(module, fixed_loader(problems, run["data"].get("eval_batch_size", 1000)), verbose=False)
    graph = module.graph
    finite = all(bool(p.isfinite().all()) for p in module.parameters())
    return {
        "identity": run["hash"],
        "model": run["choices"]["model"],
        "objective": run["choices"]["objective"],
        "seed": run["seed"],
        "checkpoint": str(path),
        "steps": state["global_step"],
        "problems": str(file) if file else f"{graph} test set",
        "graph": {"degree": graph.degree, "path_length": graph.path_length, "num_nodes": graph.num_nodes},
        **module.results,
        "outcome": judge(module.results, finite, module.objective.hard_token_alone),
    }


def fit(module: PathStarModule, sizes: dict[str, Any]) -> None:
    """Turn a module to problems of another size, with the labels that it knows.

    Raises:
        UserError: the model's vocabulary or length does not hold them.
    """
    labels = module.graph.num_nodes
    graph = PathStar(**sizes)
    if graph.size > labels:
        raise UserError(f"{graph} has {graph.size} nodes, and this run knows only {labels} labels")
    graph = replace(module.graph, degree=graph.degree, path_length=graph.path_length)
    needed, most = module.objective.max_length(graph), module.backbone.max_length
    if needed > most:
        raise UserError(f"{graph} needs {needed} tokens, and this run's model reads at most {most}")
    module.graph = module.objective.graph = graph
    module.metrics = PathMetrics(graph, module.backbone.vocab_size)


def read_problems(run: dict[str, Any], graph: PathStar, file: Path) -> Batch:
    """The problems of a text file, their edges as they stand there, with the query where the run has it."""
    prompts, paths = textfile.load(file, graph)
    return Batch(graph.vocab.layout(*graph.vocab.split(prompts), run["data"].get("query", PUBLISHED.query)), paths)


def own_problems(folder: RunFolder, graph: PathStar, trust: bool) -> Batch:
    """The run's test set; or, for another size, one drawn as the run's would be."""
    run, identity = folder.run(), folder.identity()
    if graph != make_graph(run):
        drawn = identity.classes["data"]["name"] == "drawn"
        keys = ("validation", "test", "seed", *CHOICES) if drawn else ()
        settings = {key: identity.settings["data"][key] for key in keys}
        data: PathStarData = DrawnData(graph, run["seed"], train=None, edges_as=graph.edges_as, **settings)
    elif test_file := run.get("files", {}).get("test_file"):  # without the others, which may be elsewhere by now
        require_unchanged(run, "test_file", test_file)
        return textfile.load(Path(test_file), graph)
    else:
        data = remake_data(folder, graph, trust)
    data.setup()
    assert data.test is not None
    return data.test
