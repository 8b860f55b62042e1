"""The command line in this process, where it starts at once: a new interpreter imports torch for seconds."""

import contextlib
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gradprix.cli import app


def gradprix(*arguments: str, folder: Path, code: int = 0) -> Result:
    """Run a command in a folder and check its exit code."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))  # the folder of a user's file is added to it
        done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert done.exit_code == code, done.output
    return done
