"""Plan of tuning one optimizer."""

from dataclasses import dataclass, fields
from typing import Any

from gradprix.rules.modifiers import split_names
from gradprix.tasks.loop import Problem
from gradprix.utils.wording import format_list

from .config import RaceConfig, find_problem, has_schedule, tune_entries
from .entry import Entry
from .entry_registry import resolve_entries
from .plan import Plan, RacePhase
from .plan_limits import TRIALS

TUNE_SEEDS = 8
"""Default number of final seeds at each setting. Few suffice, because an unsuitable default learning rate is worse by
many margins."""
DEFAULT_LABEL = "{} at its default settings"
"""Template of the name of the final runs at the default settings."""
TUNE_FIELDS = [
    each.name
    for each in fields(RaceConfig)
    if each.name not in ("task", "optimizers", "bracket", "baseline", "minutes")
]
"""Fields of `RaceConfig` that apply to tuning one optimizer."""


@dataclass(frozen=True)
class TunePlan(Plan):
    """Plan of tuning one optimizer, with final runs at the tuned and at the default settings.

    Args:
        default: entry of the optimizer at its default settings; None if its learning rate has no default.
    """

    default: Entry | None = None

    @property
    def entry(self) -> Entry:
        """Entry of the optimizer that is tuned."""
        return self.entries[0]

    @property
    def settings(self) -> int:
        """Number of settings at which there are final runs: 2, or 1 if the learning rate has no default."""
        return 1 if self.default is None else 2

    @property
    def quarter_runs(self) -> dict[str, int]:
        """Empty: there is no ranking that could depend on the budget."""
        return {}

    @property
    def phases(self) -> list[RacePhase]:
        """All phases of tuning, then the final runs at all settings."""
        *tuning, final = super().phases
        return [*tuning, final._replace(runs={name: self.settings * count for name, count in final.runs.items()})]

    @property
    def runs(self) -> int:
        """Number of training runs."""
        return self.tuning_runs + self.settings * self.seeds

    @property
    def default_point(self) -> dict[str, Any]:
        """Default values of the tuned hyperparameters, by name; empty if the learning rate has no default."""
        if self.default is None:
            return {}
        rate = self.default.default_rate
        schedule = self.default.schedule or self.task.schedule
        training = {"batch_size": self.batch_size(self.default), "schedule": schedule}
        training["clip_norm"] = self._clip_norm
        values = {**training, **self.default.rule_defaults, **self.default.values(rate), "lr": rate}
        return {name: values.get(name) for name in self.entry.space}


def make_tune_plan(config: RaceConfig) -> TunePlan:
    """Create the plan of tuning the optimizer of a configuration, without running it.

    Raises:
        ValueError: if a name is unknown, a value is out of range, or there are several optimizers.
        TypeError: if the task or the optimizer has an unsupported type.
        TaskError: if the function that returns the task fails.
    """
    problem: Problem = find_problem(config)
    usual = _find_optimizer(config.optimizers, has_schedule(problem))
    (entry,) = tune_entries([usual], config, problem)
    if "lr" not in entry.space:
        raise ValueError(f"{entry.name} has no learning rate to tune, which is what this is for. Race it.")
    return TunePlan(
        problem,
        (entry,),
        trials=config.trials or problem.trials or TRIALS,
        seeds=config.seeds or TUNE_SEEDS,
        seed=config.seed,
        compiled=config.compile,
        device=config.device or "auto",
        default=usual if usual.has_default_rate else None,
    )


def _find_optimizer(given: Any, scheduled: bool) -> Entry:
    """Return the entry of the optimizer to tune.

    Raises:
        TypeError: if the argument is neither a name nor a list.
        ValueError: unless there is exactly one optimizer.
    """
    if not isinstance(given, str | list | tuple):
        raise TypeError(
            f"optimizer = {given!r}: give one name, such as 'adamw', or an entry of your own, such as "
            "gp.Entry('mine', MyOptimizer)."
        )
    names = split_names(given) if isinstance(given, str) else list(given)
    if not names:
        raise ValueError("no optimizer to tune: give a name, such as adamw. `gradprix list optimizers` lists them.")
    if len(names) > 1 or names == ["all"]:
        raise ValueError(
            f"{format_list(list(map(str, names)))}: this tunes one optimizer. Give one name; to compare several, race "
            f"them (gradprix race TASK --optimizers {','.join(map(str, names))})."
        )
    return resolve_entries(names[0], scheduled)[0]
