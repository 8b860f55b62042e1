"""A race and its plan as text for a terminal."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gradprix.race import ENTRIES, REPORT, Plan, Result
from gradprix.tasks import ALL


def console(stderr: bool = False) -> Console:
    """A console that wraps nothing when its output is not a terminal, so that lines can be pasted and searched."""
    found = Console(highlight=False, stderr=stderr)
    return found if found.is_terminal else Console(highlight=False, stderr=stderr, width=200)


def answer(result: Result) -> RenderableType:
    """The first screen: the answer, what is open, what it cost, where the report is; then the table."""
    record = result.record
    where = f"  Report: {result.folder / REPORT}" if result.folder else ""
    last = f"{record['verdict']['protocol']}, {record['cost']['seconds']:.0f} s.{where}"
    return Group(Text(result.text), Text(last), Text(), standings(record), *notes(record))


def standings(record: dict[str, Any]) -> Table:
    """One line an entry, best mean first."""
    metric = record["plan"]["metric"]
    table = _table("", metric["name"], "95 %", "learning rate", "near-best rates", "updates", right=(1, 2, 3, 4, 5))
    entries = sorted(record["entries"], key=lambda e: e["final"]["mean"], reverse=metric["higher_is_better"])
    for entry in entries:
        low, high = entry["final"]["ci95"]
        table.add_row(
            f"[bold]{entry['name']}[/]" if entry["leads"] else entry["name"],
            value(metric, entry["final"]["mean"]),
            f"{value(metric, low)} to {value(metric, high)}",
            f"{entry['tuned']['lr']:g}",
            f"× {10 ** entry['window']:.3g}" if entry["window"] else "-",
            f"{entry['updates']:,}",
        )
    return table


def notes(record: dict[str, Any]) -> list[Text]:
    """What a reader of the table must know besides."""
    lines = ["In bold: the leading group. Near-best rates: how far the learning rate may be off and still come close."]
    edge = [entry["name"] for entry in record["entries"] if entry["tuning"]["at_edge"]]
    if edge:
        lines.append(f"Best at the end of the rates tried, so perhaps not tuned out: {', '.join(edge)}.")
    lost = {entry["name"]: entry["final"]["diverged"] for entry in record["entries"] if entry["final"]["diverged"]}
    for name, count in lost.items():
        lines.append(f"{name} diverged on {count} of {record['budget']['seeds']} seeds, which score the baseline.")
    if (form := record["plan"]["form"]).startswith("one at a time"):
        lines.append(f"The networks were trained {form}.")
    return [Text(line) for line in lines]


def value(metric: dict[str, Any], number: float) -> str:
    """A number in the metric's form."""
    return f"{100 * number:.1f} %" if metric["percent"] else f"{number:.4g}"


def plan(made: Plan) -> RenderableType:
    """What a race will do, before it does it."""
    described, metric = made.describe(), made.task.metric
    table = _table("", "optimizer", "fixed", "learning rates", "batch", "updates", right=(4, 5))
    for entry in described["entries"]:
        low, high = entry["space"]["lr"]
        fixed = ", ".join(f"{name}={setting}" for name, setting in entry["fixed"].items())
        batch = str(entry["batch_size"]) if entry["batch_size"] else "all"
        row = (entry["name"], entry["optimizer"], fixed, f"{low:g} to {high:g}", batch, f"{entry['updates']:,}")
        table.add_row(*row)
    told = f"{made.smallest_difference:.1f} standard deviations of a paired difference"
    if made.task.noise:
        told = f"about {value(vars(metric), made.smallest_difference * made.task.noise)} ({told})"
    margin = f"{100 * metric.margin:g} % of the better mean" if metric.relative else value(vars(metric), metric.margin)
    lines = [
        f"{made.task.name}: {made.task.about}",
        f"Every run: {made.examples:,} training examples in {made.task.epochs} epochs, {made.task.schedule} schedule.",
        f"Every optimizer: {made.trials} tuning trials (learning rate only), then {made.seeds} fresh seeds, "
        "the same for all.",
        f"In all {made.runs:,} networks, {made.runs * made.examples / 1e6:.1f} million examples.",
        f"Smallest difference it can tell four times in five: {told}. Differences below {margin} do not matter here.",
    ]
    return Group(*(Text(line) for line in lines), Text(), table)


def optimizers() -> RenderableType:
    """Every entry by name."""
    table = _table("name", "class", "what it does", "learning rates")
    for entry in ENTRIES.values():
        fixed = "".join(f", {name}={setting}" for name, setting in entry.fixed.items())
        batch = {None: "", 0: ", all examples at once"}.get(entry.batch_size, f", batch {entry.batch_size}")
        space = entry.space["lr"]
        row = (entry.name, f"{entry.optimizer}{fixed}{batch}", entry.about, f"{space.low:g} to {space.high:g}")
        table.add_row(*row)
    return table


def tasks() -> RenderableType:
    """Every built-in task."""
    table = _table("name", "what it is", "judged by", "batch", "epochs", right=(3, 4))
    for task in ALL.values():
        table.add_row(task.name, task.about, task.metric.name, str(task.batch_size), str(task.epochs))
    return table


def _table(*columns: str, right: tuple[int, ...] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i in right else "left")
    return table
