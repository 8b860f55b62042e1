"""Files of a data set's archive, or of a local copy."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .archive_reader import DataError, Files
from .archives import archive


def is_archive(path: Path) -> bool:
    """Whether this is the copy of an archive, not of a file that is in one."""
    return path.name.endswith(".tar.gz") or zipfile.is_zipfile(path)


@contextlib.contextmanager
def opened(name: str, path: Path | None) -> Iterator[Files | IO[bytes]]:
    """The files of a data set's archive, or of a copy of it; or a copy of one file in it, as a stream.

    Args:
        name: of the data set.
        path: where the copy is, or None for the archive that is fetched.

    Raises:
        DataError: when it cannot be had or read.
    """
    if path is None:
        with archive(name).files() as files:
            yield files
        return
    try:
        stream, whole = path.open("rb"), is_archive(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    with stream, Files(stream, path.name.endswith(".tar.gz"), str(path)) if whole else stream as source:
        yield source


def content(name: str, member: str, path: Path | None) -> bytes:
    """Return one file of a data set.

    Args:
        name: name of the data set.
        member: path of the file in its archive.
        path: a local copy of either, or None.

    Raises:
        DataError: if it cannot be obtained or read.
    """
    try:
        with opened(name, path) as source:
            return source.read(member) if isinstance(source, Files) else source.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
