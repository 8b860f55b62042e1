"""Answer of tuning one optimizer in sentences, generated from its record."""

from typing import TYPE_CHECKING

from gradprix.utils.wording import format_count

from .answer import format_failures, format_schedule, format_unreproduced
from .units import format_points, format_range

if TYPE_CHECKING:
    from gradprix.race.best import Best
    from gradprix.race.tune_record import DefaultComparison, TuneRecord


def format_tuning(record: "TuneRecord") -> list[str]:
    """Return the answer of `gradprix tune` as a list of lines.

    They state the tuned setting with its learning-rate tolerance, the difference from the default setting, and
    warnings.
    """
    if record.tolerance is None:
        return [
            f"{record.task}: every tuning run of {record.best.name} diverged, with learning rates "
            f"{_tried_rates(record)}. Look at the task's loss and data first; smaller learning rates may help.",
            *format_failures(record.failed),
        ]
    advice = f"use {format_call(record.best)}. {format_tolerance(record, record.tolerance)}"
    if record.default is not None and record.default.is_better:
        advice = f"keep the default. These trials find nothing better than {format_call(record.best)}."
    lines = [f"{record.task}: {advice}"]
    if record.default is not None:
        lines.append(format_default(record, record.default))
    return [*lines, *format_warnings(record)]


def format_call(best: "Best") -> str:
    """Format the constructor call of an optimizer, with its tuned arguments: `AdamW(lr=0.018)`."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in best.arguments.items())
    return f"{best.optimizer.rpartition('.')[2]}({arguments})"


def format_rates_title(record: "TuneRecord") -> str:
    """Return what the figure of the learning rates shows: their tolerance, or that every run diverged."""
    if record.tolerance is None:
        return f"Every tuning run diverged, with learning rates {_tried_rates(record)}."
    return format_tolerance(record, record.tolerance)


def format_tolerance(record: "TuneRecord", tolerance: tuple[float, float]) -> str:
    """Format the learning-rate tolerance as a sentence.

    Args:
        record: record of the tuning.
        tolerance: lowest and highest learning rate that performs within the margin of the best.
    """
    low, high = tolerance
    near = f"within {format_points(record.plan.metric, record.margin)} of the best"
    if low == high:
        return f"No other learning rate that was tried is {near}. More trials (--trials) would narrow it down."
    return f"Any learning rate from {low:g} to {high:g} is {near}."


def format_default(record: "TuneRecord", default: "DefaultComparison") -> str:
    """Compare the default setting with the tuned one in a sentence, with the confidence interval of the difference."""
    metric, (low, high), loss = record.plan.metric, default.ci95, default.loss
    name = f"the default, {default.settings['lr']:g},"
    if not record.plan.tunes_learning_rate_only:
        name = f"the default setting ({', '.join(f'{each}={value!r}' for each, value in default.settings.items())})"
    if default.settings == record.tuned:
        return f"{_capitalize(name)} is the tuned one."
    if low <= 0 <= high:
        ends = f"{format_points(metric, abs(low))} better and {format_points(metric, high)} worse (95 %)"
        if max(-low, high) < record.margin:
            text = f"{_capitalize(name)} does as well: it is between {ends}."
        else:
            text = f"No significant difference from {name.rstrip(',')}: it is between {ends}."
    else:
        ends = format_range(metric, *sorted((abs(low), abs(high))))
        text = f"{_capitalize(name)} is {format_points(metric, abs(loss))} {'worse' if loss > 0 else 'better'} "
        text += f"({ends}, 95 %){'' if abs(loss) > record.margin else ', less than what matters here'}."
    if default.final.diverged:
        text += f" It diverged on {default.final.diverged} of {len(default.final.values)} held-out seeds."
    return text


def format_warnings(record: "TuneRecord") -> list[str]:
    """Return warnings about the tuned values, one sentence each.

    Reasons are values at the edge of the search range, divergence close to the tuned learning rate, diverged final
    runs, disagreement of the two searches, a missing test score, failed runs, and runs that could not be reproduced.
    """
    warnings = []
    if record.edges and not record.final.all_diverged:
        warnings.append(
            f"The best value of {' and '.join(record.edges)} is at the edge of what was tried (learning rates "
            f"{_tried_rates(record)}), so a better one may lie beyond: give more trials (--trials), or an entry with a "
            "wider space."
        )
    if record.cliff is not None:
        warnings.append(
            f"Training diverges at {record.cliff:g}, {record.cliff / record.learning_rate:.2g} times the tuned "
            "learning rate. For a larger model, a longer run or another batch size, prefer the lower end of the range."
        )
    if record.final.diverged:
        warnings.append(
            f"{record.final.diverged} of {len(record.final.values)} final runs at the tuned values diverged: use a "
            "smaller learning rate."
        )
    if record.is_uncertain:
        chosen = " and ".join(f"{rate:g}" for rate in sorted(record.chosen_rates))
        warnings.append(
            f"Two independent searches chose {chosen}, a factor of {record.disagreement:.2g} apart: single runs vary "
            "too much to place the best learning rate more exactly. More trials (--trials) narrow it down."
        )
    if not record.plan.tested:
        warnings.append("The score is the one that tuning used, so it flatters the tuned values. Yield a “test” score.")
    return [
        *(f"Warning: {warning}" for warning in warnings),
        *format_failures(record.failed),
        *format_unreproduced(record.reruns),
    ]


def format_protocol(record: "TuneRecord") -> str:
    """Format the protocol: the numbers of trials and seeds, the schedule, and the epochs."""
    plan, settings = record.plan, "the tuned and the default settings" if record.default else "the tuned settings"
    length = "" if plan.loop else f", {plan.epochs:g} epochs"
    trials = format_count(plan.trials, "tuning trial")
    return f"{trials}, then {plan.seeds} held-out seeds at {settings}, {format_schedule(plan)}{length}"


def _tried_rates(record: "TuneRecord") -> str:
    rates = [run.learning_rate for run in record.runs]
    return f"{min(rates):g} to {max(rates):g}"


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]
