"""Accessibility of pages, as axe-core of npm finds it."""

import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

VERSION = "4.14.1"
FILE = Path(tempfile.gettempdir()) / f"gradprix-axe-core-{VERSION}.js"


@cache
def axe_source() -> str:
    """Return the script axe-core, which npm downloads once; without npm or a network, skip the test."""
    if not FILE.exists():
        if shutil.which("npm") is None:
            pytest.skip("axe-core needs npm")
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", f"axe-core@{VERSION}", "--silent"]
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
            if ran.returncode:
                pytest.skip(f"npm cannot download axe-core: {ran.stderr[-200:]}")
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                member = archive.extractfile("package/axe.min.js")
                assert member is not None
                own = Path(folder) / "axe.js"
                own.write_bytes(member.read())
                shutil.move(own, FILE)
    return FILE.read_text("utf-8")


def serious_problems(page: Page) -> list[str]:
    """Return the serious and critical problems of a page: rule, number of elements, and the first of them."""
    page.evaluate(axe_source())
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        f"{each['id']}: {len(each['nodes'])} elements, such as {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
