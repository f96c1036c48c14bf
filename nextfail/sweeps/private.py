"""Parts of Hydra, OmegaConf and submitit that are not public. They are used here and nowhere else, each with a test;
but for Hydra's BasicSweeper, which Hydra imports again when it looks for plugins, so that hydra_plugins has to.

pyproject.toml bounds the versions of which these are known to hold.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

__all__ = ["completed", "error_of", "is_section", "node_at", "requeue", "restore", "state"]


def state() -> dict[Any, Any]:
    """Hydra's global state, for a process in which a job will run."""
    singletons: dict[Any, Any] = Singleton.get_state()
    return singletons


def restore(singletons: dict[Any, Any]) -> None:
    """The counterpart of `state`, in that process."""
    Singleton.set_state(singletons)


def completed(overrides: Sequence[str], value: float) -> JobReturn:
    """What a launcher returns of a job."""
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)


def error_of(done: JobReturn) -> BaseException | None:
    """The exception of a job that failed, which `return_value` would log and raise."""
    return None if done.status is JobStatus.COMPLETED else done._return_value  # type: ignore[no-any-return]


def node_at(config: DictConfig, key: str) -> Any:
    """A node of a configuration, not resolved."""
    return config._get_node(key)


def is_section(node: Any) -> bool:
    """Whether a node holds keys of its own, and is not null."""
    return isinstance(node, DictConfig) and not node._is_none()


def requeue(environment: Any, left: int) -> None:
    """Let submitit put this job into the queue again, `left` times at most."""
    environment._requeue(left)
