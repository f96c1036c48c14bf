"""Available GPUs, and the number of concurrent runs on each."""

import os

VISIBLE = "CUDA_VISIBLE_DEVICES"
NEED_GPU, MAY_USE_GPU = {"gpu", "cuda", "mps"}, {"gpu", "cuda", "mps", "auto"}
"""Values of trainer.accelerator."""

Device = str | None
"""A GPU as CUDA_VISIBLE_DEVICES names it; None for a slot that needs no name."""


def gpus() -> list[Device]:
    """The GPUs that this process may use: CUDA's, or else Apple's, of which a machine has one (MPS)."""
    import torch  # takes a second; imported only if a run may use a GPU

    # inherited by the fork server: had CUDA been initialized there, no forked worker could use a GPU
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if count := torch.cuda.device_count():
        numbered = ",".join(map(str, range(count)))
        named: list[Device] = [*map(str.strip, os.environ.get(VISIBLE, numbered).split(","))]
        return named[:count]
    return [None] if torch.backends.mps.is_available() else []


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def places(found: list[Device], per_gpu: int, most: int | None) -> list[Device]:
    """One slot per concurrent run: `per_gpu` slots on each GPU found, else one per core.

    Args:
        found: GPUs; empty if runs use none.
        per_gpu: concurrent runs per GPU.
        most: maximum number of concurrent runs; None for all slots. Without GPUs it may exceed the number of cores.
    """
    return (found * per_gpu or [None] * (most or cores()))[:most]
