"""Tasks, one folder each: tokens, how problems are drawn, and when an answer is right."""

from typing import Any

__all__ = ["Batch", "PathStar", "Probe", "Share", "Task", "all_right", "token_right", "up_to_end"]

_WHERE = dict.fromkeys(__all__, "base") | {"PathStar": "path_star.task"}


def __getattr__(name: str) -> Any:
    """Names imported when they are asked for: they need torch, and what reports read of a task does not."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
