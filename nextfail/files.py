"""File access for all of nextfail: atomic writes that never leave the given folder, and bounded reads.

Run folders and reports may come from other people, and a link in one of them could lead anywhere. So nothing below the
given folder is written, removed or renamed through a link. Reads accept only regular files up to a size limit.
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
"""Suffix of a file that is being written, or was left by a killed process."""

MOST = 64 * 2**20
"""Maximum size in bytes of a file that is read into memory."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # errors of file systems without hard links


class Inside:
    """Writes, removes and renames inside one folder.

    Every name is relative to that folder, which may itself be a link. Every method raises UserError with the path and
    the reason if the operation fails, or if the path leads through a link below the folder.

    Args:
        root: the folder; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, name: str = "") -> None:
        """Create a folder and its parents; `""` is the root."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create {self.root}: {error.strerror}") from error
        if name:
            with self._at(f"{name}/.", make=True):
                pass

    def below(self, name: str) -> "Inside":
        """A subfolder, created if necessary."""
        self.make(name)
        return Inside(self.root / name)

    def write(self, name: str, content: str | bytes | memoryview) -> None:
        """Write a file atomically: readers see the old or the new content. Creates parent folders."""
        with self.writing(name) as file:
            file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file atomically, as formatted by `json_text`."""
        self.write(name, json_text(value))

    @contextmanager
    def writing(self, name: str, replace: bool = True) -> Iterator[BinaryIO]:
        """Open a file for an atomic write: it gets its name when the block ends without an exception.

        Args:
            replace: whether to replace an existing file; otherwise it is kept, and UserError is raised.
        """
        with self._at(name, make=True) as (folder, last):
            partial = f".{last}.{secrets.token_hex(4)}{PARTIAL}"  # unique: others may write the same file
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
        """Hard-link a file to a second name in the same folder; False if that name already exists."""
        with self._at(new) as (folder, last):
            return _link(folder, old, last)

    def move(self, old: str, new: str) -> bool:
        """Rename a file within its folder, replacing an existing file; False if there is no such file."""
        with self._at(new) as (folder, last):
            try:
                os.replace(old, last, src_dir_fd=folder, dst_dir_fd=folder)
            except FileNotFoundError:
                return False
            return True

    def touch(self, name: str) -> None:
        """Set a file's modification time to now."""
        with self._at(name) as (folder, last):
            os.utime(last, dir_fd=folder, follow_symlinks=False)

    def remove(self, name: str) -> None:
        """Remove a file, or a link but not its target; does nothing if it does not exist."""
        with suppress(_Missing), self._at(name) as (folder, last), suppress(FileNotFoundError):
            os.unlink(last, dir_fd=folder)

    def remove_tree(self, name: str) -> None:
        """Remove a file, a link, or a folder with its content; does nothing if it does not exist."""
        with suppress(_Missing), self._at(name) as (folder, last), suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
                shutil.rmtree(last, dir_fd=folder)
            else:
                os.unlink(last, dir_fd=folder)

    def names(self, name: str = "") -> list[str]:
        """Sorted names in a folder; empty if it does not exist."""
        try:
            with self._at(f"{name}/." if name else ".") as (folder, _):
                return sorted(os.listdir(folder))  # noqa: PTH208, an open folder has no path
        except _Missing:
            return []

    @contextmanager
    def _at(self, name: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the parent folder of a name, without following links below the root; yields it and the last part."""
        *above, last = [part for part in name.split("/") if part] or [name]
        if PurePath(name).is_absolute() or ".." in (*above, last) or "\0" in name:
            raise UserError(f"{name!r} is not inside {self.root}")
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
    """A folder does not exist."""


def _enter(folder: int, part: str, make: bool) -> int:
    """Replace an open folder by one of its subfolders, which must not be a link."""
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
        try:  # fallback for file systems without hard links
            target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
        except FileExistsError:
            return False
        source = os.open(old, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(source, "rb") as before, os.fdopen(target, "wb") as after:
            shutil.copyfileobj(before, after)
    return True


def trap(root: Path) -> Path | None:
    """The first entry of a folder or its subfolders that must not be written to; None if there is none.

    Such entries are links out of the folder, and special files such as pipes. The search is two levels deep, since
    other programs that write there (Hydra's log, TensorBoard's files) use fixed names no deeper than that.
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
    """Open a regular file for reading. Pipes and devices are rejected, since they could block or never end.

    Args:
        follow: whether it may be a link to a regular file.

    Raises:
        OSError: it is not a regular file, or cannot be opened.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return os.fdopen(file, "rb")


def read_text(path: Path, most: int = MOST, follow: bool = True) -> str:
    """The content of a regular UTF-8 file.

    Args:
        most: maximum size in bytes.
        follow: as for `open_regular`.

    Raises:
        OSError: it cannot be read, is not a regular file, or has more than `most` bytes.
        ValueError: it is not UTF-8.
    """
    with open_regular(path, follow) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"has more than {most:,} bytes", str(path))
    return content.decode("utf-8")


def json_text(value: Any) -> str:
    """Format plain values as JSON; NaN and infinity, which JSON lacks, become null.

    Raises:
        TypeError: a value cannot be represented in JSON.
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
