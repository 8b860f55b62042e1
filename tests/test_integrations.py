"""Optional libraries: what gradprix says without them, and the reports of trainers that block."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from torch import nn

import gradprix as gp
from gradprix.integrations.optional import require
from gradprix.integrations.reports import Report, add_test_score, iterate_reports

EXAMPLES = sorted((Path(__file__).parents[1] / "examples" / "integrations").glob("*.py"))


def test_a_missing_library_is_named_with_its_extra() -> None:
    with pytest.raises(ImportError, match=r"no_such_library is not installed: pip install 'gradprix\[lightning\]'"):
        require("no_such_library.part", "lightning")


TASKS: dict[str, Callable[[], gp.Task]] = {
    "lightning": lambda: gp.integrations.lightning.task(nn.Identity, (), metric="acc", baseline=0.0, epochs=1),
    "transformers": lambda: gp.integrations.transformers.task(nn.Identity, {}),
}


@pytest.mark.parametrize("library", TASKS)
def test_a_task_needs_its_library(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (library, "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed

    with pytest.raises(ImportError, match=rf"pip install 'gradprix\[{library}\]'"):
        TASKS[library]()


def test_an_error_within_a_library_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        require("broken_library", "lightning")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_short(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if line.strip()]

    assert len(lines) < 25


def count_to(last: int, seen: list[int]) -> Callable[[Report], None]:
    """Return a training function that reports the numbers from 1 on until it is told to stop."""

    def train(report: Report) -> None:
        for number in range(1, last + 1):
            seen.append(number)
            if not report({"valid": number}):
                break

    return train


def test_a_blocking_function_runs_one_epoch_for_each_report() -> None:
    seen: list[int] = []
    reports = iterate_reports(count_to(3, seen))

    assert next(reports) == {"valid": 1}
    assert seen == [1]
    assert list(reports) == [{"valid": 2}, {"valid": 3}]


def test_closing_ends_the_blocking_function() -> None:
    seen: list[int] = []
    reports = iterate_reports(count_to(1_000, seen))
    next(reports)
    reports.close()  # type: ignore[attr-defined]

    assert seen == [1]


class End(BaseException):
    """As what ends a loop at an optimizer's step."""


@pytest.mark.parametrize("error", [ValueError("wrong"), End()], ids=["error", "end"])
def test_an_error_of_the_blocking_function_is_that_of_the_loop(error: BaseException) -> None:
    def train(report: Report) -> None:
        report({"valid": 1})
        raise error

    reports = iterate_reports(train)
    next(reports)
    with pytest.raises(type(error)) as caught:
        next(reports)
    assert caught.value is error


def test_a_report_after_the_end_of_training_does_not_wait() -> None:
    kept: list[Report] = []
    list(iterate_reports(kept.append))

    assert kept[0]({"valid": 1}) is False


def test_the_last_report_has_the_test_score() -> None:
    reports: list[Mapping[str, float]] = list(add_test_score(iterate_reports(count_to(2, [])), lambda: 0.5))

    assert reports == [{"valid": 1}, {"valid": 2, "test": 0.5}]
    assert list(add_test_score(iter([]), lambda: 0.5)) == []
