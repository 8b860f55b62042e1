"""Data of built-in tasks from the downloaded archive or from a local copy."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .archive_reader import ArchiveFiles, DataError
from .archives import archive


def is_archive(path: Path) -> bool:
    """Return True if a file is a whole archive rather than one of the files in it."""
    return path.name.endswith(".tar.gz") or zipfile.is_zipfile(path)


@contextlib.contextmanager
def open_source(name: str, path: Path | None) -> Iterator[ArchiveFiles | IO[bytes]]:
    """Open a data set: the files of its archive, or a local copy of a single file as a stream.

    Args:
        name: name of the data set.
        path: a local copy of the archive or of a file in it; None for the downloaded archive.

    Raises:
        DataError: if the data cannot be downloaded or read.
    """
    if path is None:
        with archive(name).files() as files:
            yield files
        return
    try:
        stream, is_whole = path.open("rb"), is_archive(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    with stream, ArchiveFiles(stream, path.name.endswith(".tar.gz"), str(path)) if is_whole else stream as source:
        yield source


def read_source(name: str, member: str, path: Path | None) -> bytes:
    """Read one file of a data set.

    Args:
        name: name of the data set.
        member: path of the file in the archive.
        path: a local copy of the archive or of the file; None for the downloaded archive.

    Raises:
        DataError: if the data cannot be downloaded or read.
    """
    try:
        with open_source(name, path) as source:
            return source.read(member) if isinstance(source, ArchiveFiles) else source.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
