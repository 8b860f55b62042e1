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

BROKEN = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, EOFError)
"""Exceptions of the standard library for truncated or invalid archives."""


class DataError(ValueError):
    """Data that cannot be obtained or read; the message says what is wrong and what to try."""


class Files(contextlib.AbstractContextManager["Files"]):
    """The files of a zip or a tar.gz. All names are checked, including those that are not requested.

    Args:
        stream: the archive; it is closed together with this object.
        tar: True for a tar.gz, False for a zip.
        label: name of the archive in error messages.

    Raises:
        DataError: if it cannot be read, or holds a link or a name that leads out of it.
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
        except BROKEN as error:
            raise DataError(f"{label} cannot be read as {'tar.gz' if tar else 'zip'}: {error}.") from error
        for name, _, plain in entries:
            if not plain or _leads_out(name):
                raise DataError(f"{label} holds {name!r}, a link or a name that leads out of it, and is refused.")
        self.names = [name for name, is_file, _ in entries if is_file]

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def open(self, name: str) -> IO[bytes]:
        """One file as a stream.

        Raises:
            DataError: when there is no such file.
        """
        stream = self._open(name) if name in self.names else None
        if stream is None:
            near = difflib.get_close_matches(name, self.names, n=1)
            raise DataError(
                f"{self.label} has no file {name!r}." + "".join(f" Did you mean {each!r}?" for each in near)
            )
        return stream

    def read(self, name: str) -> bytes:
        """All of one file.

        Raises:
            DataError: when there is no such file, or it cannot be read.
        """
        try:
            with self.open(name) as stream:
                return stream.read()
        except BROKEN as error:
            raise DataError(f"{name!r} in {self.label} cannot be read: {error}.") from error


def _leads_out(name: str) -> bool:
    path = PureWindowsPath(name)  # covers Unix paths, drives and backslashes
    return bool(path.drive or path.root or ".." in path.parts)


def inside(archive: bytes, name: str) -> bytes:
    """One file of a tar.gz that is itself a file of an archive.

    Args:
        archive: the inner tar.gz.
        name: of the file in it.

    Returns:
        The file's content.

    Raises:
        DataError: as `Files` does.
    """
    with Files(BytesIO(archive), tar=True, label=f"the archive of {name!r}") as files:
        return files.read(name)


def catalogue(file: bytes) -> list[tuple[str, str]]:
    """The translations in a compiled gettext catalogue (`.mo`), in its order, without its header.

    Args:
        file: its content.

    Returns:
        Pairs of original and translation. Of texts with a plural the singular, of texts with a context the text.

    Raises:
        DataError: when it is no catalogue.
    """
    # gettext's own reader does not expose the catalogue. Format: GNU gettext manual, "The Format of GNU MO Files".
    try:
        order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}[file[:4]]
        count, originals, translations = struct.unpack_from(f"{order}III", file, 8)
        texts = []
        for table in (originals, translations):
            places = struct.iter_unpack(f"{order}II", file[table : table + 8 * count])
            texts.append([file[at : at + length].decode().partition("\0")[0] for length, at in places])
        pairs = list(zip(*texts, strict=True))
    except (KeyError, UnicodeDecodeError, ValueError, struct.error) as error:
        raise DataError("this is no gettext catalogue in UTF-8.") from error
    return [(original.rpartition("\x04")[2], translation) for original, translation in pairs if original]


def rows(database: IO[bytes], query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
    """What a query finds in an SQLite database that is a file of an archive.

    Args:
        database: the file, as a stream.
        query: SQL with `?` for each value.
        values: what the `?` stand for.

    Returns:
        The rows.

    Raises:
        DataError: when the database or the query is not as it should be, or there is no room for a copy.
    """
    # SQLite needs random access, which zip members lack; in memory, a large database would be held twice.
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            with copy.open("wb") as out:
                copyfileobj(database, out, 1 << 20)
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                return connection.execute(query, tuple(values)).fetchall()
    except (OSError, sqlite3.Error, *BROKEN) as error:
        raise DataError(
            f"the database cannot be read: {error}. It is copied to {tempfile.gettempdir()} first."
        ) from error
