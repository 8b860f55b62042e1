"""Tables of what the code defines: rules and their papers, tasks, data sets, interim analyses."""

import re
from collections.abc import Mapping

import torch
from markdown_docs import linked, number, table

from gradprix import optim, rules, tasks
from gradprix.race import BRACKETS, SEEDS, TRIALS
from gradprix.rules import Rule
from gradprix.stats.alpha_spending import SPENDING_SCHEDULE
from gradprix.tasks.archives import ARCHIVES


def every(rules_: Mapping[str, Rule] | None = None) -> str:
    """Return a table of all rules."""
    rows = []
    for rule in (rules_ or rules.ALL).values():
        name = f"[{optim.from_rule(rule).__name__}](/optimizers/{rule.name}.md)"
        rows.append((name, rule.summary, str(rule.memory(rule.values())), f"`{number(rule.hyperparameters['lr'])}`"))
    return table(("class", "description", "state per weight", "default `lr`"), rows)


def papers() -> dict[str, list[Rule]]:
    """Return the rules of each paper, by its authors and year. A rule belongs to the first paper of its source."""
    found: dict[str, list[Rule]] = {}
    for rule in rules.ALL.values():
        found.setdefault(re.match(r".*?\d{4}", rule.source)[0], []).append(rule)
    return found


def paper_table() -> str:
    """Return a table of the papers with their optimizers, and what these are compared with step by step."""
    rows = []
    for paper, members in sorted(papers().items(), key=lambda item: item[0][-4:]):
        classes = [optim.from_rule(rule) for rule in members]
        pages = [f"[{cls.__name__}](/optimizers/{cls.rule.name}.md)" for cls in classes]
        address = re.search(r"arXiv:\d+\.\d+|doi:10\.[^\s;,]+\w|https://[^\s;,]+", members[0].source.split(";")[0])
        equals = [cls for cls in classes if issubclass(cls, getattr(torch.optim, cls.__name__, ()))]
        shared = [f"`torch.optim.{cls.__name__}`" for cls in equals]
        reference = ", ".join(shared) or "a transcription"
        rows.append((paper, linked(address[0]) if address else "", ", ".join(pages), reference))
    return f"{len(rows)} papers:\n\n{table(('paper', '', 'optimizers', 'equal, step by step, to'), rows)}"


def task_table() -> str:
    """Return a table of the built-in tasks: data, metric and default size of a race."""
    lines = []
    for task in tasks.ALL.values():
        metric, share = task.metric, 100 if task.metric.percent else 1
        margin = f"{100 * metric.margin:g} % of the better" if metric.relative else f"{share * metric.margin:g}"
        entries = len(task.entries) or len(BRACKETS["rules"])
        budget = f"{entries} × ({task.trials or TRIALS} + {task.seeds or SEEDS})"
        chance = f"{share * task.baseline:.4g}"
        lines.append((f"`{task.name}`", task.about, metric.name, chance, margin, str(task.epochs), budget))
    return table(["task", "data and model", "metric", "chance level", "margin", "epochs", "training runs"], lines)


def data_sets() -> str:
    """Return a table of the data sets that the built-in tasks download."""
    rows = [
        (
            f"`{each.name}`",
            each.about,
            f"`{each.package}` {each.version}",
            f"{each.size / 1e6:.1f} MB",
            each.licence,
            each.origin,
        )
        for each in ARCHIVES.values()
    ]
    return table(("name", "contents", "archive of", "size", "licence", "origin"), rows)


def alpha_spending() -> str:
    """Return a table of the error rates that interim analyses spend."""
    (_, few), (_, first), *_ = SPENDING_SCHEDULE
    rows, before = [("6 or 7", few, few), ("8", first, first)], first
    for seeds, spent in SPENDING_SCHEDULE[2:]:
        last = seeds == SPENDING_SCHEDULE[-1][0]
        rows.append(("more" if last else f"up to {seeds}", spent, spent - before))
        before = spent
    lines = [(seeds, f"{100 * spent:g} %", f"{100 * alpha:g} %") for seeds, spent, alpha in rows]
    return table(("final seeds", "cumulative error", "α at this analysis, after all earlier ones"), lines)
