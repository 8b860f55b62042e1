"""A changed task is another task: whatever its numbers depend on is in its fingerprint."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gradprix.tasks.archives import archive
from gradprix.tasks.fingerprint import fingerprint

FILE = """
import numpy as np
import fingerprinted_helpers as helpers

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
import fingerprinted
from gradprix.tasks.fingerprint import fingerprint
print(fingerprint(fingerprinted.train), fingerprint(fingerprinted.scorer), fingerprint(fingerprinted.closure))
"""


NAMES = ("fingerprinted", "fingerprinted_helpers")
"""No other test has modules of these names, which the test process would still know."""


def write(folder: Path, file: str = FILE, helpers: str = HELPERS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "fingerprinted.py").write_text(file)
    (folder / "fingerprinted_helpers.py").write_text(helpers)
    return folder


def fingerprints(folder: Path, file: str = FILE, helpers: str = HELPERS) -> list[str]:
    """Return the fingerprints of what is in a file, whose modules are imported anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(write(folder, file, helpers))
        patch.setattr(sys, "dont_write_bytecode", True)
        for name in NAMES:
            patch.delitem(sys.modules, name, raising=False)
        try:
            module = importlib.import_module(NAMES[0])
            assert module.__file__ == str(folder / "fingerprinted.py"), sys.meta_path
            return [fingerprint(each) for each in (module.train, module.scorer, module.closure)]
        finally:
            for name in NAMES:
                sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return fingerprints(tmp_path_factory.mktemp("plain"))


def test_the_same_code_is_the_same_in_another_process(plain: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-B", "-c", PRINT, str(write(tmp_path))]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == plain


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
    changed = fingerprints(tmp_path, FILE.replace(old, new))
    assert [a != b for a, b in zip(plain, changed, strict=True)] == [i == which for i in range(3)]


def test_modules_of_ones_own_are_followed_as_far_as_they_are_used(plain: list[str], tmp_path: Path) -> None:
    for old, new, differs in (
        ("x / THREE", "x * THREE", True),
        ("THREE = 3", "THREE = 4", True),
        ("return x\n", "return -x\n", False),
    ):
        assert old in HELPERS
        changed = fingerprints(tmp_path / new.strip().replace("/", "by"), helpers=HELPERS.replace(old, new))
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


UNSTEADY = """
import collections, dataclasses, enum, functools, io, logging, os, pathlib, random, re, tempfile, threading, weakref
import numpy as np, pandas, torch
from torch import nn

A, LIMIT = 1, 2
WORDS = {"one", "two", "three", "four", "five"}
TABLE = {word: len(word) for word in WORDS}
LOCK, LOG, OPEN, FOLDER = threading.Lock(), logging.getLogger("mine"), open(os.devnull), tempfile.mkdtemp()
THREAD = threading.Thread(target=print)
GENERATORS = [np.random.default_rng(), random.Random(), torch.Generator(), (x for x in range(3))]
os.rmdir(FOLDER)

def relu(x):
    return x.clamp(min=A)

class Colour(enum.Enum):
    RED = 1

class Holds:
    def __init__(self, value):
        self.value, self.lock, self.log, self.call = value, threading.RLock(), LOG, self.method

    def method(self):
        return self.value * LIMIT

class Slots:
    __slots__ = ("left", "right")

    def __init__(self, left, right):
        self.left, self.right = left, right

class Lazy:
    @property
    def twice(self):
        return A + A

@dataclasses.dataclass
class Config:
    rate: float = 0.5
    call: object = relu
    words: list = dataclasses.field(default_factory=lambda: [A])

class Activated(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f, self.linear, self.rate = f, nn.Linear(2, 2), A
        nn.init.ones_(self.linear.weight), nn.init.zeros_(self.linear.bias)

    def extra_repr(self):
        return f"f={self.f}"

    def forward(self, x):
        return self.f(self.linear(x))

@functools.singledispatch
def each(x):
    return A

@each.register
def _(x: int):
    return LIMIT

def wrapped(f):
    @functools.wraps(f)
    def inner(*args):
        return f(*args)
    return inner

def log():
    with LOCK:
        LOG.info(OPEN, THREAD, FOLDER, os.environ)
    return GENERATORS

holder = Holds(A)
ring = [A]
ring.append({"self": ring})
chain = None
for _ in range(2000):
    chain = (A, chain)
EVERY = {
    "partial": functools.partial(relu, A),
    "bound": holder.method,
    "instance": holder,
    "slots": Slots(A, relu),
    "property": Lazy(),
    "dataclass": Config(rate=A),
    "dataclass type": Config,
    "network": Activated(relu),
    "network of a lambda": Activated(lambda x: x + A),
    "hook": (hooked := nn.Linear(1, 1), nn.init.ones_(hooked.weight), nn.init.ones_(hooked.bias),
             hooked.register_forward_hook(lambda *_: A))[0],
    "frozen": nn.Linear(1, 1).requires_grad_(False) and nn.Sequential(nn.Dropout(A / 4), nn.Flatten(A)),
    "objects": np.array([relu, A, None, WORDS, holder], object),
    "object in an object": np.array([[np.array([relu, A], object), 1]], object),
    "frame": pandas.DataFrame({"a": [A], "b": [relu]}),
    "labels": pandas.Series([1.0], index=[f"row {A}"]),
    "masked": np.ma.masked_array([1, 2], [A == 1, False]),
    "words": (lambda: WORDS, A),
    "table": (lambda: TABLE, A),
    "functions": {relu, each, wrapped, A},
    "by function": {relu: A, wrapped: 2, each: 3},
    "cache": functools.lru_cache(relu),
    "wrapper": wrapped(relu),
    "dispatch": each,
    "resources": [log, A],
    "reference": [weakref.ref(holder), A],
    "builtin": [[A].append, str.lower, np.add, torch.relu, re.compile(f"a{A}"), collections.deque([A])],
    "member": (Colour.RED, A),
    "ring": ring,
    "chain": chain,
    "path": (pathlib.Path(FOLDER) / "x.csv", FOLDER + "/y.csv", f"{relu}", A),
    "sparse": torch.eye(3).mul(A).to_sparse(),
    "bfloat16": torch.ones(2, dtype=torch.bfloat16) * A,
    "zero dimensions": torch.tensor(float(A)),
    "no values": (torch.empty(2, device="meta"), A),
    "counter": collections.Counter({"x": A}),
    "device": (torch.device("cpu"), torch.float32, slice(A), range(A), A + 1j),
}
"""
PRINT_EVERY = """
import importlib, json, sys
from gradprix.tasks.fingerprint import fingerprint
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    sys.modules.pop("unsteady", None)
    unsteady = importlib.import_module("unsteady")
    print(json.dumps({name: fingerprint(each) for name, each in unsteady.EVERY.items()}))
"""


def every(folder: Path, hashed: str, *texts: str) -> list[dict[str, str]]:
    """Return the fingerprints of everything in the given files, from a process with a hash seed."""
    folders = [folder / hashed / str(number) for number in range(len(texts))]
    for place, text in zip(folders, texts, strict=True):
        place.mkdir(parents=True)
        (place / "unsteady.py").write_text(text)
    command = [sys.executable, "-B", "-c", PRINT_EVERY, *map(str, folders)]
    started = {**os.environ, "PYTHONHASHSEED": hashed, f"OF_{hashed}": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=started)
    return [json.loads(line) for line in done.stdout.splitlines()]


TASKS = """
import sys
from gradprix.tasks import find
found = {name: find(name, "small", None).fingerprint for name in sys.argv[1:]}
print(*(found[name] for name in sorted(found)))
"""


def test_the_fingerprint_of_a_task_depends_neither_on_other_tasks_nor_on_the_files_of_its_data(tmp_path: Path) -> None:
    def found(names: list[str], **environment: str) -> list[str]:
        command, started = [sys.executable, "-c", TASKS, *names], {**os.environ, **environment}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=started).stdout.split()

    names = ["diamonds", "mnist", "sentiment"]
    first = found(names)
    shutil.copytree(archive("mnist").fetch().parent, tmp_path / "gradprix" / "data", copy_function=shutil.copyfile)
    assert found(names[::-1], GRADPRIX_CACHE=str(tmp_path)) == first


def test_nothing_that_differs_between_two_processes_is_in_it_and_all_that_matters_is(tmp_path: Path) -> None:
    other_values = UNSTEADY.replace("A, LIMIT = 1, 2", "A, LIMIT = 3, 2")
    other_helper = UNSTEADY.replace("x.clamp(min=A)", "x.clamp(max=A)")
    (first,) = every(tmp_path, "1", UNSTEADY)
    second, changed, helper = every(tmp_path, "2", UNSTEADY, other_values, other_helper)
    assert {name for name in first if first[name] != second[name]} == set()
    assert {name for name in first if second[name] == changed[name]} == set()
    follows = {"partial", "slots", "network", "objects", "object in an object", "frame", "functions", "by function"}
    assert {name for name in first if second[name] != helper[name]} >= {*follows, "cache", "wrapper", "dataclass"}


def test_a_module_of_a_module_is_followed_and_what_is_not_used_is_not() -> None:
    package, inner = ModuleType("package"), ModuleType("package.inner")
    package.__dict__.update(inner=inner, other=1, __path__=["/home/me/package"])  # without a file of its own
    inner.__dict__.update(constant=1, __file__="/home/me/package/inner.py")
    free = eval("lambda: package.inner.constant", {"package": package})
    before = fingerprint(free)
    package.__dict__["other"] = 2
    assert fingerprint(free) == before
    inner.__dict__["constant"] = 2
    assert fingerprint(free) != before
