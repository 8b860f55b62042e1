"""Response curves of a race's entries, from their tuning runs."""

import math
from collections.abc import Sequence

from gradprix.tuning.response_curve import ResponseCurve, TunedScore, noise_deviation

from .run_records import TuningRun, TuningRuns


def tuned_scores(runs: Sequence[TuningRun], higher_is_better: bool) -> list[TunedScore]:
    """Return the scores of tuning runs, with the sign chosen so that smaller is better; infinite for diverged runs.

    Runs whose learning rate is not tuned are left out.
    """
    sign = -1 if higher_is_better else 1
    return [
        TunedScore(run.learning_rate, run.seed, math.inf if run.diverged is not None else sign * run.metric)
        for run in runs
        if "lr" in run.point
    ]


def response_curves(tuning_runs: TuningRuns, higher_is_better: bool, margin: float) -> dict[str, ResponseCurve | None]:
    """Fit the response curve of each entry; None for an entry whose runs all diverged, or that tunes no learning rate.

    Args:
        tuning_runs: tuning runs of each entry.
        higher_is_better: direction of the metric.
        margin: the smallest difference that matters, in the metric's units.
    """
    scores = {name: tuned_scores(runs, higher_is_better) for name, runs in tuning_runs.items()}
    noise = noise_deviation(list(scores.values())) or margin
    return {name: ResponseCurve.fit(each, noise, margin) for name, each in scores.items()}
