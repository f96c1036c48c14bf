"""Human-readable names of run folders and results."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

# does not determine the result, or is part of the path already
_LEFT_OUT = ("hydra", "logger", "callbacks", "experiment", "name", "on_existing", "debug")
_LONGEST = 180  # characters; file systems allow 255 bytes, and some tools add a suffix


def run_folder(overrides: Sequence[str]) -> str:
    """The folder name of a run from its overrides: `objective=reverse,seed=1`, or `plain` without any.

    Launcher, logger, progress and callbacks are left out. Characters that a file system may reject become `_`. A name
    that was changed or is too long ends in a hash of the full name, so that no two runs share one.
    """
    kept = [text for text in overrides if _key(text) not in _LEFT_OUT]
    whole = ",".join(text.lstrip("+~") for text in kept) or "plain"
    name = "".join(c if c.isalnum() or c in "=,.-_+@()[]" else "_" for c in whole)
    if name == whole and len(name) <= _LONGEST:
        return name
    mark = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[:_LONGEST]}-{mark}"


def _key(override: str) -> str:
    """The first part of an override's key: `hydra/launcher=slurm` and `hydra.verbose=true` are both `hydra`."""
    key = override.lstrip("+~").partition("=")[0]
    return key.replace("/", ".").partition(".")[0]


def tally(states: Sequence[str], words: Mapping[str, str]) -> str:
    """Number of runs per state: `6 runs: 3 done before, 3 failed`; `words` names the states, in order."""
    parts = ", ".join(f"{states.count(state)} {name}" for state, name in words.items() if state in states)
    return f"{len(states)} run{'' if len(states) == 1 else 's'}: {parts}"


def one_line(result: dict[str, Any]) -> str:
    """A result as one line of text."""
    exact, cheat = result["exact_match"], result.get("cheat_accuracy")
    task = result["task"]["name"] if "task" in result else "G({},{})".format(*result["graph"].values())
    line = f"{task} {result['model']} {result['objective']} seed {result['seed']}: "
    line += f"{result['outcome']}, exact match {exact['value']:.3f} [{exact['low']:.3f}, {exact['high']:.3f}]"
    return line if cheat is None else f"{line}, cheat {cheat['value']:.3f}"
