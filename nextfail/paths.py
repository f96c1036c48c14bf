"""Where what comes with nextfail lies."""

from pathlib import Path

FOLDERS = "NEXTFAIL_FOLDERS"
"""Environment variable: a file into which nextfail-train writes the folders of its runs, for nextfail.train."""

_PACKAGE = Path(__file__).resolve().parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The configuration folder: inside the package in a wheel, beside it in a checkout."""
