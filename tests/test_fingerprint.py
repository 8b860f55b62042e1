"""A changed task is another task: whatever its numbers depend on is in its fingerprint."""

import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from gradprix.tasks._fingerprint import fingerprint

FILE = """
import numpy as np
import helpers

EPOCHS = 1
TABLE = np.arange(3)

class Scorer:
    power = 2

    def __call__(self, x):
        return x**self.power

def double(x):
    return 2 * x

def within():
    offset = np.ones(2)

    def score(x):
        return x + offset

    return score

def train(x, y=1, *, z=2):
    return helpers.third(double(x)) + EPOCHS + TABLE.sum() + (lambda: double(y))()

scorer, closure = Scorer(), within()
"""
HELPERS = """
def third(x):
    return x / THREE

THREE = 3

def unused(x):
    return x
"""
PRINT = """
import sys
sys.path.insert(0, sys.argv[1])
import mine
from gradprix.tasks._fingerprint import fingerprint
print(fingerprint(mine.train), fingerprint(mine.scorer), fingerprint(mine.closure))
"""


def found(folder: Path, file: str = FILE, helpers: str = HELPERS) -> list[str]:
    """The fingerprints of what is in a file, in a process of their own."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(file)
    (folder / "helpers.py").write_text(helpers)
    command = [sys.executable, "-B", "-c", PRINT, str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return found(tmp_path_factory.mktemp("plain"))


def test_the_same_code_is_the_same_in_another_process(plain: list[str], tmp_path: Path) -> None:
    assert found(tmp_path) == plain


@pytest.mark.parametrize(
    ("old", "new", "which"),
    [
        ("EPOCHS = 1", "EPOCHS = 7", 0),
        ("np.arange(3)", "np.arange(4)", 0),
        ("return 2 * x", "return 3 * x", 0),
        ("y=1", "y=2", 0),
        ("z=2", "z=3", 0),
        ("power = 2", "power = 3", 1),
        ("x**self.power", "x + self.power", 1),
        ("np.ones(2)", "np.zeros(2)", 2),
    ],
)
def test_what_the_code_uses_makes_another(plain: list[str], tmp_path: Path, old: str, new: str, which: int) -> None:
    changed = found(tmp_path, FILE.replace(old, new))
    assert [a != b for a, b in zip(plain, changed, strict=True)] == [i == which for i in range(3)]


def test_modules_of_ones_own_are_followed_as_far_as_they_are_used(plain: list[str], tmp_path: Path) -> None:
    for old, new, differs in (
        ("x / THREE", "x * THREE", True),
        ("THREE = 3", "THREE = 4", True),
        ("return x\n", "return -x\n", False),
    ):
        assert old in HELPERS
        changed = found(tmp_path, helpers=HELPERS.replace(old, new))
        assert (changed[0] != plain[0]) is differs, old


def test_arrays_frames_caches_and_partials() -> None:
    pandas = pytest.importorskip("pandas")
    assert fingerprint(np.arange(3)) != fingerprint(np.arange(3.0)) != fingerprint(np.arange(4.0))
    assert fingerprint(np.array(["a", None], object)) != fingerprint(np.array(["b", None], object))
    frame = pandas.DataFrame({"a": [1, 2]})
    assert fingerprint(frame) == fingerprint(frame.copy()) != fingerprint(frame + 1)

    def first(x: int) -> int:
        return x + 1

    def second(x: int) -> int:
        return x + 2

    assert fingerprint(cache(first)) != fingerprint(cache(second))
    assert fingerprint(partial(first, 1)) != fingerprint(partial(first, 2))


def test_what_contains_itself_ends() -> None:
    things: list[object] = [1]
    things.append(things)
    assert fingerprint(things) == fingerprint(things)
