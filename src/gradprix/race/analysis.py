"""Interim analysis of a race: comparisons, regret bounds, learning-rate tolerances, and the recommendation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from msgspec import structs

from gradprix.stats.alpha_spending import InterimAnalysis
from gradprix.stats.comparison_with_best import regret_bounds
from gradprix.stats.recommendation import Candidate, RecommendationReason, recommend
from gradprix.stats.tuning_variance import tuning_deviation
from gradprix.stats.verdict import PairVerdict, Verdict, judge
from gradprix.training.trial import Outcome
from gradprix.tuning.response_curve import ResponseCurve, learning_rate_tolerance
from gradprix.tuning.tuner import TuningResult
from gradprix.utils.margins import absolute_margin

from .plan import Plan
from .response_curves import response_curves, tuned_scores
from .run_records import Finals, Outcomes, TuningRuns, outcomes_by_entry

FEWEST_PARTS = 10
"""Minimum number of parts of a test set that suffices to estimate the variance between them."""
Parts = dict[str, tuple[tuple[float, ...], ...]]
Tolerance = tuple[float, float] | None
"""Learning-rate tolerance: smallest and largest learning rate within a margin of the best; None if unknown."""


@dataclass(frozen=True)
class Analysis:
    """Interim analysis of a race.

    Args:
        chance_level: score of a diverged run.
        values: metric of each final run, by name of the entry.
        parts: metric on the parts of an official test set; None if there is no such test set.
        margin: the smallest difference that matters, in the metric's units.
        tuning_deviation: standard deviation of an entry's mean due to tuning.
        verdict: pairwise comparisons of the entries.
        bounds: upper bound of the regret of each entry.
        curves: response curve of each entry; None if all of its tuning runs diverged.
        tolerances: learning-rate tolerance of each entry.
        recommended: name of the recommended entry.
        reason: criterion that decided for the recommended entry.
    """

    chance_level: float
    values: dict[str, tuple[float, ...]]
    parts: Parts | None
    margin: float
    tuning_deviation: float
    verdict: Verdict
    bounds: dict[str, float]
    curves: Mapping[str, ResponseCurve | None]
    tolerances: dict[str, Tolerance]
    recommended: str
    reason: RecommendationReason

    @property
    def is_conclusive(self) -> bool:
        """True if the upper bound of the recommended entry's regret is at most the margin. The race then ends."""
        return self.bounds[self.recommended] <= self.margin


def analyse(
    plan: Plan,
    tuning_runs: TuningRuns,
    tuned: Mapping[str, TuningResult],
    finals: Finals,
    step_seconds: Mapping[str, float | None],
    interim_analyses: Sequence[InterimAnalysis],
) -> Analysis:
    """Perform an interim analysis of a race.

    Args:
        plan: plan of the race.
        tuning_runs: tuning runs of each entry, in the order in which the tuner requested them.
        tuned: tuning result of each entry.
        finals: final runs of each entry so far, in the order of the seeds.
        step_seconds: duration of a step of each tuned optimizer in a plain training loop; None if unknown.
        interim_analyses: all interim analyses of the race so far. The last one is this analysis.
    """
    metric, outcomes = plan.task.metric, outcomes_by_entry(finals)
    chance_level, values, parts = score_finals(plan, outcomes)
    means = {name: float(np.mean(each)) for name, each in values.items()}
    best = (max if metric.higher_is_better else min)(means.values())
    margin = absolute_margin(metric.margin, metric.relative, best)

    curves, tolerances, from_tuning = _evaluate_tuning(tuning_runs, tuned, metric.higher_is_better, margin)
    settings: dict[str, Any] = {
        "higher_is_better": metric.higher_is_better,
        "level": interim_analyses[-1][1],
        "parts": parts,
        "tuning": dict.fromkeys(values, from_tuning),
    }
    spent = sum(level for _, level in interim_analyses)
    verdict = judge(
        values, margin=metric.margin, relative=metric.relative, spent=spent, baseline=plan.baseline, **settings
    )
    diverged = {name: sum(outcome.diverged is not None for outcome in each) for name, each in outcomes.items()}
    winners = [pair.a for pair in verdict.pairs if pair.verdict is PairVerdict.WINS and pair.b == plan.baseline]
    if leaders := tuple(name for name in verdict.leaders if not diverged[name]):
        verdict = replace(verdict, leaders=leaders)
    stable = [name for name in values if not diverged[name]]
    bounds = bound_regrets(values, stable, settings)
    best = (max if metric.higher_is_better else min)((means[name] for name in stable), default=best)
    candidates = {
        name: Candidate(
            shortfall=best - means[name] if metric.higher_is_better else means[name] - best,
            bound=bounds[name],
            diverged=diverged[name],
            tolerance_decades=decades(tolerances[name]),
            step_seconds=step_seconds[name],
        )
        for name in values
    }
    recommended, reason = recommend(candidates, margin, winners, plan.baseline)
    if bounds[recommended] <= margin:  # the race ends here
        verdict = replace(verdict, pairs=tuple(structs.replace(pair, more_seeds=None) for pair in verdict.pairs))
    return Analysis(
        chance_level, values, parts, margin, from_tuning, verdict, bounds, curves, tolerances, recommended, reason
    )


def _evaluate_tuning(
    tuning_runs: TuningRuns, tuned: Mapping[str, TuningResult], higher_is_better: bool, margin: float
) -> tuple[Mapping[str, ResponseCurve | None], dict[str, Tolerance], float]:
    """Return the response curve and the tolerance of each entry, and the standard deviation from tuning."""
    curves = response_curves(tuning_runs, higher_is_better, margin)
    tolerances: dict[str, Tolerance] = dict.fromkeys(curves)
    differences = []
    for name, curve in curves.items():
        if curve is None:
            continue
        scores = tuned_scores(tuning_runs[name], higher_is_better)
        tolerances[name] = learning_rate_tolerance(curve, scores, margin, dict(tuned[name].point)["lr"])
        rates = [dict(choice)["lr"] for choice in tuned[name].choices]
        if len(rates) == 2:
            differences.append(curve(rates[0]) - curve(rates[1]))
    return curves, tolerances, tuning_deviation(differences, margin)


def bound_regrets(
    values: Mapping[str, Sequence[float]], stable: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, float]:
    """Return the bound of each entry, those of stable entries against each other.

    The variance of an entry that diverged must not hide what is known of the others.
    """
    bounds = regret_bounds(values, **settings)
    if 1 < len(stable) < len(values):
        parts = None if settings["parts"] is None else {name: settings["parts"][name] for name in stable}
        bounds |= regret_bounds({name: values[name] for name in stable}, **{**settings, "parts": parts})
    return bounds


def decades(tolerance: Tolerance) -> float:
    """Return the width of a learning-rate tolerance in decades; 0 if it is unknown."""
    return 0.0 if tolerance is None else math.log10(tolerance[1] / tolerance[0])


def score_finals(plan: Plan, outcomes: Outcomes) -> tuple[float, dict[str, tuple[float, ...]], Parts | None]:
    """Return the scores of final runs.

    Args:
        plan: plan of the race.
        outcomes: outcomes of the final runs of each entry.

    Returns:
        The score of a diverged run; the metric of each final run, by name of the entry; and the metric on the parts of
        an official test set, or None if there is no such test set.
    """
    chance_level = _diverged_score(plan, outcomes)
    values = {name: tuple(final_score(outcome, chance_level) for outcome in runs) for name, runs in outcomes.items()}
    return chance_level, values, test_parts(outcomes, chance_level)


def _diverged_score(plan: Plan, outcomes: Outcomes) -> float:
    """Return the score of a diverged run: the task's chance level, or else the worst score of all other runs."""
    if plan.task.baseline is not None:
        return plan.task.baseline
    scored = [o.test_metric for runs in outcomes.values() for o in runs if o.test_metric is not None]
    return (min if plan.task.metric.higher_is_better else max)(scored, default=0.0)


def final_score(outcome: Outcome, chance_level: float) -> float:
    """Return the test metric of a run, or the chance level if it diverged."""
    return chance_level if outcome.test_metric is None else outcome.test_metric


def test_parts(outcomes: Outcomes, chance_level: float) -> Parts | None:
    """Return the metric on parts of an official test set, if there is one and every part has a finite metric."""
    every = [outcome for runs in outcomes.values() for outcome in runs]
    counts = {len(outcome.test_parts or ()) for outcome in every if outcome.diverged is None}
    if len(counts) != 1 or (count := counts.pop()) < FEWEST_PARTS:
        return None
    diverged = [chance_level] * count
    parts = {name: tuple(tuple(o.test_parts or diverged) for o in runs) for name, runs in outcomes.items()}
    return parts if np.isfinite(list(parts.values())).all() else None
