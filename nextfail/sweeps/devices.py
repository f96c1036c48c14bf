"""Which GPUs there are, and how many runs go where."""

import os

VISIBLE = "CUDA_VISIBLE_DEVICES"
NEED_GPU, MAY_USE_GPU = {"gpu", "cuda", "mps"}, {"gpu", "cuda", "mps", "auto"}
"""Values of trainer.accelerator."""

Device = str | None
"""A GPU as CUDA_VISIBLE_DEVICES names it; None for a place that needs no name."""


def gpus() -> list[Device]:
    """The GPUs that this process may use: CUDA's, or else Apple's, of which a machine has one."""
    import torch  # takes a second, which sweeps on CPUs need not pay

    # workers are forked from a process that inherits this: once it had asked the driver, they could not use a GPU
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if count := torch.cuda.device_count():
        numbered = ",".join(map(str, range(count)))
        named: list[Device] = [*map(str.strip, os.environ.get(VISIBLE, numbered).split(","))]
        return named[:count]
    return [None] if torch.backends.mps.is_available() else []


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def places(found: list[Device], per_gpu: int, most: int | None) -> list[Device]:
    """A place for each run that can go on at once: `per_gpu` on each GPU that was found, else one a core.

    Args:
        found: GPUs; empty where runs use none.
        per_gpu: runs at once on one GPU.
        most: runs at once; None for as many as there are places. Without GPUs it may be more than cores.
    """
    return (found * per_gpu or [None] * (most or cores()))[:most]
