"""Messages name the line of the user's own code, not one of a library that it calls."""

import functools
import json
import linecache
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from gradprix.tasks.user_code import find_users_frame, users_line

NOTEBOOK = "/tmp/ipykernel_1/2718.py"
"""A cell's code has a file name, and no file."""


def line_in_torch() -> Any:
    return torch.nn.Linear(2, 1)(torch.ones(3))


def line_in_json() -> Any:
    return json.loads("{")


def line_in_scikit_learn() -> Any:
    return accuracy_score([1, 2], [1])


def line_in_compiled_code() -> Any:
    return np.random.RandomState(0).choice([])


def line_in_generated_code() -> Any:
    return eval("1 / 0")


@functools.lru_cache
def line_behind_a_decorator() -> Any:
    return [].pop()


LINES = [
    line_in_torch,
    line_in_json,
    line_in_scikit_learn,
    line_in_compiled_code,
    line_in_generated_code,
    line_behind_a_decorator,
]


def raised_by(function: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function()
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # type: ignore[union-attr]  # without this file's
    return caught.value


@pytest.mark.parametrize("function", LINES)
def test_the_line_of_the_user_is_named(function: Callable[[], Any]) -> None:
    first = getattr(function, "__wrapped__", function).__code__.co_firstlineno
    error = raised_by(function)
    frame = find_users_frame(error)
    assert frame == find_users_frame(error, or_package=True)
    assert frame is not None
    assert str(frame.line).startswith("return")
    assert users_line(error) == f"test_user_code.py, line {frame.lineno}"
    assert frame.lineno in (first + 1, first + 2)


@pytest.fixture
def cell() -> Iterator[Callable[[], Any]]:
    source = "def cell():\n    return [][0]\n"
    linecache.cache[NOTEBOOK] = (len(source), None, source.splitlines(keepends=True), NOTEBOOK)
    names: dict[str, Any] = {}
    exec(compile(source, NOTEBOOK, "exec"), names)
    yield names["cell"]
    del linecache.cache[NOTEBOOK]


def test_a_cell_of_a_notebook_is_the_users(cell: Callable[[], Any]) -> None:
    frame = find_users_frame(raised_by(cell))
    assert frame is not None
    assert (frame.filename, frame.lineno, frame.line) == (NOTEBOOK, 2, "return [][0]")


def test_without_a_line_of_the_user_an_installed_package_is_named_if_it_is_asked_for() -> None:
    error = raised_by(functools.partial(accuracy_score, [1, 2], [1]))
    assert users_line(error) == ""
    frame = find_users_frame(error, or_package=True)
    assert frame is not None
    assert "sklearn" in Path(frame.filename).parts
    assert find_users_frame(raised_by(functools.partial(torch.nn.Linear(2, 1), torch.ones(3))), or_package=True) is None
