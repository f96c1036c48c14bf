"""How fast the parts are, against peers measured in the same run: `python -m benchmarks`."""
