"""The one way in which nextfail writes files: whole or not at all, and never outside the folder that was given.

Run folders and reports come from other people, too. A link in one of them could lead anywhere, so nothing below the
given folder is written, removed or renamed through a link. Also how small files are read: regular files only, and not
without a limit.
"""

import errno
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from nextfail.errors import UserError

PARTIAL = ".partial"
"""How the name of a file ends that is being written, or was left by a process that was killed meanwhile."""

MOST = 64 * 2**20
"""Bytes of the largest file that is read as a whole."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # what a file system without hard links says


class Inside:
    """Writes, removes and renames inside one folder.

    Every name is relative to that folder, which itself may be a link. Every method raises UserError with the path and
    the reason where the disk refuses, or where a link below the folder is in the way.

    Args:
        root: the folder; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, name: str = "") -> None:
        """Make a folder, and those above it; `""` is the root."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {self.root}: {error.strerror}") from error
        if name:
            with self._at(f"{name}/.", make=True):
                pass

    def below(self, name: str) -> "Inside":
        """A folder in this one, made if need be."""
        self.make(name)
        return Inside(self.root / name)

    def write(self, name: str, content: str | bytes | memoryview) -> None:
        """Replace a file; the folders above it are made. A reader sees the old content or the new."""
        with self.writing(name) as file:
            file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file, with the text of `json_text`."""
        self.write(name, json_text(value))

    @contextmanager
    def writing(self, name: str, replace: bool = True) -> Iterator[BinaryIO]:
        """Open a file that gets its name when the block ends without an exception.

        Args:
            replace: whether a file of that name may be replaced; else it stays, and UserError is raised.
        """
        with self._at(name, make=True) as (folder, last):
            partial = f".{last}.{secrets.token_hex(4)}{PARTIAL}"  # others may write it, too
            try:
                new = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
                with os.fdopen(new, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(new)
                if replace:
                    os.replace(partial, last, src_dir_fd=folder, dst_dir_fd=folder)
                elif not _link(folder, partial, last):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(partial, dir_fd=folder)

    def link(self, old: str, new: str) -> bool:
        """Give a file a second name in the same folder; False if there is something of that name already."""
        with self._at(new) as (folder, last):
            return _link(folder, old, last)

    def move(self, old: str, new: str) -> bool:
        """Rename a file within its folder, replacing what has that name; False if there is no such file."""
        with self._at(new) as (folder, last):
            try:
                os.replace(old, last, src_dir_fd=folder, dst_dir_fd=folder)
            except FileNotFoundError:
                return False
            return True

    def touch(self, name: str) -> None:
        """Make a file look as if it had just been written."""
        with self._at(name) as (folder, last):
            os.utime(last, dir_fd=folder, follow_symlinks=False)

    def remove(self, name: str) -> None:
        """Remove a file, or a link but not what it leads to; nothing happens if there is none."""
        with suppress(_Missing), self._at(name) as (folder, last), suppress(FileNotFoundError):
            os.unlink(last, dir_fd=folder)

    def remove_tree(self, name: str) -> None:
        """Remove a file, a link, or a folder with all that is in it; nothing happens if there is none."""
        with suppress(_Missing), self._at(name) as (folder, last), suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
                shutil.rmtree(last, dir_fd=folder)
            else:
                os.unlink(last, dir_fd=folder)

    def names(self, name: str = "") -> list[str]:
        """What is in a folder, sorted; empty if there is none."""
        try:
            with self._at(f"{name}/." if name else ".") as (folder, _):
                return sorted(os.listdir(folder))  # noqa: PTH208, an open folder has no path
        except _Missing:
            return []

    @contextmanager
    def _at(self, name: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder that a name is in, without following links below the root; the last part of the name."""
        *above, last = [part for part in name.split("/") if part] or [name]
        if PurePath(name).is_absolute() or ".." in (*above, last) or "\0" in name:
            raise UserError(f"{name!r} leads out of {self.root}")
        path = self.root
        try:
            if make:
                path.mkdir(parents=True, exist_ok=True)
            folder = os.open(path, _FOLDER)
        except OSError as error:
            raise _refusal(error, path) from error
        try:
            for part in above:
                path /= part
                try:
                    folder = _enter(folder, part, make)
                except OSError as error:
                    raise _refusal(error, path) from error
            try:
                yield folder, last
            except OSError as error:
                raise _refusal(error, path / last) from error
        finally:
            os.close(folder)


class _Missing(UserError):
    """There is no such folder."""


def _enter(folder: int, part: str, make: bool) -> int:
    """Exchange an open folder for one in it, which must be no link."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=folder)
    inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    os.close(folder)
    return inner


def _refusal(error: OSError, path: Path) -> UserError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
        return UserError(f"{path} is a link, and nextfail writes nothing through links inside a folder: remove it")
    kind = _Missing if isinstance(error, FileNotFoundError) else UserError
    return kind(f"cannot write {path}: {error.strerror or error}")


def _link(folder: int, old: str, new: str) -> bool:
    try:
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:  # a file system without links
            target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
        except FileExistsError:
            return False
        source = os.open(old, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(source, "rb") as before, os.fdopen(target, "wb") as after:
            shutil.copyfileobj(before, after)
    return True


def trap(root: Path) -> Path | None:
    """Something in a folder, or in one of the folders in it, that must not be written to; None if there is nothing.

    That is a link that leads out of the folder or nowhere, and what is neither file nor folder, such as a pipe. What
    others write there without this module has fixed names no deeper than that: Hydra's log, TensorBoard's files.
    """
    if not root.is_dir():
        return None
    real = os.path.realpath(root)
    top = sorted(root.iterdir())
    inner = [path for folder in top if folder.is_dir() and not folder.is_symlink() for path in sorted(folder.iterdir())]
    return next((path for path in (*top, *inner) if _is_trap(path, real)), None)


def _is_trap(path: Path, root: str) -> bool:
    if path.is_symlink():
        target = os.path.realpath(path)
        return target != root and not target.startswith(f"{root}{os.sep}")
    kind = path.lstat().st_mode
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def open_regular(path: Path, follow: bool = True) -> io.BufferedReader:
    """Open a file for reading, unless it is a pipe, a device or a folder, which could block or never end.

    Args:
        follow: whether it may be a link to such a file.

    Raises:
        OSError: it is no regular file, or cannot be opened.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return os.fdopen(file, "rb")


def read_text(path: Path, most: int = MOST, follow: bool = True) -> str:
    """The content of a regular UTF-8 file.

    Args:
        most: bytes that it may have.
        follow: as for `open_regular`.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `most` bytes.
        ValueError: it is not UTF-8.
    """
    with open_regular(path, follow) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"has more than {most:,} bytes", str(path))
    return content.decode("utf-8")


def json_text(value: Any) -> str:
    """Plain values as the text of a JSON file; numbers that JSON lacks (NaN, infinity) become null.

    Raises:
        TypeError: there is something else among them.
    """
    return json.dumps(_finite(value), indent=1) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
