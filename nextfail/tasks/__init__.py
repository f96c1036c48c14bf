"""Tasks, one folder each: tokens, problem sampling and scoring."""

from typing import Any

__all__ = ["Batch", "PathStar", "Probe", "Share", "Task", "all_right", "token_right", "up_to_end"]

_WHERE = dict.fromkeys(__all__, "base") | {"PathStar": "path_star.task"}


def __getattr__(name: str) -> Any:
    """Lazily imported names: they need torch, while the task modules that reports read do not."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
