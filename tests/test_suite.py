"""The same optimizers on several tasks: what their races say together."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from gradprix.cli import app
from gradprix.race import Pair, RaceRecord, Verdict, suite_plans, summed_up
from gradprix.race.record_json import to_json
from gradprix.race.suite_record import RankReversal, SecondRace, SuiteSummary
from gradprix.race.suite_summary import TAUS, profile
from gradprix.show import suite_page
from gradprix.stats.verdict import PairVerdict
from gradprix.text.suite import (
    format_first_choice,
    format_leaders_of,
    format_regrets_title,
    format_reversals,
    format_suite,
)
from gradprix.text.suite_tables import choice_rows, entry_rows, left_out_rows, race_rows, regret_rows
from parsed_page import HOSTILE, ParsedPage
from records import make_record, replace_entry

NOISE = np.array([0.001 * x for x in (-3, -1, 0, 2, 1, -2, 3, 0, 1, -1, 2, -2, 1, 0, -1, 0)])


def raced(means: dict[str, float], *, margin: float = 0.01, higher: bool = True, relative: bool = False) -> RaceRecord:
    """Return the record of a race with these means, in which the best entry leads alone."""
    best = (max if higher else min)(means, key=lambda name: means[name])
    names, values = list(means), {name: mean + NOISE * (-1) ** i for i, (name, mean) in enumerate(means.items())}
    pair = Pair(names[0], names[1], 0.1, (0.05, 0.15), 0.001, PairVerdict.WINS, None)
    record = make_record(
        values,
        higher_is_better=higher,
        margin=margin,
        relative=relative,
        percent=False,
        verdict=Verdict((pair,), (best,)),
        edges={name: ("lr",) if name == "c" else ("beta1",) for name in names},
    )
    default = {**dict.fromkeys(means, 0.5), "c": None}
    return replace(
        record,
        budget=replace(record.budget, trials=19),
        efficiency=replace(record.efficiency, default=default, tuned=dict.fromkeys(means, 0.505)),
    )


MEANS = {"one": {"a": 0.9, "b": 0.8, "c": 0.9}, "two": {"a": 0.5, "b": 0.55, "c": 0.545}}


def summarize(**means: Mapping[str, float]) -> SuiteSummary:
    """Return the summary of races with these means on each task."""
    return summed_up({name: raced(dict(each)) for name, each in means.items()})


def behind(**regrets: Sequence[float | None]) -> SuiteSummary:
    """Return the summary of races with these regrets of each entry on tasks `t0`, `t1`, ...; None did not race."""
    tasks: dict[str, dict[str, float]] = {}
    for name, each in regrets.items():
        for i, regret in enumerate(each):
            if regret is not None:
                tasks.setdefault(f"t{i}", {})[name] = 0.9 - 0.01 * regret
    return summarize(**tasks)


def test_who_only_varies_too_much_does_not_lead() -> None:
    record = raced({"a": 0.9, "b": 0.8, "wild": 0.5})
    record = replace_entry(
        record, "wild", is_leader=True
    )  # nothing wins against it, but it is behind b, which a wins against
    task = summed_up({"one": record}).tasks["one"]

    assert task.leaders == ("a",)
    assert task.too_variable == ("wild",)
    assert format_leaders_of(task).startswith(
        "Leader, which no other wins against: a. No other wins against wild either"
    )
    assert "its mean is worse than that of b, which is no leader" in format_leaders_of(task)


def test_regrets_are_in_margins_whichever_way_the_metric_runs() -> None:
    summary = summarize(**MEANS)
    assert summary.tasks["one"].regrets == pytest.approx({"a": 0, "b": 10, "c": 0})
    assert summary.tasks["two"].regrets == pytest.approx({"a": 5, "b": 0, "c": 0.5})
    regret = summary.regrets["a"]
    assert (regret.mean, regret.median, regret.largest) == pytest.approx((2.5, 2.5, 5))
    assert (regret.worst_task, regret.tasks) == ("two", 2)
    assert summary.entries == ("c", "a", "b"), "the smallest mean regret first"
    assert to_json(summary)["tasks"]["one"]["pairs"] == [
        {"a": "a", "b": "b", "difference": 0.1, "ci95": [0.05, 0.15], "words": "wins"}
    ]
    loss = summed_up({"loss": raced({"a": 2.0, "b": 2.6}, higher=False, margin=0.1, relative=True)})
    assert loss.tasks["loss"].regrets == pytest.approx({"a": 0, "b": 3}), "a tenth of 2.0 is 0.2"


INCOMPLETE = {"a": (0, 2, 0), "b": (1, 0, 1), "fast": (0.5, None, 0.1)}


def test_an_entry_that_misses_tasks_counts_over_its_own() -> None:
    summary = behind(**INCOMPLETE)
    assert summary.entries == ("a", "b", "fast"), "the smallest mean regret, but not on all tasks"
    assert summary.complete == ("a", "b")
    regret = summary.regrets["fast"]
    assert (regret.mean, regret.largest, regret.tasks) == pytest.approx((0.3, 0.5, 2))
    assert summary.profile.entries["fast"].share[TAUS.index(0.3)] == 0.5
    assert [row[-1] for row in regret_rows(summary)] == ["0.0", "1.0", "0.1"]
    assert regret_rows(summary)[-1] == ["fast", "0.5", "–", "0.1"]
    assert entry_rows(summary)[-1][:2] == ["fast", "2"]
    (sentence,) = [each for each in format_suite(summary) if each.startswith("Not on all tasks")]
    assert "fast on 2 of 3, on average 0.3 margins behind, at most 0.5 (t0)" in sentence
    assert all(sentence.split()[0] != "fast" for sentence in format_suite(summary))
    assert "fast" in suite_page(summary)


def test_races_without_a_common_entry_have_no_single_choice() -> None:
    with pytest.raises(ValueError, match="no optimizer raced on all tasks"):
        behind(a=(0, None), b=(None, 0), c=(1, None), d=(None, 1))


SELECTIONS = [
    # regrets, criterion, chosen, what it would be without a task
    ({"a": (0, 0, 0, 9), "b": (1, 1, 1, 0)}, "mean", "b", {"t3": "a"}),
    ({"a": (0, 0, 0, 1.5), "b": (1, 1, 1, 0)}, "mean", "a", {}),
    ({"a": (0, 0, 0, 9), "b": (1, 1, 1, 0)}, "median", "a", {}),
    ({"a": (0, 0, 0, 9), "b": (1, 1, 1, 0)}, "largest", "b", {"t3": "a"}),
    ({"a": (0, 0, 0, 1.04), "b": (0.96, 0.96, 0.96, 0)}, "largest", "a b", {"t3": "a"}),
    ({"a": (0, 0, 5), "b": (5, 0.1, 0)}, "near", "a b", {"t0": "b", "t2": "a"}),
    ({"a": (0, 0, 5), "b": (5, 0.1, 0)}, "leading", "a", {"t0": "a b", "t1": "a b"}),
]


@pytest.mark.parametrize(("regrets", "criterion", "chosen", "without"), SELECTIONS)
def test_selections_name_the_tasks_that_decide(
    regrets: dict[str, Sequence[float]], criterion: str, chosen: str, without: dict[str, str]
) -> None:
    selection = getattr(behind(**regrets).selections, criterion)
    assert " ".join(selection.entries) == chosen
    assert {task: " ".join(names) for task, names in selection.without.items()} == without


def test_statements_say_if_they_depend_on_a_task() -> None:
    single, worst, *_ = format_suite(behind(a=(0, 0, 0, 9), b=(1, 1, 1, 0)))
    assert single.endswith("The choice depends on single tasks: without t3 it would be a.")
    assert "a has the smallest median (0.00), but was 9.0 behind on t3." in worst
    assert worst.endswith("The smallest median is the same whichever task is left out.")
    assert format_suite(behind(a=(0, 0), b=(1, 1)))[0].endswith("The choice is the same whichever task is left out.")


@pytest.mark.parametrize(
    ("behind_on_second", "expected"),
    [
        (0.0, "On every task, the optimizer that its race recommends has the best mean: a regret of 0 margins."),
        (0.5, "recommends is 0.25 margins behind the best mean on average, at most 0.50 (two)."),
    ],
)
def test_regret_of_the_recommended_optimizers(behind_on_second: float, expected: str) -> None:
    first = raced({"a": 0.9, "b": 0.8})
    second = raced({"a": 0.5, "b": 0.5 - 0.01 * behind_on_second})
    second = replace(second, verdict=replace(second.verdict, recommended="b" if behind_on_second else "a"))
    assert any(sentence.endswith(expected) for sentence in format_suite(summed_up({"one": first, "two": second})))


def test_a_single_task_says_nothing_about_leaving_it_out() -> None:
    assert not any("left out" in sentence for sentence in format_suite(behind(a=(0,), b=(1,))))


@pytest.mark.parametrize(("regrets", "restricted"), [(INCOMPLETE, True), ({"a": (0, 2), "b": (1, 0)}, False)])
def test_comparisons_name_the_restriction_to_entries_on_all_tasks(
    regrets: Mapping[str, Sequence[float | None]], restricted: bool
) -> None:
    """An entry that is missing on some tasks may be better on the others."""
    summary = behind(**regrets)
    _, worst, leaders, *_ = format_suite(summary)
    for sentence in (worst, leaders, format_regrets_title(summary)):
        assert ("that raced on all tasks" in sentence) == restricted


def test_suites_race_each_task_once() -> None:
    assert [plan.task.name for plan in suite_plans("digits, digits", "adam,momentum")] == ["digits"]
    with pytest.raises(ValueError, match="no tasks are given"):
        suite_plans([])


def test_the_choice_without_a_task_is_evaluated_on_it() -> None:
    summary = behind(a=(0, 0, 0, 9), b=(1, 1, 1, 0))
    by_task = {each.task: each for each in summary.left_out}
    last, first = by_task["t3"], by_task["t0"]
    assert (last.choice, first.choice) == ("a", "b")
    assert (last.mean, last.regret) == pytest.approx((0, 9))
    assert (last.overall_mean, last.overall_largest) == pytest.approx((1, 1)), "of b"
    assert left_out_rows(summary)[-1] == ["t3", "a", "0.00", "9.00", "1.00", "1.00"]
    assert behind(a=(0,), b=(1,)).left_out == ()


def bounded(bounds: Mapping[str, float], means: Mapping[str, float], recommended: str) -> RaceRecord:
    """Return the record of a race with these bounds, in margins, and a recommended entry."""
    record = raced(dict(means))
    for name, bound in bounds.items():
        record = replace_entry(record, name, bound=0.01 * bound)
    return replace(record, verdict=replace(record.verdict, recommended=recommended))


CHOICES = [
    # bounds and means, recommended, candidates, beginning of the sentence
    (
        {"a": 0.5, "b": 0.803, "c": 3},
        {"a": 0.9, "b": 0.898, "c": 0.88},
        "b",
        "a b",
        "Use a or b; either will do. Each is at most 0.81",
    ),
    ({"a": 0.5, "b": 0.9, "c": 3}, {"a": 0.9, "b": 0.897, "c": 0.88}, "a", "a", "Use a: at most 0.50 margins behind"),
    ({"a": 1.1, "b": 2.0, "c": 3}, {"a": 0.9, "b": 0.899, "c": 0.88}, "a", "", "No optimizer is shown to be within"),
]


@pytest.mark.parametrize(("bounds", "means", "recommended", "candidates", "sentence"), CHOICES)
def test_the_group_is_named_before_the_tie_break(
    bounds: dict[str, float], means: dict[str, float], recommended: str, candidates: str, sentence: str
) -> None:
    summary = summed_up({"one": bounded(bounds, means, recommended)})
    task = summary.tasks["one"]
    assert task.candidates == tuple(candidates.split())
    assert task.bounds == pytest.approx(bounds)
    text = format_first_choice(task)
    assert text.startswith(sentence)
    assert ("b is the tie-break, which may differ between machines." in text) == (len(task.candidates) > 1)
    assert summary.recommendation.mean == pytest.approx(task.regrets[recommended])
    assert choice_rows(summary)[0][2] == recommended
    assert race_rows(summary)[0][4:7] == ["19 + 16", "3.5 %", "0.10"]


def test_a_reversal_is_a_win_on_either_side() -> None:
    (reversal,) = summarize(**MEANS).reversals
    assert (reversal.a, reversal.b, reversal.a_wins, reversal.b_wins) == ("a", "b", ("one",), ("two",))
    assert summarize(one=MEANS["one"]).reversals == ()


@pytest.mark.parametrize(("races", "expected"), [(1, 1), (11, 0)])
def test_the_error_rate_is_shared_by_all_races(races: int, expected: int) -> None:
    sure = {f"t{i}": raced({"a": 0.9, "b": 0.8}) for i in range(races)}
    small = raced({"a": 0.5, "b": 0.5125})
    unsure = replace(small, verdict=replace(small.verdict, tuning_deviation=0.003))
    assert len(summed_up({**sure, "small": unsure}).reversals) == expected


def test_reversals_allow_for_the_tuning_variance() -> None:
    records = {name: raced(means) for name, means in MEANS.items()}
    assert summed_up(records).reversals
    vague = {n: replace(r, verdict=replace(r.verdict, tuning_deviation=0.03)) for n, r in records.items()}
    assert not summed_up(vague).reversals


WINS = {"a": (0, 5, 0, 3), "b": (4, 0, 2, 0)}
WEAK = [({"a": (0, 5), "b": (4, 0)}, "t0"), ({"a": (0, 5, 3), "b": (4, 0, 0)}, "t0"), (WINS, None)]


@pytest.mark.parametrize(("regrets", "weak"), WEAK)
def test_the_weaker_side_of_a_reversal_may_rest_on_one_race(
    regrets: dict[str, Sequence[float]], weak: str | None
) -> None:
    (reversal,) = behind(**regrets).reversals
    assert reversal.weak_task == weak
    assert reversal.is_confirmed == (weak is None)


def test_only_confirmed_reversals_are_named() -> None:
    summary = behind(a=(0, 5, 3), b=(4, 0, 0))
    (reversal,) = summary.reversals
    second = SecondRace(
        task="t0", winner="a", loser="b", seed=1, seeds=8, difference=2.0, ci95=(1.0, 3.0), confirmed=True
    )
    refuted = replace(second, difference=-0.5, ci95=(-1.5, 0.5), confirmed=False)
    for race_again, count, named in (
        (None, "1 on a single race for one side, which was not repeated", False),
        (second, "1 confirmed by a second race with other seeds", True),
        (refuted, "1 not confirmed by it, and therefore not named", False),
    ):
        repeated: RankReversal = replace(reversal, second_race=race_again)
        found = replace(summary, reversals=(repeated,))
        assert any(count in sentence for sentence in format_suite(found))
        assert bool(format_reversals(found)) == named
        assert ("a wins against b on t0, b against a on t1 and t2." in suite_page(found)) == named
    assert (
        "A second race on t0: a ahead by 2.0 margins (1.0 to 3.0)."
        in format_reversals(replace(summary, reversals=(replace(reversal, second_race=second),)))[0]
    )
    assert any(sentence.startswith("No rank reversals") for sentence in format_suite(behind(a=(0, 0), b=(1, 1))))


def test_profiles_count_tasks_and_their_bands_hold_them() -> None:
    found = profile({"a": [0.0, 0.5, 3.0], "b": [1.0, 0.0]})
    share = dict(zip(TAUS, found.entries["a"].share, strict=True))
    assert [share[tau] for tau in (0.0, 0.4, 0.5, 2.9, 3.0)] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])
    for each in found.entries.values():
        assert (np.array(each.low) <= each.share).all()
        assert (np.array(each.share) <= each.high).all()
    assert found.entries["a"].low[0] == 0
    assert found.entries["a"].high[0] == 1
    assert found.entries["b"].share[0] == 0.5, "of its own two tasks"


def test_defaults_count_where_they_were_tried() -> None:
    summary = summed_up({"one": raced(MEANS["one"]), "two": raced(MEANS["two"], margin=0.001)})
    assert summary.defaults == {"a": {"one": True, "two": False}, "b": {"one": True, "two": False}, "c": {}}
    (text,) = [text for text in format_suite(summary) if "within the margin of the tuned one" in text]
    assert text.endswith(": b 1 of 2 and a 1 of 2.")
    bad = replace(summary, defaults={"a": {"one": True}, "b": {"one": False}, "c": {}})
    assert any(text.endswith(": a 1 of 1 and 1 optimizer none.") for text in format_suite(bad))


def test_who_was_best_at_the_end_of_what_was_tried_is_told() -> None:
    summary = summarize(one=MEANS["one"], two={"a": 0.5, "b": 0.9, "c": 0.1})
    assert any("edge of the grid" in text and text.endswith(": c on one and two.") for text in format_suite(summary))
    assert [task.at_edge for task in summary.tasks.values()] == [("c",), ("c",)]
    assert not any("at the edge" in text for text in format_suite(summarize(one={"a": 1.0, "b": 2.0})))


def test_one_task_is_not_called_tasks() -> None:
    assert any("on 1 of 1 task." in text for text in format_suite(summarize(one={"a": 1.0, "b": 2.0})))


def test_the_page_says_it_all() -> None:
    summary = behind(**WINS)
    page = suite_page(summary)
    parts = ("a wins against b on t0 and t2", 'href="t0/report.html"', 'id="regrets"', 'id="figure-profile"')
    for part in (*parts, *format_suite(summary)):
        assert part in page
    assert len(page) < 200_000
    assert "plotly" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_names_in_the_page_are_escaped(text: str) -> None:
    harmless = text.translate(str.maketrans("<>\"'&{}", "++ij8ff"))  # as wide: long names are shortened
    pages = [suite_page(summed_up({name: raced({name: 0.9, "b": 0.8})})) for name in (text, harmless)]
    page, plain = map(ParsedPage, pages)
    assert page.elements == plain.elements
    assert page.text.count(text) > 5


def test_a_suite_from_the_command_line_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["suite", "--tasks", "digits", "--optimizers", "adam,momentum", "--preset", "small", "--trials", "1"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found["tasks"]) == ["digits-small"]
    folder = tmp_path / "runs" / "suite"
    assert json.loads((folder / "suite.json").read_text()) == found
    assert (folder / "suite.html").exists()
    assert (folder / "digits-small" / "report.html").exists()
    again = CliRunner().invoke(app, words)
    assert json.loads((folder / "suite.json").read_text()) == found, "from the journal, its times too"
    assert "margins behind the best" in again.stdout
    assert CliRunner().invoke(app, ["suite", "--tasks", "digit"]).exit_code == 2
