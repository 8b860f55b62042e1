"""A race and its plan as text for a terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gradprix.race import ENTRIES, REPORT, Plan, Result
from gradprix.tasks import ALL, built_in
from gradprix.tasks.registry import MAKERS
from gradprix.text.answer import counted, listed, untrained
from gradprix.text.answer import tuned as tuned_in_words
from gradprix.utils.streams import results

from . import _page
from ._evidence import evidence, first_choices


def console(stderr: bool = False) -> Console:
    """A console that wraps nothing when its output is not a terminal, so that lines can be pasted and searched."""
    file = None if stderr else results()
    found = Console(highlight=False, stderr=stderr, file=file)
    return found if found.is_terminal else Console(highlight=False, stderr=stderr, file=file, width=200)


def answer(result: Result) -> RenderableType:
    """The first screen: the answer, what is open, what it cost, where the report is; then the table."""
    record = result.record
    where = f"  Report: {result.folder / REPORT}" if result.folder else ""
    last = f"{record['verdict']['protocol']}, {record['cost']['seconds']:.0f} s.{where}"
    return Group(Text(result.text), Text(last), Text(), standings(record), *notes(record), *reasons(record))


def standings(record: dict[str, Any]) -> Table:
    """One line an entry, best mean first."""
    metric = record["plan"]["metric"]
    tuned = "learning rate" if record["plan"]["tune"] == ["lr"] else "tuned"
    table = _table("", metric["name"], "95 %", tuned, "near-best rates", "updates", right=(1, 2, 3, 4, 5))
    entries = sorted(record["entries"], key=lambda e: e["final"]["mean"], reverse=metric["higher_is_better"])
    for entry in entries:
        low, high = entry["final"]["ci95"]
        table.add_row(
            Text(entry["name"], "bold" if entry["leads"] else ""),
            value(metric, entry["final"]["mean"]),
            f"{value(metric, low)} to {value(metric, high)}",
            Text(_page.setting(entry["tuned"])),
            _page.factor(entry["window"]),
            _page.count(entry["updates"]),
        )
    return table


def notes(record: dict[str, Any]) -> list[Text]:
    """What a reader of the table must know besides."""
    lines = ["In bold: the leading group. Near-best rates: how far the learning rate may be off and still come close."]
    edge = [f"{e['name']} ({', '.join(e['tuning']['edges'])})" for e in record["entries"] if e["tuning"]["at_edge"]]
    if edge:
        lines.append(f"Best at the end of what was tried, so perhaps not tuned out: {', '.join(edge)}.")
    if not record["plan"]["tested"]:
        lines.append("The score is the one that was tuned by: it flatters. Yield a “test” score for one that does not.")
    lost = {entry["name"]: entry["final"]["diverged"] for entry in record["entries"] if entry["final"]["diverged"]}
    lines += untrained(record.get("failed", ()))
    for name, count in lost.items():
        lines.append(f"{name} diverged on {count} of {record['budget']['seeds']} seeds, which score the baseline.")
    if (form := record["plan"]["form"]).startswith("one at a time") or "; " in form:  # of a device
        lines.append(f"The networks were trained {form}.")
    return [Text(line) for line in lines]


def reasons(record: dict[str, Any]) -> list[Text]:
    """What is clear of why each placed where it did, if somebody looked."""
    if "why" not in record:
        return []
    found = record["why"]["entries"]
    said = [f"  {name}: {r['words']}" for name, entry in found.items() for r in entry["reasons"] if r["words"]]
    head = f"Why, from {record['why']['runs']} final runs of each that were looked into:"
    return [Text(), Text(head), *map(Text, said or ["  nothing of it is clear; the report has the numbers."])]


def value(metric: dict[str, Any], number: float) -> str:
    """A number in the metric's form."""
    return f"{100 * number:.1f} %" if metric["percent"] else f"{number:.4g}"


def plan(made: Plan, seconds: float | None, where: str, at_least: bool = False) -> RenderableType:
    """What a race will do, before it does it, and about how long that takes and where, if that was measured."""
    described, metric = made.describe(), made.task.metric
    table = _table("", "optimizer", "fixed", "tuned", "batch", "updates", right=(4, 5))
    for entry in described["entries"]:
        fixed = ", ".join(f"{name}={setting}" for name, setting in entry["fixed"].items())
        batch = str(entry["batch_size"]) if entry["batch_size"] else "-" if described["loop"] else "all"
        tuned = ", ".join(searched(name, axis) for name, axis in entry["space"].items())
        row = (entry["name"], entry["optimizer"], fixed, tuned, batch, _page.count(entry["updates"]))
        table.add_row(*map(Text, row))
    told = f"{made.smallest_difference:.1f} standard deviations of a paired difference"
    if made.task.noise:
        told = f"about {value(vars(metric), made.smallest_difference * made.task.noise)} ({told})"
    margin = f"{100 * metric.margin:g} % of the better mean" if metric.relative else value(vars(metric), metric.margin)
    lines = [
        f"{made.task.name}: {made.task.about}",
        f"Every run: {_run(made)}.",
        f"Every optimizer: {made.trials} tuning trials ({tuned_in_words(made)}), then {made.seeds} fresh seeds, "
        "the same for all.",
        f"In all {made.runs:,} networks"
        + ("." if made.examples is None else f", {made.runs * made.examples / 1e6:.1f} million examples."),
        f"Smallest difference it can tell four times in five: {told}. Differences below {margin} do not matter here.",
    ]
    if made.left_out:
        lines.append(f"To fit the time it does without {listed(made.left_out)}.")
    if seconds is not None:
        lines.append(f"Takes {'more than' if at_least else 'about'} {_long(seconds)} on {where}.")
    return Group(*(Text(line) for line in lines), Text(), table)


def _long(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _run(made: Plan) -> str:
    if made.examples is None:
        return "as long as your own loop trains"
    schedule = "schedule tuned" if "schedule" in made.tuned else f"{made.task.schedule} schedule"
    return f"{made.examples:,} training examples in {_page.epochs(made.task.epochs)}, {schedule}"


def searched(name: str, ends: list[Any]) -> str:
    """A range in words: `lr 0.001 to 1`, or the few values there are."""
    if all(isinstance(end, float) for end in ends):
        return f"{name} {ends[0]:g} to {ends[-1]:g}"
    return f"{name} {'/'.join(map(str, ends))}"


def optimizers() -> RenderableType:
    """Every entry by name."""
    table = _table("name", "class", "what it does", "learning rates")
    for entry in ENTRIES.values():
        fixed = "".join(f", {name}={setting}" for name, setting in entry.fixed.items())
        batch = {None: "", 0: ", all examples at once"}.get(entry.batch_size, f", batch {entry.batch_size}")
        low, high = (entry.space["lr"].at(share) for share in (0.0, 1.0))
        row = (entry.name, f"{entry.optimizer}{fixed}{batch}", entry.about, f"{low:g} to {high:g}")
        table.add_row(*row)
    return table


def choices(name: str) -> RenderableType:
    """Which optimizers to try first on a problem, with the evidence beside it."""
    text, rows = first_choices(name)
    metric = evidence()["tasks"][name]["metric"]
    head = ("", metric["name"], "margins behind", "learning rate", "near-best rates", "diverged")
    table = _table(*head, right=tuple(range(1, len(head))))
    for row in rows:
        table.add_row(
            Text(row["entry"], "bold" if row["leads"] else ""),
            value(metric, row["mean"]),
            f"{row['margins']:.1f}",
            f"{row['lr']:g}",
            _page.factor(row["window"]),
            str(row["diverged"]),
        )
    return Group(*map(Text, text), Text(), table, Text("In bold: the leading group, which nothing wins against."))


def tasks() -> RenderableType:
    """Every built-in task."""
    table = _table("name", "what it is", "judged by", "batch", "epochs", right=(3, 4))
    for name in MAKERS:
        task = built_in(name)
        about = task.about if name in ALL else f"{task.about} Yours: --data FOLDER."
        table.add_row(name, about, task.metric.name, str(task.batch_size), str(task.epochs))
    return table


def suite_plan(plans: Sequence[Plan], seconds: Mapping[str, float], where: str) -> RenderableType:
    """What a suite will do, and about how long that takes."""
    table = _table("task", "what it is", "networks", "minutes", right=(2, 3))
    for made in plans:
        name = made.task.name
        table.add_row(name, made.task.about, f"{made.runs:,}", f"{seconds[name] / 60:.1f}")
    networks, total = sum(made.runs for made in plans), sum(seconds.values())
    who = listed([entry.name for entry in plans[0].entries])
    many = counted(len(plans), "task")
    text = f"{who} on {many}: {networks:,} networks, about {_long(total)} on {where}."
    return Group(Text(text), Text(), table)


def suite(summary: dict[str, Any], page: Path) -> RenderableType:
    """What races on several tasks say together; then a line an optimizer, a column a task."""
    names = list(summary["tasks"])
    table = _table("margins behind the best", "mean", *names, right=tuple(range(1, len(names) + 2)))
    for entry in summary["entries"]:
        regrets = {name: f"{task['regrets'][entry]:.1f}" for name, task in summary["tasks"].items()}
        leads = [entry in task["leads"] for task in summary["tasks"].values()]
        cells = [f"[bold]{x}[/]" if lead else x for x, lead in zip(regrets.values(), leads, strict=True)]
        table.add_row(entry, f"{summary['single'][entry]['mean']:.1f}", *cells)
    lines = [*summary["text"], f"Page: {page}"]
    return Group(*map(Text, lines), Text(), table, Text("In bold: the leading group of each task."))


def _table(*columns: str, right: tuple[int, ...] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i in right else "left")
    return table
