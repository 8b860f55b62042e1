"""Sections of a race report, generated from the record."""

import shlex
from collections import Counter
from html import escape
from typing import Any

from gradprix.race import RaceRecord
from gradprix.race.plan_description import PlanDescription
from gradprix.race.record import EntryResult
from gradprix.stats.verdict import PairVerdict
from gradprix.text.answer import answer_lines, format_failures, format_protocol
from gradprix.text.execution import format_execution_mode
from gradprix.utils.wording import format_list

from . import _page
from ._page import code, count, factor, setting, value


def summary_section(record: RaceRecord) -> str:
    """Return the recommendation, the constructor line to paste, and the inconclusive comparisons."""
    cost = record.cost
    first, *rest = answer_lines(record)
    sentences = [f"<p>{escape(sentence)}</p>" for sentence in rest]
    saw = "trained" if cost.examples is None else f"saw {cost.examples:,} examples"
    spent = f"{cost.trials:,} training runs {saw} in {cost.seconds:,.0f} s."
    return f"""<div class="answer"><p class="first">{escape(first)}</p>{"".join(sentences[:1])}{code(record.best.code)}
{"".join(sentences[1:])}{comparisons(record)}
<p class="note">{escape(format_protocol(record))}. {spent}</p></div>"""


COUNTED = {
    PairVerdict.WINS: "won",
    PairVerdict.SLIGHTLY_AHEAD: "slightly ahead",
    PairVerdict.TIES: "tied",
    PairVerdict.INCONCLUSIVE: "inconclusive",
}


def comparisons(record: RaceRecord) -> str:
    """Count the comparisons by verdict, and estimate the seeds that inconclusive ones would need."""
    pairs, chosen = record.verdict.pairs, record.verdict.recommended
    counts = Counter(pair.verdict for pair in pairs)
    each = ", ".join(f"{counts[verdict]} {COUNTED[verdict]}" for verdict in PairVerdict if counts[verdict])
    text = [f"Of {len(pairs)} pairs: {each}."] if len(counts) > 1 else []
    needs = {p.b if p.a == chosen else p.a: p for p in pairs if chosen in (p.a, p.b)}
    few = sorted((pair.more_seeds, name) for name, pair in needs.items() if pair.more_seeds)[:3]
    if few:
        each = format_list([f"{escape(name)} (about {seeds:,})" for seeds, name in few])
        text.append(f"More seeds would first settle the comparisons of {escape(chosen)} with {each}.")
    return f"<p>{' '.join(text)}</p>" if text else ""


def notices(record: RaceRecord) -> str:
    """Return warnings about the validity of the results; empty if there are none."""
    entries, seeds = record.entries, record.budget.seeds
    lines = []
    edge = [f"{escape(e.name)} ({', '.join(e.tuning.edges)})" for e in entries if e.tuning.at_edge]
    if edge:
        lines.append(
            f"The best setting of {format_list(edge, len(edge))} is at the edge of the search range: "
            "the optimum may lie further out. Widen the range."
        )
    if not record.plan.tested:
        lines.append(
            "The score is the one that the learning rates were tuned by: it flatters all entries, and those most that "
            "were lucky in tuning. Have the loop yield “test”, a score of examples that nothing is tuned by."
        )
    lines += map(escape, format_failures(record.failed))
    for entry in entries:
        if count := entry.final.diverged:
            scored = value(record, record.plan.chance_level)
            lines.append(f"{escape(entry.name)} diverged on {count} of {seeds} final seeds; these score {scored}.")
    if not lines:
        return ""
    return f'<ul class="warn">{"".join(f"<li>{line}</li>" for line in lines)}</ul>'


def settings(record: RaceRecord) -> str:
    """Return the table of tuned settings, one row per entry."""
    metric = escape(record.plan.metric.name)
    head: tuple[str, ...] = (
        "entry",
        "class",
        metric,
        "learning rate" if record.plan.tunes_learning_rate_only else "tuned",
        "learning rates tried",
        "usable learning-rate range",
        "tuning trials",
    )
    head += ("diverged: tuning, final", "batch size", "updates", "memory per weight")
    body = "".join(_setting(record, entry, len(head)) for entry in record.ranking)
    caption = (
        "Usable learning-rate range: the factor between the largest and the smallest near-optimal learning rate. "
        "Memory: state elements of the optimizer per weight, besides the weight and its gradient."
    )
    if any(entry.tuning.at_edge for entry in record.entries):
        caption += " “edge”: the best value is at the edge of the search range."
    return f'<p class="note">{caption}</p>{_page.table(head, body)}'


def _setting(record: RaceRecord, entry: EntryResult, columns: int) -> str:
    rates = [run.learning_rate for run in record.tuning_runs[entry.name]]
    edge = ' <span class="flag">edge</span>' if entry.tuning.at_edge else ""
    diverged = entry.tuning.diverged, entry.final.diverged
    cells: list[Any] = [
        f"<b>{escape(entry.name)}</b>",
        escape(entry.optimizer),
        value(record, entry.final.mean),
        f"{escape(setting(entry.tuned))}{edge}",
        f"{min(rates):g} to {max(rates):g}",
        factor(entry.tolerance_decades),
        entry.tuning.trials,
        f"{diverged[0]}, {diverged[1]}",
        "-" if record.plan.loop else _size(entry.batch_size),
        count(entry.updates),
        entry.memory,
    ]
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    line = f'<td colspan="{columns}" class="code-line">{escape(entry.code)}</td>'
    return f"<tbody><tr>{row}</tr><tr>{line}</tr></tbody>"


def protocol(record: RaceRecord) -> str:
    """Describe the protocol: shared conditions, tuned values, definitions of the verdicts, and scope."""
    plan, metric, count = record.plan, record.plan.metric, len(record.verdict.pairs)
    falls = {
        "cosine": "It rises over the first steps and then falls to zero along a cosine.",
        "linear": "It rises over the first steps and then falls to zero in a straight line.",
        "constant": "It stays the same for the whole run.",
        "warmup": "It rises over the first steps and then stays the same.",
    }
    better = "more" if metric.higher_is_better else "less"
    margin = _page.margin(record.plan.metric)
    facts = {
        "The same for all": f"{_run(record)} Every entry had {plan.trials} tuning trials and {plan.seeds} final "
        "runs. Runs under one seed have the same initial weights, batch order and split of the data.",
        "Execution": escape(format_execution_mode(plan.mode)),
        "Learning-rate schedule": "Tuned with the rest."
        if "schedule" in plan.tune
        else f"{plan.schedule.capitalize()}. {falls.get(plan.schedule, '')}",
        "Tuned": f"{_tuned(plan)} {_tuning(record)} "
        "All other settings are those in the code lines above, and otherwise the class's defaults.",
        "Evaluation": f"{escape(metric.name).capitalize()} after the last step; {better} is better. "
        f"Final seeds are held out from tuning. {'' if plan.loop else 'Test examples were read once, at the end. '}"
        f"A run that diverged scores {value(record, plan.chance_level)}.",
        "Verdicts": f"{_pairs(plan, count)} by their differences seed by seed. {_sampling(plan)}The chance that any "
        f"“wins” or “slightly ahead” in this whole race is false is held to 5 %{_interim_analyses(record)}. "
        f"The margin is {margin}. <b>Wins</b>: "
        "the interval of the difference excludes zero, and the difference exceeds the margin. <b>Slightly ahead</b>: "
        "the interval excludes zero, and the difference is within the margin. <b>Ties</b>: the interval lies wholly "
        "within the margin on both sides. <b>Inconclusive</b>: none of these. It does not mean equal.",
        "Scope": "This model, these data, this budget and these ranges of learning rates. With other "
        "data, more epochs or another schedule the order may change.",
    }
    if plan.left_out:
        facts["Left out to fit the time"] = f"{escape(format_list(plan.left_out))}."
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{text}</dd>' for name, text in facts.items())}</dl>"


def _pairs(plan: PlanDescription, count: int) -> str:
    if plan.baseline is None:
        return f"All {count} pairs are compared at once,"
    how = "at once" if count > 1 else "alone"
    return f"The others are compared with {escape(plan.baseline)}, and not with each other, {how},"


def _sampling(plan: PlanDescription) -> str:
    if not plan.crossed:
        return ""
    return (
        "The test examples are one official set, a sample like the seeds: intervals are for other seeds and other test "
        "examples. "
    )


def _interim_analyses(record: RaceRecord) -> str:
    """Describe the interim analyses if there was more than one."""
    seeds = [str(seeds) for seeds, _ in record.verdict.interim_analyses]
    if len(seeds) == 1:
        return ""
    return f", over {len(seeds)} interim analyses, with {format_list(seeds)} seeds"


def _run(record: RaceRecord) -> str:
    plan = record.plan
    if plan.loop:
        return "Every run was one call of a training loop of the user's own, under its seed."
    sizes = {entry.batch_size for entry in record.entries}
    batch = f"was {_size(*sizes)}" if len(sizes) == 1 else "differs by entry, see above"
    seen = f"{plan.examples:,} training examples ({_page.epochs(plan.epochs)})"
    return f"Every run saw {seen}. The batch size {batch}."


def _tuned(plan: PlanDescription) -> str:
    if plan.tunes_learning_rate_only:
        return "The learning rate, and nothing else."
    return f"{escape(format_list(plan.tune))}, of those what an entry has, and nothing else."


def _tuning(record: RaceRecord) -> str:
    """Describe the tuning trials and the criterion that selected the learning rate."""
    tried = record.tuning_runs.values()
    counts = sorted({sum(run.first for run in runs) for runs in tried})
    what = "rates" if record.plan.tunes_learning_rate_only else "points"
    text = f"{' to '.join(dict.fromkeys(str(n) for n in (counts[0], counts[-1])))} {what} ran on one tuning seed."
    seeds = max(len({run.seed for run in runs}) for runs in tried) - 1
    if not seeds:
        return f"{text} The lowest validation loss after the last step was taken."
    repeats = max(sum(not run.first for run in runs) for runs in tried) // seeds
    name = escape(record.plan.metric.name.removeprefix("test "))
    return (
        f"{text} {repeats} of the best ran on {seeds} more; the best mean validation {name} over all seeds was taken."
    )


def _size(batch: int) -> str:
    return f"{batch:,}" if batch else "all"


def usage_section(record: RaceRecord, folder: str | None) -> str:
    """Return the best optimizer with its schedule, the command that reproduces the race, and the versions."""
    best, plan = record.best, record.plan
    steps = record.entry(best.name).updates
    schedule = best.schedule
    advice = "The learning rate was tuned under this schedule: use both, or tune again."
    if plan.loop:
        advice = "The rate was tuned in a training loop of your own, which has no schedule but what it does itself."
        example = best.code.replace("(params", "(model.parameters()", 1)
    else:
        example = f"""import gradprix
from torch.optim.lr_scheduler import LambdaLR

optimizer = {best.code.replace("(params", "(model.parameters()", 1)}
steps = {steps}  # updates in a run, as raced: put your own number
scheduler = LambdaLR(optimizer, gradprix.schedule("{schedule}", steps))
# in the loop, after each backward pass
optimizer.step()
scheduler.step()"""
    fingerprint = escape(plan.fingerprint[:16])
    location = f" The race is saved in <code>{escape(folder)}</code>." if folder else ""
    versions = ", ".join(f"{escape(name)} {escape(str(number))}" for name, number in record.versions.items())
    return f"""<h3>The optimizer with its schedule</h3>
<p>{advice}</p>{code(example)}
<h3>The same race</h3>
<p>Where <code>{escape(plan.task)}</code> is a task of your own, name it the way you named it then.{location}</p>
{code(command(record))}
<p class="note">{versions}. Plan <code>{escape(record.key)}</code>. Task <code>{fingerprint}</code>.</p>"""


def command(record: RaceRecord) -> str:
    """Return the command line that reproduces this race."""
    plan = record.plan
    words = ["gradprix", "race", plan.task, "--optimizers", ",".join(entry.name for entry in plan.entries)]
    budget = ["trials", "seeds", "seed"] + ["epochs", "batch_size", "schedule"] * (not plan.loop)
    if plan.loop:
        words += ["--direction", "max" if plan.metric.higher_is_better else "min"]
    if plan.baseline:
        words += ["--baseline", plan.baseline]
    if not plan.tunes_learning_rate_only:
        words += ["--tune", ",".join(plan.tune)]
    for name in budget:
        words += [f"--{name.replace('_', '-')}", str(getattr(plan, name))]
    words += ["--compile"] * plan.compiled
    if not plan.metric.relative:  # the option takes an absolute margin, in the metric's units
        words += ["--margin", f"{plan.metric.margin:g}"]
    return shlex.join(words)
