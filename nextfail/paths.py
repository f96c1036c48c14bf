"""Where what comes with nextfail lies."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The configuration folder: inside the package in a wheel, beside it in a checkout."""
