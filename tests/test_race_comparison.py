"""Comparison of races: reversals, changes, differing settings, and how they are shown."""

import io
import json
import math

import numpy as np
import pytest
from msgspec.structs import replace
from rich.console import Console
from scipy import stats

from gradprix.race.race_comparison import check_distinct, compare
from gradprix.race.record_json import read_record, to_json
from gradprix.show.race_comparison import comparison_answer, comparison_page, comparison_rows, write_comparison
from gradprix.text.race_comparison import conclusions, different_settings, format_change, warnings
from parsed_page import HOSTILE, ParsedPage
from records import make_record

NOISE = (0.001, -0.001, 0.002, -0.002, 0.0005, -0.0005, 0.0015, -0.0015)


def around(mean, seed=0):
    return [mean + x for x in np.roll(NOISE, seed)]


FIRST = make_record({"adam": around(0.97), "gd": around(0.94, 1), "lion": around(0.9, 2)}, task="a")
SAME = make_record({"adam": around(0.975), "gd": around(0.943, 3), "sgd": around(0.9, 2)}, task="a")
REVERSED = make_record({"adam": around(0.92), "gd": around(0.95, 1), "lion": around(0.9, 2)}, task="b")
CLOSE = make_record({"adam": around(0.9402), "gd": around(0.9405, 1), "lion": around(0.9, 2)}, task="b")


def test_leaders_of_all_races_are_named_and_recommendations_differ():
    assert conclusions(compare([FIRST, SAME], ["x", "y"]))[:2] == [
        "adam leads in both.",
        "adam is recommended in both.",
    ]
    assert conclusions(compare([FIRST, REVERSED, SAME]))[:2] == [
        "No optimizer leads in all three.",
        "Recommended: adam in a (1), gd in b and adam in a (3).",
    ]


@pytest.mark.parametrize(("second", "count"), [(REVERSED, 1), (SAME, 0), (CLOSE, 0)])
def test_a_rank_reversal_needs_the_intervals_of_both_races(second, count):
    comparison = compare([FIRST, second], ["x", "y"])
    reversals = [line for line in conclusions(comparison) if line.startswith("Rank reversal")]
    assert len(reversals) == len(comparison.reversals) == count
    if count:
        assert reversals[0].startswith("Rank reversal: adam is ahead of gd in x, and behind it in y;")
    else:
        assert "No rank reversal is supported by the intervals of two races." in conclusions(comparison)
    ranks = {row.name: row.rank_change for row in comparison_rows(comparison)}
    assert ranks["adam"] == (0 if second is SAME else -1)


def test_ranks_change_only_against_optimizers_of_both_races():
    more = make_record({"lion": around(0.99), "adam": around(0.95), "gd": around(0.94), "sgd": around(0.9)}, task="a")
    changes = {row.name: row.rank_change for row in comparison_rows(compare([FIRST, more]))}
    assert changes == {"lion": 2, "adam": -1, "gd": -1, "sgd": None}
    fewer = make_record({"gd": around(0.94), "lion": around(0.9)}, task="a")
    assert {row.rank_change for row in comparison_rows(compare([FIRST, fewer]))} == {0, None}


def copied(record):
    """The record as it is read from a file."""
    return read_record(json.loads(json.dumps(to_json(record))))


def test_one_race_is_no_evidence_for_itself():
    diverged = replace(FIRST.tuning_runs["adam"][-1], metric=math.nan)
    record = replace(FIRST, tuning_runs={**FIRST.tuning_runs, "adam": (diverged,)})
    comparison = compare([record, copied(record)], ["x", "y"])
    assert conclusions(comparison) == [
        "x and y are the same race: its plan and the numbers of all training runs are equal."
    ]
    assert comparison.change("adam") is None
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(comparison_answer(comparison))
    text = console.export_text()
    assert "different setting" not in text
    assert "lead" not in text.partition("\n\n")[0]
    with pytest.raises(ValueError, match="x and y are the same race"):
        check_distinct([record, copied(record)], ["x", "y"])


def test_a_race_given_twice_among_others_is_named():
    names = ["x", "y", "z"]
    assert conclusions(compare([FIRST, REVERSED, copied(FIRST)], names))[:2] == [
        "x and z are the same race: its plan and the numbers of all training runs are equal.",
        "No optimizer leads in all three.",
    ]
    with pytest.raises(ValueError, match="x and z are"):
        check_distinct([FIRST, REVERSED, copied(FIRST)], names)


def test_step_times_may_decide_otherwise_when_a_race_is_repeated():
    other = replace(FIRST, verdict=replace(FIRST.verdict, recommended="gd"))
    assert conclusions(compare([FIRST, other], ["x", "y"]))[1:] == ["Recommended: adam in x and gd in y."]


@pytest.mark.parametrize(
    "other",
    [
        replace(FIRST, key="another plan"),
        make_record({"adam": around(0.97, 1), "gd": around(0.94, 1), "lion": around(0.9, 2)}, task="a"),
    ],
)
def test_races_with_another_plan_or_other_scores_are_distinct(other):
    check_distinct([FIRST, other], ["x", "y"])
    assert conclusions(compare([FIRST, other], ["x", "y"]))[0] == "adam leads in both."


def test_scores_on_other_tasks_or_metrics_are_not_compared():
    metric = replace(FIRST.plan.metric, name="test loss", percent=False)
    other_metric = replace(SAME, plan=replace(SAME.plan, metric=metric))
    other_data = replace(SAME, plan=replace(SAME.plan, fingerprint="fedcba"))
    nothing = make_record({"lamb": around(0.9), "muon": around(0.8)}, task="a")
    for other, says in (
        (REVERSED, "different tasks (a and b): compare ranks, not scores"),
        (other_metric, "different metrics (test accuracy and test loss)"),
        (other_data, "different data or models"),
        (nothing, "no optimizer in common"),
        (replace(SAME, plan=replace(SAME.plan, examples=600)), "different numbers of examples"),
    ):
        comparison = compare([FIRST, other], ["x", "y"])
        assert any(says in line for line in warnings(comparison)), says
        comparison_page(comparison)
    assert warnings(compare([FIRST, SAME])) == []
    assert compare([FIRST, REVERSED]).change("adam") is None


def test_a_change_has_the_interval_of_welch():
    change = compare([FIRST, SAME]).change("adam")
    found = stats.ttest_ind(SAME.entry("adam").final.values, FIRST.entry("adam").final.values, equal_var=False)
    low, high = found.confidence_interval(0.95)
    assert (change.difference - change.half_width, change.difference + change.half_width) == pytest.approx((low, high))
    assert change.is_clear
    assert format_change(FIRST, change) == "+0.5 ± 0.2 points"
    assert compare([FIRST, SAME]).change("lion") is None


def test_settings_that_are_equal_are_left_out():
    plan = replace(SAME.plan, epochs=6, schedule="constant")
    entries = (replace(plan.entries[0], space={"lr": [0.01, 1.0]}), *plan.entries[1:])
    changed = replace(SAME, plan=replace(plan, entries=entries), versions={"python": "3", "torch": "3"})
    assert dict(different_settings(compare([FIRST, changed]))) == {
        "Epochs": ["3", "6"],
        "Learning-rate schedule": ["cosine", "constant"],
        "Optimizers in this race alone": ["lion", "sgd"],
        "adam: search range": ["lr 0.001 to 1", "lr 0.01 to 1"],
        "Version of torch": ["2", "3"],
    }
    assert different_settings(compare([FIRST, FIRST])) == []


def test_the_table_fits_eighty_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(comparison_answer(compare([FIRST, SAME], ["digits", "digits-small-2"])))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("adam  "))
    assert "* 1. 97.0" in row, "leaders are marked where nothing is bold"
    assert "* 1. 97.5" in row


def test_a_page_escapes_names_and_has_a_curve_of_each_common_entry(tmp_path):
    values = {name: around(0.9 - 0.01 * i, i) for i, name in enumerate(HOSTILE)}
    record = make_record(values)
    page = comparison_page(compare([record, record], [HOSTILE[0], "y"]))
    parsed = ParsedPage(page)
    assert not any("onload" in names or tag == "img" for tag, *names in parsed.elements)
    assert HOSTILE[0] in parsed.text
    path = write_comparison(compare([FIRST, SAME], ["x", "y"]), tmp_path / "page.html")
    assert path.read_text().count("<svg") == 2 + 2  # the key of both races, and the curves of adam and gd
    assert path.stat().st_size < 200_000


def test_a_comparison_needs_two_races():
    with pytest.raises(ValueError, match="at least two races, not 1"):
        compare([FIRST])
