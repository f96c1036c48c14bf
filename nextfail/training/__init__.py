"""Training and evaluation of one run: module, metrics, optimizers, callbacks, checkpoints."""

import warnings

with warnings.catch_warnings():  # in a notebook, about progress bars that nextfail does not use
    warnings.filterwarnings("ignore", message="IProgress not found")
    import lightning  # noqa: F401
