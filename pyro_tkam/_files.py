"""Files that appear whole or not at all."""

import errno
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

#: how the names of files aside match; a process that was killed may leave some
ASIDE = "*.????????.part*"
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """
    Write a file aside and rename it, so that a reader sees the old file or the new one, never a
    part, nor that of another process.

    Where writing fails, nothing is left aside.

    :param path: the file to replace; its folder is made if need be.
    :return: the file to write, of the same suffix.
    :raises OSError: where the disk is full or fails; names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.stem}.{uuid4().hex[:8]}.part{path.suffix}")
    try:
        with disk_errors_named(path):
            yield aside
            _to_disk(aside)
            os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


@contextmanager
def disk_errors_named(path: Path) -> Iterator[None]:
    """
    Say which file could not be written where the disk is full or fails.

    :param path: the file.
    :raises OSError: in the place of such an error, however a library passed it on.
    """
    try:
        yield
    except Exception as error:
        cause = _disk_error(error)
        if cause is None:
            raise
        named = OSError(f"{path} could not be written; its previous content is unchanged: {cause}")
        named.errno = error.errno if isinstance(error, OSError) else None
        raise named from error


def write_text(path: Path, text: str) -> None:
    """
    Replace a file so that a reader sees the old text or the new one, never a part.

    :param path: the file.
    :param text: its new content.
    """
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def archive_fault(path: Path) -> str | None:
    """
    Return what is wrong with a file of torch, whose records have checksums; None if nothing is.

    :param path: the file.
    """
    try:
        with zipfile.ZipFile(path) as records:
            broken = records.testzip()
    # The last two for records that seem encrypted or of a future format.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError):
        return "it is incomplete"
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the file's start
            raise
        return "it is incomplete"
    return None if broken is None else f"its record {broken} is corrupted"


def _disk_error(error: BaseException | None) -> str | None:
    """Return what is wrong with the disk, if that is behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK:
            return os.strerror(error.errno)
        if isinstance(error, OSError) and "written" in str(error):  # as NumPy tells it
            return os.strerror(errno.ENOSPC)
        error = error.__cause__ or error.__context__
    return None


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk, so that its new name cannot outlive a crash without it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
