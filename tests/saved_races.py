"""Saved races for tests of the app."""

from pathlib import Path

import pytest

from gradprix.executors.local import Local
from gradprix.race import LiveProgress, make_plan, run
from gradprix.show import write_report

NAMES = ["adam", "momentum", "gd"]


class Interrupt(Exception):
    """Ends a race early."""


def save_races(home: Path) -> Path:
    """Save two finished races, `digits-small` and `shorter`, and `stopped`, and return the folder."""
    plan = make_plan("digits", NAMES, preset="small", trials=4, seeds=6)
    write_report(run(plan, home / "digits-small", Local(2)))
    shorter = make_plan("digits", ["adam", "momentum", "rmsprop"], preset="small", trials=4, seeds=6, epochs=3)
    run(shorter, home / "shorter", Local(2))

    def watch(progress: LiveProgress) -> None:
        if progress.phase == "final":
            raise Interrupt

    with pytest.raises(Interrupt):
        run(make_plan("digits", NAMES, preset="small", trials=4, seeds=7), home / "stopped", Local(2), watch)
    return home
