"""Which optimizer is best: plan, lanes, engines, journal, verdict."""

from ._engine import Engine, Local
from ._entry import BRACKETS, ENTRIES, Entry, UnknownNameError, entries, twin
from ._journal import Journal, OtherRaceError
from ._plan import SEEDS, TRIALS, Plan
from ._race import Watch, make_plan, race, run
from ._result import REPORT, Best, Result, load
from ._verdict import Pair, Verdict, judge

__all__ = [
    "BRACKETS",
    "ENTRIES",
    "REPORT",
    "SEEDS",
    "TRIALS",
    "Best",
    "Engine",
    "Entry",
    "Journal",
    "Local",
    "OtherRaceError",
    "Pair",
    "Plan",
    "Result",
    "UnknownNameError",
    "Verdict",
    "Watch",
    "entries",
    "judge",
    "load",
    "make_plan",
    "race",
    "run",
    "twin",
]
