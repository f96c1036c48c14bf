"""Objects from configuration: freely for a run of one's own, from a closed table for somebody else's run folder."""

from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from nextfail.errors import UserError
from nextfail.models import Mamba, Pretrained, Transformer
from nextfail.objectives import ALL
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import file_digest, model_digest
from nextfail.task.datamodule import DrawnData, FileData, PathStarData
from nextfail.task.graph import PathStar
from nextfail.training.module import PathStarModule

OWN = {
    f"{made.__module__}.{made.__qualname__}": made
    for made in (Transformer, Mamba, Pretrained, *ALL, DrawnData, FileData)
}
"""What a run folder may name without being trusted."""


def make(section: str, spec: dict[str, Any], **more: Any) -> Any:
    """Instantiate a section of the configuration by its `_target_`, with `more` arguments that only code can give.

    Raises:
        UserError: the target is missing, cannot be imported, or refuses its arguments.
    """
    if not spec or "_target_" not in spec:
        raise UserError(f"{section} has no _target_: choose an option of the group, as in {section}=NAME")
    try:
        # only the lookup is Hydra's: it would turn arguments that are dataclasses into configurations
        factory = instantiate({**spec, "_partial_": True}, _convert_="all")
        return factory if spec.get("_partial_") else factory(**more)
    except (InstantiationException, TypeError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{section} cannot be made from {spec['_target_']}: {error.__cause__ or error}") from error


def make_graph(sizes: dict[str, int]) -> PathStar:
    """The graph size of a configuration or a run folder.

    Raises:
        UserError: it is no size of a path-star graph, or holds other keys.
    """
    try:
        return PathStar(**sizes)
    except TypeError as error:
        raise UserError(f"graph: {error}") from error


def make_module(config: dict[str, Any], graph: PathStar) -> PathStarModule:
    """The LightningModule of a composed configuration.

    Raises:
        UserError: as `make`; or the objective needs what the model lacks.
    """
    objective = make("objective", config["objective"])
    backbone = make("model", config["model"], **_fit(graph, objective))
    optimizer, scheduler = make("optimizer", config["optimizer"]), make("scheduler", config["scheduler"])
    return PathStarModule(graph, backbone, objective, optimizer, scheduler, config["seed"])


def make_data(config: dict[str, Any], graph: PathStar) -> PathStarData:
    """The LightningDataModule of a composed configuration."""
    data: PathStarData = make("data", config["data"], graph=graph, run_seed=config["seed"])
    return data


def remake(folder: RunFolder, trust: bool = False) -> tuple[PathStarModule, PathStarData]:
    """Module and data of a run folder, weights not loaded, from its run.json alone.

    Args:
        trust: whether to import and call what run.json names beyond nextfail's own classes.

    Raises:
        UserError: the folder names something else and is not trusted, or is not a run folder.
    """
    run = folder.run()
    graph = make_graph(run["graph"])
    objective = _remake(folder.path, "objective", run["objective"], trust)
    source = run.get("source")  # as data files below
    if source is not None and model_digest(source) != run["model"].get("source"):
        raise UserError(f"{source} is not the model that this run began with: it has moved, or its content has changed")
    model = run["model"] | ({} if source is None else {"source": source})
    backbone = _remake(folder.path, "model", model, trust, **_fit(graph, objective))
    files = run.get("files", {})  # identity has their digests, and these are their names
    for key, name in files.items():
        if file_digest(name) != run["data"].get(key):
            raise UserError(f"{name} is not the {key} of this run any more: its content has changed")
    data = _remake(folder.path, "data", run["data"] | files, trust, graph=graph, run_seed=run["seed"])
    return PathStarModule(graph, backbone, objective), data


def _fit(graph: PathStar, objective: Any) -> dict[str, int]:
    """How large a backbone this task and objective need."""
    return {"vocab_size": graph.vocab.size + objective.extra_tokens, "max_length": objective.max_length(graph)}


def _remake(path: Path, section: str, spec: dict[str, Any], trust: bool, **more: Any) -> Any:
    arguments = dict(spec)
    target = str(arguments.pop("_target_", ""))
    made = OWN.get(target)
    if made is None and not trust:
        raise UserError(f"{path} has {section} {target!r}, which is not nextfail's own. "
                        "Loading it would run its code: give --trust if you trust this folder")  # fmt: skip
    try:
        if made is None:
            module, _, name = target.rpartition(".")
            made = getattr(import_module(module), name)
        return made(**arguments, **more)
    except (TypeError, ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: {section} cannot be made from {target}: {error}") from error
