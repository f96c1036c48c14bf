"""nextfail-train: one run, or a sweep of many.

nextfail-train objective=reverse graph=g2_4 trainer.max_steps=1000
nextfail-train -m objective=teacher_forcing,reverse seed=0,1,2
nextfail-train experiment=demo
"""

import difflib
import os
import re
import sys
from collections.abc import Iterator

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nextfail.cli.common import CONF
from nextfail.errors import guarded, leave
from nextfail.launch import job, sweep

NAME = "nextfail-train"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def compose_and_run(cfg: DictConfig) -> float:
    """One line, since launchers may send the body of this function to workers by value."""
    return job.run(cfg)


def main() -> None:
    """Entry point; exit code 0 only if every run asked for is done."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then hands exceptions on instead of printing them
    try:
        guarded(NAME, compose_and_run)
    except (HydraException, OmegaConfBaseException, OSError) as error:  # OSError: a folder that cannot be made
        if os.environ.get("NEXTFAIL_DEBUG"):
            raise
        leave(NAME, explain(error), 2)
    finally:
        complete = tell()
    if not complete:
        sys.exit(1)


def tell() -> bool:
    """Say how the runs of a sweep ended; whether all are done, or sent off as asked."""
    line, others, complete = sweep.report()
    for text in (line, *others):
        if text:
            print(text, file=sys.stderr)
    return complete


def explain(error: Exception) -> str:
    """Hydra's message, with what was probably meant."""
    text = str(error).strip()
    if error.__cause__ is not None and str(error.__cause__) not in text:
        text += f"\n{str(error.__cause__).strip()}"
    if match := re.search(r"Could not override '([\w.]+)'", text):
        key = match[1]
        close = difflib.get_close_matches(key, known_keys(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close and key not in close else "--cfg job lists all there are"
        return f"unknown key {key!r}: {hint}"
    return text


def known_keys() -> list[str]:
    """Every key and group of the default configuration."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train")
    return sorted(_keys(cfg, ""))


def _keys(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, node):
        value = node._get_node(key)
        yield f"{prefix}{key}"
        if isinstance(value, DictConfig) and not value._is_none():
            yield from _keys(value, f"{prefix}{key}.")


if __name__ == "__main__":
    main()
