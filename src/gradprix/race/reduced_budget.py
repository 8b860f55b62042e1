"""Runs of the tuned optimizers with fewer examples: at a quarter of the budget, and in equal time.

All are complete runs with a schedule of their own. The score of a longer run at an earlier point would say little,
because most progress comes when its learning rate decays.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from gradprix.stats.budget_sensitivity import distance_changes
from gradprix.training.trial import Trial
from gradprix.tuning.tuner import TuningResult

from .analysis import Analysis, bound_regrets, final_score, test_parts
from .plan import QUARTER, Plan
from .plan_limits import FEWEST_STEPS
from .record import LARGEST_TIME_RATIO, BudgetSensitivity, EqualTime
from .run_records import Finals, Outcomes, outcomes_by_entry

EQUAL_TIME_SEEDS = 8
"""Maximum number of seeds of the comparison in equal time."""

TrialsByEntry = dict[str, list[Trial]]
"""Trials of each entry, in the order of the seeds."""


def quarter_trials(plan: Plan, tuned: Mapping[str, TuningResult]) -> TrialsByEntry:
    """Return the runs of each entry at its tuned values with a quarter of the examples."""
    return {
        entry.name: [
            plan.final_trial(entry, dict(tuned[entry.name].point), seed, QUARTER)
            for seed in range(plan.quarter_runs[entry.name])
        ]
        for entry in plan.entries
        if entry.name in plan.quarter_runs
    }


def summarize_quarter(plan: Plan, quarter: Finals, analysis: Analysis) -> BudgetSensitivity | None:
    """Compare the runs with a quarter of the examples with the final runs; return None if there are none."""
    if not quarter:
        return None
    values, higher_is_better = _scores(plan, outcomes_by_entry(quarter), analysis), plan.task.metric.higher_is_better
    full, reference = {name: analysis.values[name] for name in values}, analysis.recommended
    if reference not in values:  # its short runs would have too few steps
        reference = (max if higher_is_better else min)(full, key=lambda name: fmean(full[name]))
    return BudgetSensitivity(
        share=QUARTER,
        seeds=len(next(iter(quarter.values()))),
        values=values,
        reference=reference,
        changes=distance_changes(values, full, reference, higher_is_better),
    )


def time_ratios(
    plan: Plan,
    tuned: Mapping[str, TuningResult],
    analysis: Analysis,
    step_seconds: Mapping[str, float | None],
) -> dict[str, float] | None:
    """Return the time of each entry's run as a multiple of the fastest leader's.

    Returns:
        The ratios; None if a time is unknown, or if no run takes so much longer that the comparison would change.
    """
    seconds = {}
    for entry in plan.entries:
        point, step = dict(tuned[entry.name].point), step_seconds[entry.name]
        updates = plan.updates(entry, point.get("batch_size"))
        if step is None or updates is None:
            return None
        seconds[entry.name] = step * updates
    fastest = min(seconds[name] for name in analysis.verdict.leaders)
    ratios = {name: each / fastest for name, each in seconds.items()}
    return ratios if max(ratios.values()) > LARGEST_TIME_RATIO else None


def equal_time_trials(
    plan: Plan, tuned: Mapping[str, TuningResult], ratios: Mapping[str, float], seeds: int
) -> TrialsByEntry:
    """Return the runs of the slower entries with so few examples that they take as long as the fastest leader's.

    Empty if there are none, or if any of them would have too few steps to compare.
    """
    trials = {
        entry.name: [
            plan.final_trial(entry, dict(tuned[entry.name].point), seed, 1 / ratios[entry.name])
            for seed in range(min(seeds, EQUAL_TIME_SEEDS))
        ]
        for entry in plan.entries
        if ratios[entry.name] > LARGEST_TIME_RATIO
    }
    shortened = {name: each for name, each in trials.items() if _share(plan, each[0]) < 1}
    is_short = any((plan.steps_of(each[0]) or 0) < FEWEST_STEPS for each in shortened.values())
    return {} if is_short else shortened


def _share(plan: Plan, trial: Trial) -> float:
    """Return the share of the examples of a full run that a trial has."""
    return (plan.examples_of(trial) or 0) / (plan.examples or 1)


def summarize_equal_time(
    plan: Plan, ratios: Mapping[str, float], shortened: Finals, finals: Finals, analysis: Analysis
) -> EqualTime:
    """Compare the shortened runs of the slower entries with the full runs of the others."""
    seeds = len(next(iter(shortened.values())))
    runs = outcomes_by_entry({name: shortened.get(name, finals[name])[:seeds] for name in finals})
    values = _scores(plan, runs, analysis)
    higher_is_better = plan.task.metric.higher_is_better
    settings: dict[str, Any] = {
        "higher_is_better": higher_is_better,
        "parts": test_parts(runs, analysis.chance_level),
        "tuning": dict.fromkeys(values, analysis.tuning_deviation),
    }
    every = {name: [*runs[name], *(run for _, run in finals[name])] for name in finals}
    diverged = {name: sum(run.diverged is not None for run in each) for name, each in every.items()}
    bounds = bound_regrets(values, [name for name in values if not diverged[name]], settings)
    recommended = analysis.recommended
    # Runs of the same length as before are no reason for another choice, but noise, as there are fewer seeds.
    if diverged[recommended] or (recommended in shortened and bounds[recommended] > analysis.margin):
        stable = [name for name in values if diverged[name] == min(diverged.values())]
        recommended = (max if higher_is_better else min)(stable, key=lambda name: sum(values[name]))
    shares = {name: _share(plan, shortened[name][0][0]) if name in shortened else 1.0 for name in finals}
    return EqualTime(
        seeds=seeds, ratios=dict(ratios), shares=shares, values=values, bounds=bounds, recommended=recommended
    )


def _scores(plan: Plan, runs: Outcomes, analysis: Analysis) -> dict[str, tuple[float, ...]]:
    """Return the metric of each run; that of a diverged run is not better than any other here or at the full budget."""
    chance_level = analysis.chance_level
    if plan.task.baseline is None:
        worst = min if plan.task.metric.higher_is_better else max
        finite = [run.test_metric for each in runs.values() for run in each if run.test_metric is not None]
        chance_level = worst([chance_level, *finite])
    return {name: tuple(final_score(run, chance_level) for run in each) for name, each in runs.items()}
