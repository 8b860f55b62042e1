import os
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

# Before torch is loaded: its threads must not spin while they wait, for tests run side by side and start processes. On
# two busy cores the claims' tests took 215 s with spinning threads and 26 s without.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")  # before torch is loaded: lanes in this process round as workers do

import pytest
import torch

from torch_helpers import default_dtype_restored


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Write the bytecode of tests and package even where Python is told not to.

    Without it, compiling the tests takes ten seconds, and compiling the package half a second in each process that a
    test starts.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="takes minutes: scripts/test --slow")
        number: Counter[str] = Counter()
        for item in items:
            sample = item.get_closest_marker("sample")
            name = item.nodeid.partition("[")[0]
            if "slow" in item.keywords or (sample is not None and number[name] % sample.args[0]):
                item.add_marker(skip)
            number[name] += 1


@pytest.fixture
def float64() -> Iterator[None]:
    """Default dtype float64, in which agreement with torch is judged."""
    with default_dtype_restored():
        torch.set_default_dtype(torch.float64)
        yield


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Either default dtype of torch."""
    with default_dtype_restored():
        torch.set_default_dtype(request.param)
        yield request.param


@pytest.fixture(autouse=True)
def checks_are_not_remembered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check every plan: tests replace parts of preflight, whose result would otherwise be that of another test."""
    if "remembered" not in request.keywords and "gradprix.race.preflight" in sys.modules:
        monkeypatch.setattr("gradprix.race.preflight.find_checked_mode", lambda plan, engine: None)
        monkeypatch.setattr("gradprix.race.preflight.record_checked_mode", lambda plan, engine, mode: None)


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Browser of all tests: playwright runs once in a process. `app_browser.faultless` opens pages of the app."""
    app_browser = pytest.importorskip("app_browser", reason="needs playwright and Flask", exc_type=ImportError)
    if app_browser.chromium() is None:
        pytest.skip("there is no chromium on this machine")
    with app_browser.launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def app_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the app, with an empty folder of saved races."""
    app_browser = pytest.importorskip("app_browser", reason="needs playwright and Flask", exc_type=ImportError)
    with app_browser.served(tmp_path_factory.mktemp("runs")) as url:
        yield url
