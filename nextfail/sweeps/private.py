"""Private APIs of Hydra, OmegaConf and submitit. They are used only here, each with a test.

The exception is Hydra's BasicSweeper, which hydra_plugins must import itself, since Hydra re-imports it when it looks
for plugins. pyproject.toml limits the versions to those for which these APIs are known to work.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

__all__ = ["completed", "error_of", "is_section", "node_at", "requeue", "restore", "state"]


def state() -> dict[Any, Any]:
    """Hydra's global state, to be restored in a worker process."""
    singletons: dict[Any, Any] = Singleton.get_state()
    return singletons


def restore(singletons: dict[Any, Any]) -> None:
    """Restore what `state` returned, in the worker process."""
    Singleton.set_state(singletons)


def completed(overrides: Sequence[str], value: float) -> JobReturn:
    """What a launcher returns for a job."""
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)


def error_of(done: JobReturn) -> BaseException | None:
    """The exception of a failed job, which `return_value` would log and raise; None if it succeeded."""
    return None if done.status is JobStatus.COMPLETED else done._return_value  # type: ignore[no-any-return]


def node_at(config: DictConfig, key: str) -> Any:
    """A node of a configuration, unresolved."""
    return config._get_node(key)


def is_section(node: Any) -> bool:
    """Whether a node is a non-null section."""
    return isinstance(node, DictConfig) and not node._is_none()


def requeue(environment: Any, left: int) -> None:
    """Requeue this job with submitit, at most `left` times."""
    environment._requeue(left)
