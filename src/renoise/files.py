"""Files that are written wholly or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from renoise.core.checks import file_path

__all__ = ["check_place", "missing", "write", "writing"]


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file of this content, wholly or not at all, as `writing` does."""
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file to write, and the folders that it lies in, so that nobody ever sees half of it.

    The data go to a new file with a name of its own in the same folder, and reach the disk before that file takes the
    place of an earlier one, which happens when the block ends without an error.  Two writers of one path do not meet:
    the last one to finish wins.  An earlier file keeps its permissions, and a symbolic link stays a link: the file that
    it points to is replaced.  A process that is killed while it writes may leave a file called ``.renoise-*.part``,
    which can be deleted.

    Args:
        path: where to write; a regular file, or nothing yet.

    Yields:
        The new file, open for writing.

    Raises:
        TypeError: a path that is no path.
        OSError: a place that cannot be written, such as a folder, a device or a pipe; what was there before stays.
    """
    target = Path(os.path.realpath(file_path(path)))  # the file behind a symbolic link
    before = _earlier(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(target.parent)
    mode = 0o666 if before is None else 0o600  # a private file stays private while it is replaced
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            _like(part, before)
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync(target.parent)


def missing(path: Path) -> str | None:
    """Why there is no file to read at a path, as the end of a sentence; None where there is one."""
    if path.is_file():
        return None
    return "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"


def check_place(path: str | os.PathLike[str]) -> None:
    """Refuses, before any work, a place where `write` could not write.

    Links are followed.  Nothing stays behind: to see whether it may, this makes an empty file in the folder, or in the
    nearest folder that exists, and deletes it.

    Raises:
        TypeError, ValueError: a path that is no path.
        OSError: a place that cannot be written, such as a folder, a device or a pipe, or a name that is too long.
    """
    target = Path(os.path.realpath(file_path(path)))
    _earlier(target)
    folder = next(parent for parent in target.parents if os.path.exists(parent))
    longest = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    for name in target.relative_to(folder).parts:
        if len(os.fsencode(name)) > longest:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(target))
    part = _part(folder)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    part.unlink()


def _part(folder: Path) -> Path:
    """A new name for a file that is not complete."""
    return folder / f".renoise-{secrets.token_hex(8)}.part"


def _earlier(target: Path) -> os.stat_result | None:
    """What is there already, or None.  Refuses what is no regular file, and a file that may not be written."""
    try:
        before = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder: pass the name of a file in it", str(target))
    if not stat.S_ISREG(before.st_mode):
        raise OSError(errno.EINVAL, "is a device, pipe or socket: pass the name of a regular file", str(target))
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "is read-only: make it writable or pass another name", str(target))
    return before


def _like(part: Path, before: os.stat_result) -> None:
    """Gives the new file the owner and the permissions of the earlier one, as far as this user may."""
    now = part.stat()
    if hasattr(os, "chown") and (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with contextlib.suppress(PermissionError):
            os.chown(part, before.st_uid, before.st_gid)
    part.chmod(stat.S_IMODE(before.st_mode))


def _sync(folder: Path) -> None:
    """Has the new name reach the disk, where the system lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
