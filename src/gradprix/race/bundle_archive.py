"""Zip archives with reproducible bytes, and their safe reading."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of all members, the earliest that a zip archive can hold."""
MAX_BYTES, MAX_MEMBERS = 500_000_000, 2_000
"""Largest size of all members together, and their largest number. Larger archives are not read."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Methods of compression that are read. Others can be decompressed only as a whole, whatever the size in the header."""
FILE = 0o100644 << 16
"""Attributes of a regular file in a zip archive."""


class ArchiveError(ValueError):
    """Raised if an archive is damaged, too large, or has an unsafe or unexpected member."""


def pack(members: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of files, whose bytes depend on their names and contents alone."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr, info.create_system, info.compress_type = FILE, 3, zipfile.ZIP_DEFLATED
            archive.writestr(info, members[name], compresslevel=9)
    return stream.getvalue()


def unpack(data: bytes, is_expected: Callable[[str], bool]) -> dict[str, bytes]:
    """Read all files of a zip archive into memory.

    Args:
        data: the archive.
        is_expected: function that returns True if a member may have a name.

    Raises:
        ArchiveError: if the archive is damaged, too large, or has a member that is twice in it, not expected,
            compressed by another method than deflate, or outside of a folder into which the archive is extracted.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > MAX_BYTES:
                raise ArchiveError(f"it is larger than {MAX_BYTES // 10**6} MB or {MAX_MEMBERS:,} files")
            if len({info.filename for info in infos}) < len(infos):
                raise ArchiveError("a name is twice in it")
            for info in infos:
                if info.is_dir() or not (_is_inside(info.filename) and is_expected(info.filename)):
                    raise ArchiveError(f"it has a member that no bundle has, {info.filename!r}")
                if info.compress_type not in METHODS:
                    raise ArchiveError(f"{info.filename!r} is compressed by another method than deflate")
            return {info.filename: _read(archive, info) for info in infos}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise ArchiveError(f"it is no zip archive, or a damaged one ({error})") from error
    except Exception as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(f"it cannot be decompressed ({error})") from error


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the content of a member. Not more than the size in its header is decompressed, which may be wrong."""
    with archive.open(info) as file:
        return file.read(max(info.file_size, 1))  # reading nothing would not compare the checksum


def _is_inside(name: str) -> bool:
    """Return True if a name is a relative path of a file on any system, without `..`."""
    path = PurePosixPath(name)
    is_plain = not path.is_absolute() and not any(character in name for character in "\\:\0")
    return is_plain and ".." not in path.parts and str(path) == name
