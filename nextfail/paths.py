"""Paths of nextfail's own files."""

from pathlib import Path

FOLDERS = "NEXTFAIL_FOLDERS"
"""Environment variable: path of the file in which nextfail-train reports its run folders to nextfail.train."""

_PACKAGE = Path(__file__).resolve().parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The configuration folder: inside the package in a wheel, beside it in a checkout."""
