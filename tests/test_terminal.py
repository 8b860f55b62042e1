"""The command line on terminals of 80 and 100 columns, and the sentences and tables that it prints."""

import random
import shlex
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from rich.cells import cell_len
from rich.console import Console, RenderableType
from typer.core import TyperGroup as Group
from typer.main import get_command

import gradprix as gp
from command_line import gradprix
from gradprix.cli import app
from gradprix.cli._examples import EXAMPLES
from gradprix.race import ENTRIES, make_plan
from gradprix.race.evidence import load_evidence
from gradprix.race.record import RaceRecord
from gradprix.show import terminal
from gradprix.show.plans import summarize_plan, summarize_suite_plan
from gradprix.stats.recommendation import Candidate, RecommendationReason, recommend
from gradprix.tasks import UnknownNameError
from gradprix.text.answer import answer_lines
from gradprix.text.recommendation import format_reason, recommended_group
from gradprix.text.suite import format_similar_problem
from gradprix.text.units import format_duration, format_factor
from records import make_record, replace_entry

WIDTHS = (80, 100)
COMMANDS = (
    "list",
    "list optimizers",
    "list optimizers --for segment",
    "list optimizers --for charlm",
    "list tasks",
    "data list",
    "claims --list",
    "explain nadam",
    "explain schedule_free_adamw",
    "race digits --plan --optimizers adam,gd,schedule_free_adamw-corrected --trials 2 --epochs 1 --processes 1",
    *(f"{name} --help" for name in EXAMPLES if name != "gradprix"),
    "data --help",
    "--help",
)
HEADS = ("─" * 10,)
"""Beginning of the line below the head of a table."""


def lines_of(renderable: RenderableType, width: int) -> list[str]:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def rows_of(lines: list[str]) -> list[str]:
    """Return the rows of all tables: the lines below the rule of a table, up to the next empty line or sentence."""
    rows, inside = [], False
    for line in lines:
        if line.startswith(HEADS):
            inside = True
        elif inside and line and "  " in line.strip():
            rows.append(line)
        else:
            inside = False
    return rows


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_fits_the_terminal(command: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = gradprix(*command.split(), folder=tmp_path).output.splitlines()
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    assert [row for row in rows_of(lines) if row.startswith(" ")] == [], "a continued row"
    assert not any("…" in line for line in lines), "a text that is cut off"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_the_help_are_commands_on_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = gradprix(*([] if name == "gradprix" else [name]), "--help", folder=tmp_path).output
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    command = get_command(app)
    assert isinstance(command, Group)
    for arguments, what in EXAMPLES[name].items():
        assert f"gradprix {arguments} {what}" in lines
        first, *rest = shlex.split(arguments)
        options = {option for each in command.commands[first].params for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= options


def test_redirected_output_is_as_wide_as_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal.console().width <= terminal.WIDEST
    monkeypatch.setenv("COLUMNS", "240")
    assert terminal.console().width == terminal.WIDEST


LONG = "schedule_free_adamw-corrected"
CLOSE = {"nadam": [0.975, 0.976, 0.974, 0.977, 0.975, 0.976, 0.974, 0.977], LONG: [0.974, 0.975] * 4}
FAR = {**CLOSE, "minibatch": [0.9, 0.91, 0.9, 0.92, 0.9, 0.91, 0.9, 0.92]}


@pytest.mark.parametrize("name", ["segment", "digits"])
def test_leaders_are_marked_where_nothing_is_bold(name: str) -> None:
    task, rows = load_evidence().tasks[name], rows_of(lines_of(terminal.choices(name), 100))
    marked = {row.split(" * ")[0] for row in rows if " * " in row}
    assert marked == set(task.leaders)


@pytest.mark.parametrize("width", [60, *WIDTHS])
@pytest.mark.parametrize("baseline", [None, "nadam"])
def test_each_result_is_one_row(baseline: str | None, width: int) -> None:
    record = replace_entry(make_record(FAR, baseline=baseline), "minibatch", bound=0.08)
    lines = lines_of(terminal.standings(record), width)
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert len(rows_of(lines)) == len(FAR)
        assert any(line.startswith("minibatch") and "loses to nadam" in line for line in lines)


def test_several_tuned_values_are_below_the_table() -> None:
    record = make_record(FAR)
    tuned: dict[str, Any] = {"lr": 0.018, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "schedule": "cosine"}
    plan = structs.replace(record.plan, tune=tuple(tuned))
    record = replace_entry(structs.replace(record, plan=plan), "nadam", tuned=tuned)
    lines = lines_of(terminal.standings(record), 80)
    assert max(map(len, lines)) <= 80
    assert "    0.018, beta1 0.9, beta2 0.999, weight_decay 0.01, schedule cosine" in lines


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("optimizers", [None, "all", f"gd,sgd,{LONG}"])
def test_each_entry_of_a_plan_is_one_row(optimizers: str | None, width: int) -> None:
    plan = make_plan("digits", optimizers, trials=6, seeds=6)
    lines = lines_of(summarize_plan(plan, 30.0, "this machine"), width)
    assert max(map(len, lines)) <= width
    for entry in plan.entries:
        (row,) = (line for line in lines if line.split()[:1] == [entry.name])
        assert row.rstrip().endswith(tuple("0123456789)"))


def test_a_plan_has_batches_in_the_table_only_where_they_differ() -> None:
    same, different = (
        lines_of(summarize_plan(make_plan("digits", names), None, ""), 80) for names in (None, "gd,adam")
    )
    assert "680 updates on batches of 32" in " ".join(same)
    assert not any("updates" in line and "optimizer" in line for line in same)
    assert any("updates" in line and "optimizer" in line for line in different)


def test_the_plan_of_a_suite_fits() -> None:
    plans = [make_plan(name, "adam,momentum") for name in ("digits", "segment")]
    lines = lines_of(summarize_suite_plan(plans, {"digits": 30.0, "segment": 4000.0}, "this machine"), 80)
    assert max(map(len, lines)) <= 80
    assert any("30 s" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.00042, "0.42 ms"), (3.14, "3.1 s"), (42.4, "42 s"), (210, "3.5 min"), (5400, "90 min"), (7560, "2.1 h")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


# The answer: the reason must be true of the numbers in the record


def random_record(rng: random.Random) -> RaceRecord:
    """Return a record with random means, bounds, tolerances, times and divergences, and their recommendation."""
    names = rng.sample(list(ENTRIES), rng.randint(2, 5))
    means = {name: 0.9 - rng.choice((0, 0.0005, 0.001, 0.004, 0.02)) for name in names}
    record, best = make_record({name: [mean] * 8 for name, mean in means.items()}), max(means.values())
    candidates = {
        name: Candidate(
            shortfall=best - mean,
            bound=rng.choice((0.002, 0.004, 0.0049, 0.007)),
            diverged=rng.choice((0, 0, 0, 0, 1, 2)),
            tolerance_decades=rng.choice((0.3, 0.31, 0.7, 1.0)),
            step_seconds=rng.choice((0.001, 0.00102, 0.002, None)),
        )
        for name, mean in means.items()
    }
    chosen, reason = recommend(candidates, 0.005)
    for name, each in candidates.items():
        final = structs.replace(record.entry(name).final, diverged=each.diverged)
        record = replace_entry(record, name, bound=each.bound, tolerance_decades=each.tolerance_decades, final=final)
    verdict = structs.replace(
        record.verdict, recommended=chosen, reason=reason, margin=0.005, bound=candidates[chosen].bound
    )
    cost = structs.replace(record.cost, step_seconds={name: each.step_seconds for name, each in candidates.items()})
    best_entry = structs.replace(record.best, name=chosen)
    return structs.replace(record, verdict=verdict, cost=cost, best=best_entry)


@pytest.mark.parametrize("seed", range(300))
def test_the_reason_is_true_of_the_record(seed: int) -> None:
    record = random_record(random.Random(seed))
    reason, group, chosen = format_reason(record), recommended_group(record), record.entry(record.best.name)
    near = [
        entry
        for entry in record.entries
        if entry.bound is not None and entry.bound <= 0.005 and not entry.final.diverged
    ]
    assert sorted(group) == sorted(entry.name for entry in near if chosen in near)
    pool = near if "of these" in reason else list(record.entries)
    if "of those with a mean within" in reason:
        assert "within 0.13 points of the best" in reason
        least = min(entry.final.diverged for entry in record.entries)
        stable = [entry for entry in record.entries if entry.final.diverged == least]
        top = max(entry.final.mean for entry in stable)
        pool = [each for each in stable if (each.bound or 0) <= 0.005 and top - each.final.mean <= 0.00125]
    widest = max(round(entry.tolerance_decades, 1) for entry in pool)
    wide = [entry for entry in pool if round(entry.tolerance_decades, 1) == widest]
    seconds = record.cost.step_seconds
    if reason.startswith("the widest"):
        assert wide == [chosen]
    elif reason.startswith("the best mean of those that diverged least"):
        least = min(entry.final.diverged for entry in record.entries)
        peers = [entry.final.mean for entry in record.entries if entry.final.diverged == least]
        assert chosen.final.mean == max(peers)
    elif reason.startswith("the best mean, ") and "among" not in reason:
        assert chosen.final.mean == max(record.means.values())
    elif reason.startswith("the best mean"):
        fastest = min((seconds[entry.name] or 9) for entry in wide)
        peers = [e for e in wide if "fastest" not in reason or (seconds[e.name] or 9) <= 1.05 * fastest]
        assert chosen in peers
        assert chosen.final.mean == max(entry.final.mean for entry in peers)
    elif reason.startswith("the fastest step"):
        assert all((seconds[entry.name] or 0) > (seconds[chosen.name] or 9) for entry in wide if entry is not chosen)
    elif reason.startswith("fewer of its"):
        assert all(entry.final.diverged > chosen.final.diverged for entry in record.entries if entry is not chosen)
    else:
        assert reason.startswith("the only one"), reason
        assert len(group) == 1 or "with a mean within" in reason


def test_a_group_is_recommended_before_a_name() -> None:
    record = make_record(CLOSE, recommended=("nadam", RecommendationReason.WIDEST_TOLERANCE))
    first, second, *_ = answer_lines(record)
    assert f"use nadam or {LONG}; either will do." in first
    assert second.startswith("nadam is a tie-break, which may differ between machines: ")


def test_without_a_group_the_leaders_are_named() -> None:
    record = make_record(CLOSE, recommended=("nadam", RecommendationReason.BEST_MEAN))
    for name in CLOSE:
        record = replace_entry(record, name, bound=0.009)
    record = structs.replace(record, verdict=structs.replace(record.verdict, bound=0.009, leaders=tuple(CLOSE)))
    assert answer_lines(record)[1].startswith(
        f"Leaders, with no significant difference among them: nadam and {LONG}. nadam is a tie-break"
    )


@pytest.mark.parametrize(
    "reason", [RecommendationReason.CHEAPEST_STEP, RecommendationReason.WIDE_TOLERANCE_CHEAPEST_STEP]
)
def test_old_records_claim_no_cheapest_step_where_all_are_equal(reason: RecommendationReason) -> None:
    record = make_record(CLOSE, recommended=("nadam", reason))
    assert "memory" not in format_reason(record)
    assert "memory" in format_reason(replace_entry(record, LONG, memory=2))


@pytest.mark.parametrize("name", gp.tasks.ALL)
def test_a_recommendation_for_a_kind_of_problem_agrees_with_its_table(name: str, tmp_path: Path) -> None:
    task = load_evidence().tasks[name]
    recommended, leaders = format_similar_problem(load_evidence(), name)[1:3]
    assert all(entry in recommended for entry in task.candidates)
    assert task.recommended in recommended
    assert all(entry in leaders for entry in sorted(task.leaders, key=task.regrets.__getitem__)[:12])
    table = gradprix("list", "optimizers", "--for", name, folder=tmp_path).stdout
    for entry in task.means:
        row = next(line for line in rows_of(table.splitlines()) if line.startswith(f"{entry} "))
        assert row.rstrip().endswith(format_factor(task.tolerances[entry]))


def test_a_recommendation_for_an_unknown_problem_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="no problem in the suite is called 'digit'"):
        terminal.choices("digit")
