"""nextfail-train: one run, or a sweep of many.

    nextfail-train objective=reverse graph=g2_4 trainer.max_steps=1000
    nextfail-train -m objective=teacher_forcing,reverse seed=0,1,2
    nextfail-train experiment=demo
"""

import difflib
import os
import re
import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nextfail.cli import job, sweep
from nextfail.errors import RunCut, UserError

_HERE = Path(__file__).resolve().parents[1]
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"  # in a wheel; in a checkout


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def compose_and_run(cfg: DictConfig) -> float:
    """One line, since Hydra's launchers send the body of this function to workers by value."""
    return job.run(cfg)


def main() -> None:
    """Entry point; exit code 0 only if every run asked for is done."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then hands exceptions on instead of printing them
    if "NEXTFAIL_DEBUG" in os.environ:
        compose_and_run()
        return
    try:
        compose_and_run()
    except UserError as error:
        _leave(str(error), 2)
    except RunCut as error:
        _leave(str(error), 130)
    except HydraException as error:
        if not isinstance(error.__cause__, OmegaConfBaseException | None) and not error.args:
            raise
        _leave(explain(error), 2)
    except OmegaConfBaseException as error:
        _leave(str(error).splitlines()[0], 2)
    finally:
        sweep.close()


def explain(error: HydraException) -> str:
    """Hydra's message, with what was probably meant."""
    text = str(error).strip()
    if error.__cause__ is not None and str(error.__cause__) not in text:
        text += f"\n{str(error.__cause__).strip()}"
    if match := re.search(r"Could not override '([\w.]+)'", text):
        key = match[1]
        close = difflib.get_close_matches(key, known_keys(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "nextfail-train --cfg job lists all keys"
        return f"unknown key {key!r}: {hint}"
    return text


def known_keys() -> list[str]:
    """Every key of the default configuration."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train")
    return sorted(_keys(cfg, ""))


def _keys(node: DictConfig, prefix: str) -> set[str]:
    keys = set()
    for key in node:
        name, value = f"{prefix}{key}", node._get_node(key)
        keys |= _keys(value, f"{name}.") if isinstance(value, DictConfig) and not value._is_none() else {name}
    return keys


def _leave(message: str, code: int) -> None:
    print(f"nextfail-train: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
