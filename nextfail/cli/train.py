"""nextfail-train: train one run, or a sweep of many.

nextfail-train objective=reverse task=g2_4 trainer.max_steps=1000
nextfail-train -m objective=teacher_forcing,reverse seed=0,1,2
nextfail-train experiment=demo
"""

import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nextfail.cli.common import is_group, options, version
from nextfail.errors import UserError, guarded, leave
from nextfail.files import Inside
from nextfail.paths import CONF, FOLDERS
from nextfail.sweeps import job, recipe, sweep
from nextfail.sweeps.check import GLOBAL, GLOBAL_GROUPS, unknown
from nextfail.sweeps.private import is_section, node_at
from nextfail.terminal import mend_pipes, say

NAME = "nextfail-train"
WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
              "--info", "-i", "--experimental-rerun")  # fmt: skip
"""Hydra flags that take a value."""

OF_HYDRA = ("--package", "-p", "-m", "--multirun", "--config-name", "-cn", "--config-path", "-cp")
"""Hydra flags with which `--cfg job` is left to Hydra."""

MAY_BE_DROPPED = ("callbacks", "logger", "debug")
"""Config groups that may be removed, as in `~logger`."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def compose_and_run(cfg: DictConfig) -> float:
    """One line, since launchers may pickle this function by value."""
    return job.run(cfg)


def main() -> None:
    """Entry point; exit code 0 only if every requested run is done, or submitted to a detached launcher."""
    mend_pipes()
    arguments = flags_first(sys.argv[1:])
    sys.argv[1:] = arguments
    if "--version" in arguments:
        say(version())
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise exceptions instead of printing them
    try:
        guarded(NAME, lambda: refuse_empty(arguments))
        if not guarded(NAME, lambda: show_with_recipe(arguments)):
            guarded(NAME, compose_and_run)
    except Exception as error:
        if interrupted(error):
            sys.exit(130)
        # before the first run has started, whatever Hydra raises concerns the command
        mistake = isinstance(error, HydraException | OmegaConfBaseException | OSError | UserError) or not job.begun
        if os.environ.get("NEXTFAIL_DEBUG") or not mistake:
            raise
        leave(NAME, str(error) if isinstance(error, UserError) else explain(error, arguments), 2)
    finally:
        complete = tell()
        tell_folders(os.environ.get(FOLDERS))
    if not complete:
        sys.exit(1)


def interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: where it hits Hydra in the middle of composing, something else fails."""
    if error is None or isinstance(error, KeyboardInterrupt):
        return error is not None
    return interrupted(error.__cause__) or interrupted(error.__context__)


def flags_first(arguments: list[str]) -> list[str]:
    """The arguments reordered: Hydra's flags, with their values, before all overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    waiting = list(arguments)
    while waiting:
        text = waiting.pop(0)
        if not text.startswith("-"):
            overrides.append(text)
        elif text not in flags or text not in ("-m", "--multirun"):
            flags.append(text)
            if text in WITH_VALUE and waiting:
                flags.append(waiting.pop(0))
    return [*flags, *overrides]


def refuse_empty(arguments: list[str]) -> None:
    """Reject a config group without an option, for which Hydra has no error message.

    Raises:
        UserError: names the group and its options.
    """
    for text in arguments:
        key, chosen, value = text.lstrip("+~").partition("=")
        dropped = text.startswith("~") and key not in MAY_BE_DROPPED
        if is_group(key) and (dropped or (chosen and not text.startswith("~") and value in ("", "null"))):
            usual = "leave it out for none, or " if key in GLOBAL_GROUPS else ""
            raise UserError(f"{text}: a group cannot be empty: {usual}choose one of {', '.join(options(key))}")


def show_with_recipe(arguments: Sequence[str]) -> bool:
    """For `--cfg job`, print the configuration with its recipe, which Hydra does not know; False if it has none."""
    asked = [*pairwise(arguments)]
    if not {("--cfg", "job"), ("-c", "job")} & {*asked} or {*OF_HYDRA} & {*arguments}:
        return False
    values = [value for flag, value in asked if flag in WITH_VALUE]
    cfg = composed(arguments, [text for text in arguments if not text.startswith("-") and text not in values])
    if not cfg.get("recipe"):
        return False
    OmegaConf.set_struct(cfg, False)
    cfg, _ = recipe.applied(cfg, cfg.pop("hydra"))
    say(OmegaConf.to_yaml(cfg, resolve="--resolve" in arguments).rstrip("\n"))
    return True


def tell() -> bool:
    """Print how the runs of a sweep ended; returns whether all are done, or submitted as requested."""
    line, others, complete = sweep.report()
    for text in (line, *others):
        if text:
            say(text, error=True)
    return complete


def tell_folders(file: str | None) -> None:
    """Write the folders of finished runs into a file, for nextfail.train."""
    if file is not None:
        names = [str(path) for path in sweep.folders() or job.folders]
        Inside(Path(file).parent).write_json(Path(file).name, {"folders": names, "sweep": bool(sweep.folders())})


def explain(error: Exception, arguments: Sequence[str] = ()) -> str:
    """The error message of Hydra or of what it called, with the probable fix.

    Args:
        arguments: command line arguments; the chosen group options determine the valid keys.
    """
    text = str(error).strip() or type(error).__name__
    if error.__cause__ is not None and str(error.__cause__) not in text:
        text += f"\n{str(error.__cause__).strip()}"
    if isinstance(error, OSError) and error.filename:
        return f"cannot use {error.filename}: {error.strerror}"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        # the folder name interpolates all overrides, so an invalid one fails there first
        where = "" if error.full_key.startswith(("hydra.run.", "hydra.sweep.")) else f"{error.full_key}: "
        return where + text.splitlines()[0]
    if match := re.search(r"In '([\w/]+)': Could not override '\w+@", text):
        return f"{match[1]}.yaml: begin it with the line `{GLOBAL}`, as every file that changes other sections"
    if match := re.search(r"Could not override '([\w.]+)'", text):
        known = known_keys(arguments)
        if "." in match[1]:  # inside a section, suggest no other section
            known = [key for key in known if not any(each.startswith(f"{key}.") for each in [match[1], *known])]
        return str(unknown(match[1], known))
    if match := re.search(
        r"Could not find '([\w/]+)/([^'/]+)'\n\nAvailable options in '[\w/]+':\n((?:\t.*\n?)+)", text
    ):
        return no_option(*typed(match[1], match[2], arguments), match[3].split())
    if match := re.search(r"Ambiguous value for argument '(.+?)'\n", text):
        key = match[1].partition("=")[0]
        lists = "" if is_group(key) else f", and {key}=[...] is a list"
        return f"{match[1]} names several values: nextfail-train -m trains a run with each{lists}"
    if "missing EQUAL" in text and (bare := next((each for each in arguments if is_bare(each)), None)):
        groups = sorted(folder.name for folder in CONF.iterdir() if (folder / f"{bare}.yaml").is_file())
        hint = f": did you mean {' or '.join(f'{group}={bare}' for group in groups)}?" if groups else ""
        return f"{bare} is neither GROUP=OPTION nor KEY=VALUE{hint}"
    if "does not support sweep type" in text:
        return "an interval needs a sweeper that draws from it: hydra/sweeper=optuna, as in experiment=search"
    if "--run, --multirun, --cfg" in text:
        return "--cfg shows one configuration and cannot be used with -m"
    return text


def is_bare(argument: str) -> bool:
    """Whether an argument is a word without a value, which Hydra cannot read."""
    return "=" not in argument and not argument.startswith(("-", "~"))


def typed(group: str, option: str, arguments: Sequence[str]) -> tuple[str, str]:
    """The group and option as they stand in the arguments: of experiment=leaderboard/x, Hydra names the last part."""
    whole = f"{group}/{option}"
    pairs = (text.lstrip("+~").partition("=")[::2] for text in arguments)
    return next((pair for pair in pairs if "/".join(pair) == whole), (group, option))


def no_option(group: str, option: str, known: list[str]) -> str:
    """Error message for a missing option of a group, with the nearest existing ones."""
    whole = (CONF / group / option).is_dir()
    if folder := option if whole else option.rpartition("/")[0]:
        known = [f"{folder}/{name}" for name in options(f"{group}/{folder}")] or known
    if whole:
        return f"{group}={option}: this is a folder of options: choose one of {', '.join(known)}"
    near = difflib.get_close_matches(option, known, n=2, cutoff=0.6)
    if near:
        return f"{group}={option}: there is no such option: did you mean {' or '.join(near)}?"
    return f"{group}={option}: there is no such option: choose one of {', '.join(known)}"


def known_keys(arguments: Sequence[str]) -> list[str]:
    """Every key and group of the configuration that a command composes, or of the default one if that fails."""
    chosen = [text for text in arguments if is_group(text.lstrip("+").partition("=")[0]) and "," not in text]
    try:
        cfg = composed(arguments, chosen)
    except Exception:  # the error may be in one of these
        cfg = composed((), ())
    return sorted(_keys(cfg, ""))


def composed(arguments: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes from overrides, including the `hydra` section, with --config-dir folders of the arguments."""
    folders = [Path(each).absolute() for flag, each in pairwise(arguments) if flag in ("--config-dir", "-cd")]
    search = [f"hydra.searchpath=[{','.join(f'file://{each}' for each in folders)}]"] if folders else []
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", [*search, *overrides], return_hydra_config=True)


def _keys(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, node):
        value = node_at(node, key)
        if not key.startswith("_"):
            yield f"{prefix}{key}"
        if is_section(value):
            yield from _keys(value, f"{prefix}{key}.")


if __name__ == "__main__":
    main()
