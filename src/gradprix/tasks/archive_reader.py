"""Files inside zip and tar archives, read in place: nothing is unpacked, imported or run."""

import contextlib
import difflib
import sqlite3
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from gzip import BadGzipFile
from io import BytesIO
from pathlib import Path, PureWindowsPath
from shutil import copyfileobj
from typing import IO, Any

READ_ERRORS = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, EOFError)
"""Exceptions of the standard library for truncated or invalid archives."""


class DataError(ValueError):
    """Error raised if data cannot be obtained or read; the message explains the cause and a remedy."""


class ArchiveFiles(contextlib.AbstractContextManager["ArchiveFiles"]):
    """The files of a zip or tar.gz archive. All file names are checked on opening, even of files that are never read.

    Args:
        stream: the archive; it is closed together with this object.
        tar: True for a tar.gz archive, False for a zip archive.
        label: name of the archive in error messages.

    Raises:
        DataError: if the archive cannot be read, or contains a link or a path that leads out of the archive.
    """

    def __init__(self, stream: IO[bytes], tar: bool, label: str) -> None:
        self.label, self._stream = label, stream
        self._open: Callable[[str], IO[bytes] | None]
        try:
            if tar:
                tarred = tarfile.open(fileobj=stream, mode="r:gz")  # noqa: SIM115, closed with the stream
                self._open = tarred.extractfile
                entries = [(each.name, each.isreg(), each.isreg() or each.isdir()) for each in tarred]
            else:
                zipped = zipfile.ZipFile(stream)
                self._open = zipped.open
                links = {each.filename for each in zipped.infolist() if stat.S_ISLNK(each.external_attr >> 16)}
                entries = [(name, name[-1:] != "/", name not in links) for name in zipped.namelist()]
        except READ_ERRORS as error:
            raise DataError(f"{label} cannot be read as {'tar.gz' if tar else 'zip'}: {error}.") from error
        for name, _, plain in entries:
            if not plain or _leads_out(name):
                raise DataError(f"{label} holds {name!r}, a link or a name that leads out of it, and is refused.")
        self.names = [name for name, is_file, _ in entries if is_file]

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the archive.

        Raises:
            DataError: if there is no such file.
        """
        stream = self._open(name) if name in self.names else None
        if stream is None:
            closest = difflib.get_close_matches(name, self.names, n=1)
            suggestion = f" Did you mean {closest[0]!r}?" if closest else ""
            raise DataError(f"{self.label} has no file {name!r}.{suggestion}")
        return stream

    def read(self, name: str) -> bytes:
        """Read a file of the archive.

        Raises:
            DataError: if there is no such file, or it cannot be read.
        """
        try:
            with self.open(name) as stream:
                return stream.read()
        except READ_ERRORS as error:
            raise DataError(f"{name!r} in {self.label} cannot be read: {error}.") from error


def _leads_out(name: str) -> bool:
    path = PureWindowsPath(name)  # covers Unix paths, drives and backslashes
    return bool(path.drive or path.root or ".." in path.parts)


def read_nested(archive: bytes, name: str) -> bytes:
    """Read a file of a tar.gz archive that is itself a file of an archive.

    Args:
        archive: content of the inner archive.
        name: path of the file in the inner archive.

    Raises:
        DataError: as in `ArchiveFiles`.
    """
    with ArchiveFiles(BytesIO(archive), tar=True, label=f"the archive of {name!r}") as files:
        return files.read(name)


def read_gettext_catalogue(content: bytes) -> list[tuple[str, str]]:
    """Return the pairs (original, translation) of a compiled gettext catalogue (`.mo`), in its order.

    The header is left out; of plural forms, the singular is returned; contexts are removed.

    Args:
        content: content of the file.

    Raises:
        DataError: if it is not a catalogue.
    """
    # gettext's own reader does not expose the catalogue. Format: GNU gettext manual, "The Format of GNU MO Files".
    try:
        order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}[content[:4]]
        count, originals, translations = struct.unpack_from(f"{order}III", content, 8)
        columns = []
        for table in (originals, translations):
            entries = struct.iter_unpack(f"{order}II", content[table : table + 8 * count])
            columns.append([content[start : start + size].decode().partition("\0")[0] for size, start in entries])
        pairs = list(zip(*columns, strict=True))
    except (KeyError, UnicodeDecodeError, ValueError, struct.error) as error:
        raise DataError("the file is not a gettext catalogue in UTF-8.") from error
    return [(original.rpartition("\x04")[2], translation) for original, translation in pairs if original]


def query_sqlite(database: IO[bytes], query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
    """Return the rows that a query selects from an SQLite database that is a file of an archive.

    Args:
        database: the file as a stream.
        query: SQL with a `?` for each value.
        values: values of the `?`.

    Raises:
        DataError: if the database or the query is invalid, or the disk is full.
    """
    # SQLite needs random access, which files in a zip archive lack, so the database is copied to disk. A copy in memory
    # would be held twice.
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            with copy.open("wb") as out:
                copyfileobj(database, out, 1 << 20)
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                return connection.execute(query, tuple(values)).fetchall()
    except (OSError, sqlite3.Error, *READ_ERRORS) as error:
        raise DataError(
            f"the database cannot be read: {error}. It is copied to {tempfile.gettempdir()} first."
        ) from error
