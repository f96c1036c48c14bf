"""Hydra callback that checks a command and its output folder before Hydra creates the folder and logs there."""

import copy
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from nextfail.errors import UserError, guarded
from nextfail.files import trap
from nextfail.runs.folder import RunFolder
from nextfail.sweeps import job
from nextfail.sweeps.check import require_name
from nextfail.sweeps.effect import require_in_run
from nextfail.sweeps.resolve import checked, own_part


class Guard(Callback):
    """Exits with a one-line error if a folder must not be written. Hydra calls it before it creates the folder."""

    def on_run_start(self, config: DictConfig, **more: Any) -> None:
        guarded("nextfail-train", lambda: ready_run(config))

    def on_multirun_start(self, config: DictConfig, **more: Any) -> None:
        guarded("nextfail-train", lambda: ready_sweep(config))


def ready_run(config: DictConfig) -> None:
    """Check that a single run can start and that its folder may be written.

    Raises:
        UserError: the folder is foreign or links elsewhere, `name` leads out of runs/, or the run cannot start.
    """
    require_name(config.get("name"))
    if (folder := _folder(config, "hydra.run.dir")) is None:
        return
    RunFolder(folder).require_ours()
    job.absent[:] = [path for path in (folder, *folder.parents) if not path.exists()]
    there = copy.deepcopy(config)
    with read_write(there.hydra), open_dict(there.hydra):
        there.hydra.runtime.output_dir = str(folder)  # loggers may refer to it
    HydraConfig.instance().set_config(there)
    require_in_run(there.hydra)
    checked(own_part(there), there.hydra)


def ready_sweep(config: DictConfig) -> None:
    """Check the folder of a sweep, which may contain other files and folders.

    Raises:
        UserError: `name` leads out of runs/, or as `require_plain`.
    """
    require_name(config.get("name"))
    if (folder := _folder(config, "hydra.sweep.dir")) is not None:
        require_plain(folder)


def require_plain(folder: Path) -> None:
    """Reject links and special files in a sweep's folder. Its run folders may be links; each run checks its own.

    Raises:
        UserError: names the first one found.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        run = path.is_dir() and not path.name.startswith(".")
        odd = path.is_symlink() or not (path.is_file() or path.is_dir())
        if found := path if odd and not run else trap(path) if path.name.startswith(".") else None:
            raise UserError(f"{found} is a link or not a file, and nextfail writes nothing through links inside a "
                            "folder: remove it")  # fmt: skip


def _folder(config: DictConfig, key: str) -> Path | None:
    """The folder at a key of the configuration; None if it cannot be resolved, which Hydra will report."""
    HydraConfig.instance().set_config(config)
    try:
        return Path(str(OmegaConf.select(config, key))).absolute()
    except OmegaConfBaseException:
        return None
