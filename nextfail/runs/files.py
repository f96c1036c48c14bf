"""Reading and writing small files so that a reader sees the old one or the new one and never half of one."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from nextfail.errors import UserError

PARTIAL = ".partial"
"""How the name of a file ends that is being written, or was left by a process that was killed meanwhile."""


def write_text(path: Path, text: str) -> None:
    """Write a file atomically and durably.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")  # others may write it, too
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; numbers that JSON lacks (NaN, infinity) become null."""
    write_text(path, json.dumps(_finite(value), indent=1) + "\n")


def read_json(path: Path) -> Any | None:
    """The content of a JSON file, or None if there is none that can be read, or it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
