"""A look at the folder of a run or a sweep before Hydra makes it and writes its log there."""

from pathlib import Path, PurePath
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nextfail.errors import UserError, guarded
from nextfail.files import leads_out
from nextfail.runs.folder import RunFolder

OF_SWEEPS = ("multirun.yaml", ".sweeps", ".submitit")
"""What Hydra, nextfail and submitit write into a sweep's folder."""


class Guard(Callback):
    """Ends the command with one line where a folder must not be written. Hydra calls it before it makes the folder."""

    def on_run_start(self, config: DictConfig, **more: Any) -> None:
        guarded("nextfail-train", lambda: ready_run(config))

    def on_multirun_start(self, config: DictConfig, **more: Any) -> None:
        guarded("nextfail-train", lambda: ready_sweep(config))


def ready_run(config: DictConfig) -> None:
    """Make sure that the folder of a single run may be written.

    Raises:
        UserError: it is somebody else's, leads elsewhere, or `name` leads out of runs/.
    """
    require_name(config.get("name"))
    if (folder := _folder(config, "hydra.run.dir")) is not None:
        RunFolder(folder).require_ours()


def ready_sweep(config: DictConfig) -> None:
    """The same for the folder of a sweep, in which other folders and files are nobody's business.

    Raises:
        UserError: as `ready_run`.
    """
    require_name(config.get("name"))
    folder = _folder(config, "hydra.sweep.dir")
    for name in OF_SWEEPS if folder is not None else ():
        path = Path(folder or "", name)
        link = path if path.is_symlink() else leads_out(path)
        if link:
            raise UserError(f"{link} is a link, and nextfail writes nothing through links inside a folder: remove it")


def require_name(name: Any) -> None:
    """Refuse a name whose folder would not be below runs/.

    Raises:
        UserError: it is absolute or leads upwards.
    """
    path = PurePath(str(name))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"name={name} leads out of runs/: choose a name such as name=demo, or hydra.run.dir=FOLDER")


def _folder(config: DictConfig, key: str) -> Path | None:
    """The folder at a key of the configuration; None where it cannot be told, which Hydra will explain."""
    HydraConfig.instance().set_config(config)
    try:
        return Path(str(OmegaConf.select(config, key))).absolute()
    except OmegaConfBaseException:
        return None
