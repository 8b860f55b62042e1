"""Tuning runs of a result as studies of Optuna."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradprix.integrations.optional import require

if TYPE_CHECKING:
    from gradprix.race.result import Result
    from gradprix.race.run_records import TuningRun
    from gradprix.race.tune_runner import TuneResult

__all__ = ["studies"]


def studies(result: "Result | TuneResult") -> dict[str, Any]:
    """Return a study of Optuna for each entry, with its tuning runs as trials.

    The values are validation metrics, and seeds and validation losses are attributes of the trials. Diverged runs are
    failed trials.

    Args:
        result: result of a race, or of tuning one optimizer.

    Raises:
        ImportError: if Optuna is not installed.
    """
    optuna = require("optuna", "integrations")
    record: Any = result.record
    runs = getattr(record, "tuning_runs", None) or {record.best.name: record.runs}
    direction = "maximize" if record.plan.metric.higher_is_better else "minimize"
    made = {}
    for entry in record.plan.entries:
        study = optuna.create_study(direction=direction, study_name=f"{record.task} {entry.name}")
        space = _distributions(optuna, entry.space, runs[entry.name])
        study.add_trials([_trial(optuna, run, space) for run in runs[entry.name]])
        made[entry.name] = study
    return made


def _distributions(optuna: Any, space: Mapping[str, list[Any]], runs: "Sequence[TuningRun]") -> dict[str, Any]:
    """Return the distribution of each tuned hyperparameter.

    A search may leave a range, which is therefore extended to the values of the runs.
    """
    distributions = {}
    for name, values in space.items():
        tried = [run.point[name] for run in runs]
        is_choice = name != "lr" and set(tried) <= set(values)  # a record does not tell two numbers from a range
        if len(values) == 2 and all(isinstance(value, float) for value in values) and not is_choice:
            low, high = min([*values, *tried]), max([*values, *tried])
            distribution = optuna.distributions.FloatDistribution(low, high, log=0 < 10 * low <= high)
        else:
            distribution = optuna.distributions.CategoricalDistribution(list(dict.fromkeys([*values, *tried])))
        distributions[name] = distribution
    return distributions


def _trial(optuna: Any, run: "TuningRun", distributions: dict[str, Any]) -> Any:
    """Return a tuning run as a finished trial."""
    complete = run.diverged is None and math.isfinite(run.metric)
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.FAIL,
        value=run.metric if complete else None,
        params=dict(run.point),
        distributions=distributions,
        user_attrs={"seed": run.seed, "valid_loss": run.loss, "diverged": run.diverged, "error": run.error},
    )
