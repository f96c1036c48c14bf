"""How fast the parts are, against peers measured in the same run: `python -m benchmarks`."""

import nextfail  # noqa: F401  # before torch is: it says how long torch's threads spin
