"""Races between optimizers: plan, execution, journal, record and verdict."""

import inspect
import sys
from types import ModuleType

from gradprix.executors.executor import Executor, WorkerError
from gradprix.executors.local import Local
from gradprix.executors.ray_executor import Ray
from gradprix.executors.ray_init import EngineError
from gradprix.stats.alpha_spending import NoAnalysisLeftError
from gradprix.stats.verdict import Pair, Verdict, judge
from gradprix.tasks.task import TaskError
from gradprix.training.autotune import MemoryTooSmallError

from .alternatives import TooLittleTimeError
from .api import race, tune
from .best import Best
from .budget import fit_to_budget
from .bundle import BundleError, Provenance, write_bundle
from .config import RaceConfig, make_plan
from .control import ControlError
from .cost import estimate
from .cost_measurement import measure_cost
from .entry import Entry, twin
from .entry_registry import BRACKETS, ENTRIES, entries
from .expensive_entries import ExpensiveEntryWarning
from .journal import BusyError, Journal, JournalError, OtherRaceError
from .live_files import LiveProgress, Watch
from .plan import Plan
from .plan_limits import SEEDS, TRIALS
from .progress_display import progress
from .protocol import run
from .published_task import PublishedError, PublishedTask, load_published, publish
from .record import RaceRecord
from .result import PICTURE, REPORT, Result, load
from .saved_result import SavedResult
from .suite_entry_plan import SuiteEntryPlan, suite_entry_plans
from .suite_entry_record import SuiteComparison, TaskComparison
from .suite_entry_runner import SuiteEntryResult, enter_suite, run_suite_entry
from .suite_runner import published_entries, suite, suite_plans
from .suite_summary import summed_up
from .tune_plan import TunePlan, make_tune_plan
from .tune_record import TuneRecord
from .tune_runner import TUNE_PAGE, TuneResult, run_tuning
from .verification import verify
from .verification_record import Status, Verification

__all__ = [
    "BRACKETS",
    "ENTRIES",
    "PICTURE",
    "REPORT",
    "SEEDS",
    "TRIALS",
    "TUNE_PAGE",
    "Best",
    "BundleError",
    "BusyError",
    "ControlError",
    "Engine",
    "EngineError",
    "Entry",
    "Executor",
    "ExpensiveEntryWarning",
    "Journal",
    "JournalError",
    "LiveProgress",
    "Local",
    "MemoryTooSmallError",
    "NoAnalysisLeftError",
    "OtherRaceError",
    "Pair",
    "Plan",
    "Provenance",
    "PublishedError",
    "PublishedTask",
    "RaceConfig",
    "RaceRecord",
    "Ray",
    "Result",
    "SavedResult",
    "Status",
    "SuiteComparison",
    "SuiteEntryPlan",
    "SuiteEntryResult",
    "TaskComparison",
    "TaskError",
    "TooLittleTimeError",
    "TunePlan",
    "TuneRecord",
    "TuneResult",
    "Verdict",
    "Verification",
    "Watch",
    "WorkerError",
    "enter_suite",
    "entries",
    "estimate",
    "fit_to_budget",
    "fitted",
    "judge",
    "load",
    "load_published",
    "make_plan",
    "make_tune_plan",
    "measure_cost",
    "measured",
    "progress",
    "publish",
    "published_entries",
    "race",
    "run",
    "run_suite_entry",
    "run_tuning",
    "suite",
    "suite_entry_plans",
    "suite_plans",
    "summed_up",
    "tune",
    "twin",
    "verify",
    "write_bundle",
]

Engine, fitted, measured = Executor, fit_to_budget, measure_cost
"""Former names of these objects."""


class _Callable(ModuleType):
    """Type of this package's module, which is callable: `gradprix.race(...)` runs a race.

    Names such as `gradprix.race.Plan` remain available as attributes.
    """

    __call__ = staticmethod(race)
    __signature__ = inspect.signature(race)
    __wrapped__ = race


sys.modules[__name__].__class__ = _Callable
