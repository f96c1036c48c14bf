"""The configuration schema: types of keys with their bounds, and every key that is not an argument of a class.

A class or function that a configuration instantiates states the types of its arguments in its signature, and their
meaning in its docstring. Both are read from the syntax tree, so that invalid values are rejected before torch is
imported. The same types are checked again when it is called from Python. A user's own class may use the names below:

    def __init__(self, horizon: AtLeast1 = 4, norm: Literal["layer", "rms"] = "rms") -> None: ...

`python -m nextfail.reference` generates docs/configuration.md from all of this.
"""

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

AtLeast0 = Annotated[int, "a whole number of at least 0"]
AtLeast1 = Annotated[int, "a whole number of at least 1"]
AtLeast2 = Annotated[int, "a whole number of at least 2"]
AtLeast3 = Annotated[int, "a whole number of at least 3"]
AtLeast4 = Annotated[int, "a whole number of at least 4"]
Threads = Annotated[int, "a whole number from 1 to 1024"]
Positive = Annotated[float, "a number above 0"]
NotNegative = Annotated[float, "a number of at least 0"]
Betas = Annotated[tuple[float, float], "two numbers from 0 to below 1, as in [0.9,0.999]"]
Share = Annotated[float, "a number from 0 to 1"]
Accuracy = Annotated[float, "a number above 0 and up to 1"]


@dataclass(frozen=True)
class Kind:
    """One kind of value: its description, and a predicate for its values."""

    words: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Type:
    """The type of a key: a union of kinds; any value if there are none.

    Args:
        kinds: in the order of the annotation.
    """

    kinds: tuple[Kind, ...] = ()

    def refusal(self, key: str, value: Any) -> str | None:
        """An error line that names the key and the accepted values; None if the value is valid."""
        if not self.kinds or any(kind.accepts(value) for kind in self.kinds):
            return None
        if all(kind.choices or kind is KINDS["None"] for kind in self.kinds):
            return f"{key}={shown(value)} is unknown: choose {self.words}"
        return f"{key}={shown(value)} is not {self.words}"

    @property
    def words(self) -> str:
        """The accepted values as text; "anything" if unknown."""
        parts = [each for kind in self.kinds for each in (kind.choices or (kind.words,))]
        return " or ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) or "anything"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_betas(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and all(_is_number(each) and 0 <= each < 1 for each in value)


def _whole(least: int, most: int | None = None) -> Kind:
    words = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    return Kind(words, lambda value: _is_whole(value) and least <= value and (most is None or value <= most))


KINDS = {
    "int": Kind("a whole number", _is_whole),
    "float": Kind("a number", _is_number),
    "str": Kind("text", lambda value: isinstance(value, str)),
    "bool": Kind("true or false", lambda value: isinstance(value, bool)),
    "None": Kind("null", lambda value: value is None),
    "dict": Kind("a map such as {a: b}", lambda value: isinstance(value, dict)),
    "list": Kind("a list such as [a, b]", lambda value: isinstance(value, list)),
    **{f"AtLeast{least}": _whole(least) for least in range(5)},
    "Threads": _whole(1, 1024),
    "Positive": Kind("a number above 0", lambda value: _is_number(value) and value > 0),
    "NotNegative": Kind("a number of at least 0", lambda value: _is_number(value) and value >= 0),
    "Share": Kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "Betas": Kind("two numbers from 0 to below 1, as in [0.9,0.999]", _are_betas),
    "Accuracy": Kind("a number above 0 and up to 1", lambda value: _is_number(value) and 0 < value <= 1),
}
"""Kinds by name in annotations."""


@cache
def parse(annotation: str) -> Type:
    """The type of an annotation such as "AtLeast1 | None"; any value if a part of it is unknown."""
    try:
        kinds = _kinds(ast.parse(annotation, mode="eval").body)
    except (SyntaxError, KeyError, ValueError):
        return Type()
    return Type(tuple(dict.fromkeys(kinds)))


def _kinds(node: ast.expr) -> list[Kind]:
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _kinds(left) + _kinds(right)
        case ast.Constant(value=None):
            return [KINDS["None"]]
        case ast.Constant(value=str(quoted)):
            return _kinds(ast.parse(quoted, mode="eval").body)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [KINDS[name]]
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal"), slice=choices):
            values = ast.literal_eval(choices)
            return [_literal(values if isinstance(values, tuple) else (values,))]
    raise KeyError(ast.unparse(node))


def _literal(choices: tuple[Any, ...]) -> Kind:
    words = tuple(shown(each) if not isinstance(each, str) else each for each in choices)
    return Kind("", lambda value: any(value == each and type(value) is type(each) for each in choices), words)


def shown(value: Any) -> str:
    """A value as a user would write it, with text in quotes."""
    return str(value).lower().replace("none", "null") if value is None or isinstance(value, bool) else repr(value)


@dataclass(frozen=True)
class Key:
    """A key that is not an argument of a class.

    Args:
        annotation: type, as in a signature.
        meaning: description, with unit.
    """

    annotation: str
    meaning: str

    @property
    def type(self) -> Type:
        """The parsed annotation."""
        return parse(self.annotation)


SUPPORTED = ("32-true", "bf16-mixed", "bf16-true", "16-true", "64-true")

TOP = {
    "name": Key("str", "folder of the run below runs/; an experiment sets its own"),
    "seed": Key("AtLeast0", "seed of the weights, of the order of training problems, and of what an objective samples"),
    "on_existing": Key(
        "Literal['resume', 'restart', 'fail']",
        "what to do with a folder that has a run: skip what is done and continue what was cut; remove it first; refuse",
    ),
}
"""Keys outside any section."""

TRAINER = {
    "accelerator": Key("Literal['cpu', 'gpu', 'cuda', 'mps', 'auto']", "where to train"),
    "threads": Key("Threads", "number of torch threads of a run"),
    "precision": Key(
        f"Literal{[*SUPPORTED]}", "precision of training, in Lightning's terms; 32 and bf16 are short forms"
    ),
    "max_steps": Key("AtLeast1", "training steps; the batch is data.batch_size"),
    "max_flops": Key(
        "Positive | None",
        "ends training after this many FLOPs, as counted in result.json; lowers max_steps; null for no limit",
    ),
    "val_every": Key("AtLeast1", "steps between validations"),
    "stop_at": Key(
        "Accuracy | None",
        "ends training when exact match on the validation set reaches this, for first_hop_only never; null for never",
    ),
    "gradient_clip": Key("Positive | None", "largest norm of the gradient; null for none"),
    "cuda_graphs": Key("bool", "whether training steps are replayed as CUDA graphs: faster for small models"),
}

OPTIONS = {
    "accumulate_grad_batches": Key("AtLeast1 | None", "batches whose gradients are averaged for an optimizer step"),
    "benchmark": Key("bool | None", "whether cuDNN benchmarks its algorithms and takes the fastest"),
    "deterministic": Key("bool | Literal['warn'] | None", "whether torch uses deterministic kernels, or warns"),
    "detect_anomaly": Key("bool | None", "whether to find the operation whose gradient is NaN"),
    "inference_mode": Key("bool | None", "whether validation runs in torch.inference_mode"),
    "limit_test_batches": Key("AtLeast1 | None", "maximum number of batches of the test set"),
    "limit_val_batches": Key("AtLeast1 | None", "maximum number of batches of the validation set"),
    "log_every_n_steps": Key("AtLeast1 | None", "steps between what a callback of your own logs"),
    "profiler": Key(
        "Literal['simple', 'advanced', 'pytorch'] | None", "Lightning's profiler, which writes into the run folder"
    ),
}
"""Keys of trainer.options, which are passed to Lightning's Trainer; null keeps Lightning's default."""

HARMLESS = ("detect_anomaly", "inference_mode", "log_every_n_steps", "profiler")
"""Options that do not affect results, and are not part of a run's identity."""

_ONE = "a run uses one device"
_STEPS = "training is measured in steps: set trainer.max_steps"
OWNED = {
    **{key: f"set trainer.{key}" for key in ("accelerator", "precision", "max_steps")},
    **dict.fromkeys(("devices", "num_nodes", "strategy", "sync_batchnorm", "use_distributed_sampler"), _ONE),
    **dict.fromkeys(("max_epochs", "min_epochs", "min_steps", "max_time", "limit_train_batches"), _STEPS),
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch"), "set trainer.val_every"),
    **dict.fromkeys(("gradient_clip_val", "gradient_clip_algorithm"), "set trainer.gradient_clip, which is by norm"),
    **dict.fromkeys(("fast_dev_run", "barebones"), "choose debug=default"),
    **dict.fromkeys(("enable_progress_bar", "callbacks"), "choose callbacks=NAME"),
    **dict.fromkeys(("enable_checkpointing", "default_root_dir"), "every run saves into its own folder"),
    **dict.fromkeys(("logger", "enable_autolog_hparams"), "choose logger=NAME"),
    **dict.fromkeys(("num_sanity_val_steps", "enable_model_summary", "plugins", "model_registry"), "nextfail sets it"),
    "overfit_batches": "set data.train",
    "limit_predict_batches": "nothing is predicted in a run",
    "reload_dataloaders_every_n_epochs": _STEPS,
}
"""Arguments of Lightning's Trainer that nextfail sets itself, and what to do instead."""

SIZE = {
    "depth": Key("AtLeast1", "blocks, to which model.depth refers"),
    "width": Key("AtLeast1", "channels, to which model.width refers"),
    "heads": Key("AtLeast1", "attention heads, to which model.heads refers"),
}

RECIPE = {
    "made_for": Key("dict", "the task sizes, models and objectives that it was tried with; other runs get a note"),
    "settings": Key("list", "entries with `set`, and perhaps `for`, the runs that it is for; later ones win"),
    "sweep": Key("dict", "values of an experiment's axes: `task: ${recipe.sweep.task}`"),
    "name": Key("str", "folder of an experiment below runs/: `name: ${recipe.name}`"),
}
"""Keys of a file of conf/recipe."""

_SLURM_TEST = {
    "array_parallelism": Key("AtLeast1", "runs at once"),
    "timeout_min": Key("Positive", "minutes per run before it saves and is queued again"),
    "signal_delay_s": Key("AtLeast1", "seconds before the time limit in which to save"),
    "requeue": Key("AtLeast0", "how often a run is queued again after its time limit or preemption; 0 for never"),
    "folder": Key("str", "where scripts and logs of the jobs are"),
}
LAUNCHERS = {
    "local": {
        "n_jobs": Key("AtLeast1 | Literal[-1]", "runs at once; -1 for one per core, or per_gpu on each GPU"),
        "per_gpu": Key("AtLeast1", "runs at once on one GPU, each of which sees only that"),
    },
    "slurm": {
        "partition": Key("str | int | None", "null for the cluster's default"),
        "account": Key("str | int | None", "to charge"),
        "qos": Key("str | int | None", "quality of service"),
        "constraint": Key("str | int | None", "features of nodes, such as a100"),
        **_SLURM_TEST,
        "timeout_min": Key("AtLeast1", "minutes per run before it saves and is queued again"),
        "cpus_per_task": Key("AtLeast1", "cores of a run"),
        "mem_gb": Key("Positive | None", "GiB of memory of a run"),
        "gpus": Key("AtLeast1 | None", "GPUs of a run, of which it uses one"),
        "setup": Key("list | None", "shell lines before each run, such as module load cuda"),
        "max_array": Key("AtLeast1 | None", "longest array; null asks the cluster"),
        "detach": Key("bool", "submit the jobs and exit"),
        "job_name": Key("str | int", "name of every job"),
        "extra": Key("dict", "further options of sbatch"),
    },
    "slurm_test": _SLURM_TEST,
}
"""Settings of each launcher: `hydra.launcher.KEY`."""

OPTUNA = {
    "storage": Key("str", "file of the study, an Optuna journal"),
    "study_name": Key("str", "name of the study in that file"),
    "n_trials": Key("AtLeast1", "runs in all, those of earlier commands included"),
    "n_jobs": Key("AtLeast1", "runs proposed at once"),
    "seed": Key("AtLeast0", "seed of the proposals"),
    "params": Key("dict", "axes, as on the command line"),
}
"""Settings of hydra/sweeper=optuna: `hydra.sweeper.KEY`."""
