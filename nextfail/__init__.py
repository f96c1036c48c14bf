"""nextfail: how next-token prediction fails, and how to fix it.

    import nextfail

    run = nextfail.train("objective=reverse", "trainer.max_steps=500")
    run.metrics()["exact_match"]

The names below are imported lazily, so that `import nextfail` does not import torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextfail.api import Run, collect, evaluate, load, train
    from nextfail.models.backbone import Backbone
    from nextfail.objectives.base import Objective
    from nextfail.tasks.base import Task
    from nextfail.tasks.path_star.task import PathStar

if "OMP_WAIT_POLICY" not in os.environ:
    # Read by GNU OpenMP when torch is loaded. By default, its idle threads spin for so long that they take cores from
    # the threads of the fused scan (LOG.md, 2026-11-27).
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

__version__ = "0.1.0"

__all__ = ["Backbone", "Objective", "PathStar", "Run", "Task", "collect", "evaluate", "load", "train"]

_WHERE = {
    **dict.fromkeys(("Run", "collect", "evaluate", "load", "train"), "api"),
    "Backbone": "models.backbone",
    "Objective": "objectives.base",
    "PathStar": "tasks.path_star.task",
    "Task": "tasks.base",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
