"""Speed benchmarks, relative to peers measured in the same run: `python -m benchmarks`."""

import nextfail  # noqa: F401  # before torch: sets the spin time of torch's threads
