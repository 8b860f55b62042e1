"""Commands that are interrupted: what they print, and their exit code."""

from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest

from command_line import gradprix

SAVED = " Finished runs are saved; run the same command to resume."


@pytest.mark.parametrize(
    ("command", "place", "message"),
    [
        ("race digits", "race.make_plan", SAVED),
        ("tune digits --optimizer adam", "race.make_tune_plan", SAVED),
        ("suite", "race.suite_plans", SAVED),
        ("suite --entry adam", "race.suite_entry_plans", SAVED),
        ("race digits --plan", "race.make_plan", ""),
        ("tune digits --optimizer adam --plan", "race.make_tune_plan", ""),
        ("suite --plan", "race.suite_plans", ""),
        ("verify x.zip", "race.verify", ""),
        ("export x", "race.load", ""),
        ("report x", "race.load", ""),
        ("compare x y", "race.load", ""),
        ("explain adam", "explain.resolve_optimizer", ""),
        ("list tasks", "show.terminal.tasks", ""),
        ("claims", "claims.run", ""),
        ("data list", "show.tables.listing", ""),
    ],
)
def test_only_commands_that_save_runs_promise_to_resume(
    command: str, place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> NoReturn:
        raise KeyboardInterrupt

    module, _, name = f"gradprix.{place}".rpartition(".")
    monkeypatch.setattr(import_module(module), name, interrupt)
    done = gradprix(*command.split(), folder=tmp_path, code=130)
    assert done.stderr.strip() == f"gradprix: stopped.{message}"
