"""One run: the module, metrics, optimizers, callbacks, checkpoints, evaluation."""

import warnings

with warnings.catch_warnings():  # in a notebook, of progress bars that nextfail does not use
    warnings.filterwarnings("ignore", message="IProgress not found")
    import lightning  # noqa: F401
