import io
import json
import re
from dataclasses import replace as replace_plan
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from msgspec.structs import replace
from rich.console import Console

from gradprix import race
from gradprix.race import RaceRecord, make_plan, summed_up
from gradprix.race.response_curves import response_curves
from gradprix.race.run_records import Artifacts, FailedRun
from gradprix.show import (
    _efficiency,
    _race_figures,
    _sections,
    _training_figures,
    _tuning_figures,
    figures,
    terminal,
    write_picture,
)
from gradprix.show._report import report, write_report
from gradprix.show._svg import GREY
from gradprix.show.figure import Chart, draw_panels
from gradprix.show.lettering import text_width, wrap
from gradprix.show.palette import colour
from gradprix.show.plans import summarize_plan
from gradprix.text.answer import answer_lines, format_headline, format_protocol
from gradprix.text.figures import (
    format_budget_title,
    format_curves_title,
    format_pairs_title,
    format_ranking_title,
    format_sensitivity_title,
)
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.trial import FailureKind
from parsed_page import HOSTILE, ParsedPage
from records import make_record, replace_entry

SECTIONS = ("ranking", "pairs", "sensitivity", "curves", "budget", "settings", "protocol", "again")
MOST_BYTES, MOST_CELL_BYTES = 1_000_000, 150_000
"""Maximum size of a report, and of a notebook cell."""
GOOD = [0.97, 0.96, 0.98, 0.97, 0.95, 0.96, 0.97, 0.98]
VALUES = {
    "good": GOOD,
    "same": GOOD,
    "near": [v - 0.02 - 0.001 * (i % 3) for i, v in enumerate(GOOD)],
    "<i>lost</i>": [0.1, *GOOD[1:]],
}


def made_up(values: dict[str, list[float]] = VALUES, **settings: Any) -> RaceRecord:
    """Return a record with known numbers, in which `near` has other batches, and its best rate is at the edge."""
    record = make_record(values, edges={"near": ("lr",)}, **settings)
    efficiency = replace(record.efficiency, default={**record.efficiency.default, "near": None})
    record = replace(record, efficiency=efficiency)
    return replace_entry(record, "near", batch_size=0, updates=4)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> race.Result:
    out = tmp_path_factory.mktemp("race")
    return race.race("digits", "adam,momentum", trials=2, seeds=8, epochs=1, processes=1, out=out)


@pytest.fixture(scope="module")
def text(result: race.Result) -> str:
    return report(result.record, str(result.folder))


def own(text: str) -> str:
    """A page with spaces for line breaks, as a browser shows it."""
    return re.sub(r"\s*\n\s*", " ", text)


def drawn(chart: Chart, panel: int = 0) -> Axes:
    """The axes of a panel after it was drawn."""
    axes = Figure(figsize=(4, 3)).add_axes((0.2, 0.2, 0.6, 0.6))
    chart.panels[panel].draw(axes)
    return axes


def lines(axes: Axes, entry: str | None = None, **wanted: Any) -> list[Line2D]:
    """Lines of an entry, or of all entries, with properties such as `label` and `marker`."""
    tagged = [line for line in axes.lines if line.get_gid()]
    mine = [line for line in tagged if entry is None or json.loads(line.get_gid() or "")["entry"] == entry]
    return [line for line in mine if all(getattr(line, f"get_{key}")() == value for key, value in wanted.items())]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def x(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_xdata())]


def y(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


def bands(axes: Axes) -> list[tuple[float, float, float, float]]:
    """Left, right, bottom and top of each band; 0 to 1 in the direction in which it crosses the panel."""
    boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, Rectangle)]
    return [(box.x0, box.x1, box.y0, box.y1) for box in boxes]


# ---------------------------------------------------------------- figures

LONG = "my_variant_of_adamw_" * 4
NAMES = {
    "built in": (("momentum", "schedule_free_adamw", "adamw(lr=0.1, weight_decay=0.01)"), None),
    "long": ((f"{LONG}a", f"{LONG}b", "WWWW" * 20), None),
    "long baseline": ((f"{LONG}a", f"{LONG}b", "i" * 200), f"{LONG}b"),
    "not latin": (("最適化" * 20, "оптимизатор с длинным названием", "ไทย"), None),
    "words of the figure": (("mine and yours", "mine and 3 more", "loses to mine"), None),
}


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
@pytest.mark.parametrize(("names", "baseline"), NAMES.values(), ids=NAMES)
def test_no_text_of_a_figure_is_cut_off_or_covers_the_axes(names: tuple[str, ...], baseline: str | None):
    record = make_record({name: [v - 0.05 * i for v in GOOD] for i, name in enumerate(names)}, baseline=baseline)
    for chart in figures(record).values():
        for panel in chart.panels:
            figure = draw_panels((panel,), 1)
            renderer = FigureCanvasAgg(figure).get_renderer()
            (axes,) = figure.axes
            for text in [each for each in figure.findobj(Text) if each.get_text()]:
                box = text.get_window_extent(renderer)
                assert box.x0 >= 0, (chart.name, text)
                assert box.x1 <= figure.bbox.x1, (chart.name, text)
                if text in axes.texts:
                    assert box.x1 <= axes.bbox.x0 or box.x0 >= axes.bbox.x1, (chart.name, text)


def test_a_long_name_is_shortened_in_the_middle_and_appears_whole_at_its_text():
    names = f"{LONG}first", f"{LONG}second"
    chart = _race_figures.ranking(make_record({name: [v - 0.05 * i for v in GOOD] for i, name in enumerate(names)}))
    labels = drawn(chart).texts
    assert [label.get_text()[:7] + label.get_text()[-6:] for label in labels] == ["my_vari_first", "my_varisecond"]
    assert [json.loads(label.get_gid())["tips"] for label in labels] == [*names]
    assert json.loads(drawn(chart, 1).texts[1].get_gid())["tips"] == f"loses to {names[0]}"


def test_titles_and_notes_of_exported_figures_are_wrapped_to_its_width():
    title = f"{LONG} is within 0.5 % of {LONG.replace('_', ' ')}. {'W' * 99}"
    lines = wrap(title, 400, 15, "bold")
    assert max(text_width(line, 15, "bold") for line in lines) <= 400
    assert lines[-1].startswith("WWWW")
    assert "0.5 %" in " ".join(lines)


def test_ranking_shows_the_simultaneous_intervals_against_the_best():
    record = made_up()
    axes = drawn(_race_figures.ranking(record), 1)
    pair, (bar,), (dot,) = (
        record.pair("good", "near"),
        lines(axes, "near", marker="None"),
        lines(axes, "near", marker="o"),
    )
    assert x(dot) == pytest.approx([-100 * pair.difference])
    assert x(bar) == pytest.approx([-100 * pair.ci95[1], -100 * pair.ci95[0]])
    assert [x(lines(axes, name, marker="o")[0]) for name in ("good", "same")] == [[0], [0]]


def test_ranking_is_best_first_with_every_seed_and_its_result():
    record = made_up()
    chart = _race_figures.ranking(record)
    seeds, differences = drawn(chart, 0), drawn(chart, 1)
    assert texts(seeds) == ["good", "same", "near", "<i>lost</i>"]
    assert [text.get_weight() for text in seeds.texts] == ["bold", "bold", "normal", "bold"]
    assert texts(differences)[:4] == ["best mean", "ties with good", "loses to good", "inconclusive"]
    dots = [lines(seeds, name, marker="o")[0] for name in texts(seeds)]
    assert [len(x(each)) for each in dots] == [8, 8, 8, 7]
    assert x(dots[0]) == pytest.approx([100 * v for v in GOOD])
    assert chart.title == "same is within 0.5 points of the best mean, that of good (96.8 %)."


def test_a_diverged_run_is_a_cross_at_the_edge_and_does_not_stretch_the_axis():
    axes = drawn(_race_figures.ranking(made_up()))
    (cross,) = lines(axes, marker="X")
    low, high = axes.get_xlim()
    assert 80 < low < x(cross)[0] < high
    assert "1 diverged, scored 10.0" in json.loads(cross.get_gid() or "")["tips"]


def test_the_margin_is_a_band_round_zero():
    assert bands(drawn(_race_figures.ranking(made_up()), 1)) == [(-0.5, 0.5, 0, 1)]


def test_a_loss_is_ranked_from_small_to_large_with_a_relative_margin():
    values = {"bad": [2.0, 2.1, 2.2, 2.3, 2.1, 2.0], "best": [1.0, 1.1, 1.2, 1.3, 1.1, 1.2]}
    record = made_up(values, higher_is_better=False, percent=False, relative=True, margin=0.1)
    axes = drawn(_race_figures.ranking(record), 1)
    assert texts(axes)[2:] == ["best", "bad"]
    assert x(lines(axes, "bad", marker="o")[0]) == pytest.approx([5.8 / 6])
    assert bands(axes)[0][1] == pytest.approx(0.1 * 6.9 / 6)
    assert "10 % of the better mean" in own(report(record))


def test_pairs_say_the_same_from_both_sides():
    cells = list(_race_figures.comparison_table(made_up()).values())
    assert [cells[i][i].sign for i in range(4)] == ["", "", "", ""]
    assert (cells[0][1].sign, cells[0][1].lead) == (cells[1][0].sign, cells[1][0].lead) == ("=", "0.00")
    assert (cells[0][2].sign, cells[2][0].sign, cells[0][3].sign) == ("▲", "▼", "?")
    assert cells[0][2].lead.replace("+", "") == cells[2][0].lead.replace("−", "")
    assert "more seeds would make it conclusive" in cells[0][3].tip


def test_sensitivity_shows_the_metric_of_all_tuning_runs_and_their_response_curve():
    record = made_up()
    axes = drawn(_tuning_figures.sensitivity(record))
    low, high = axes.get_ylim()
    (dots,), (beyond,), (cross,) = (lines(axes, label=kind) for kind in ("runs", "beyond", "diverged"))
    assert x(dots) == [0.01, 0.1, 1.0, 0.1], "runs on both seeds"
    assert y(dots) == pytest.approx([95.0, 97.0, 94.0, 96.0])
    assert (x(beyond), beyond.get_marker(), x(cross)) == ([0.001], "v", [10.0])
    assert 85 < low < y(beyond)[0] == y(cross)[0] < 94, "a run far from the optimum does not stretch the axis"
    assert 97 < high < 99
    assert json.loads(beyond.get_gid() or "")["tips"][0].startswith("good at 0.001: 50.0")

    curve = response_curves(record.tuning_runs, True, 0.005)["good"]
    assert curve is not None
    (ring,), (line,), (means,) = (lines(axes, label=kind) for kind in ("tuned", "curve", "means"))
    assert (x(ring), y(ring)) == ([0.1], pytest.approx([-100 * curve(0.1)]))
    assert min(x(line)) <= 0.1 <= max(x(line))
    assert y(line) == pytest.approx([-100 * curve(rate) for rate in x(line)], rel=1e-4)
    assert y(means)[0] == 50.0, "further out, a line through the runs"
    zone, tolerance = bands(axes)
    assert tolerance == (0.05, 0.5, 0, 1)
    assert zone[2] == pytest.approx(-100 * (curve.metrics.min() + 0.005))


def test_sensitivity_of_a_loss_has_its_worse_edge_at_the_top():
    record = made_up(higher_is_better=False, percent=False)
    runs = tuple(replace(run, metric=10 * (1 - run.metric)) for run in record.tuning_runs["good"])
    axes = drawn(_tuning_figures.sensitivity(replace(record, tuning_runs=dict.fromkeys(VALUES, runs))))
    (dots,), (beyond,), (cross,) = (lines(axes, label=kind) for kind in ("runs", "beyond", "diverged"))
    assert beyond.get_marker() == "^"
    assert max(y(dots)) < y(beyond)[0] == y(cross)[0] < 5


def test_an_entry_whose_tuning_runs_all_diverged_has_crosses_alone():
    record = made_up()
    lost = tuple(replace(run, diverged=3, metric=0.1) for run in record.tuning_runs["good"])
    record = replace_entry(record, "good", tolerance=None, tolerance_decades=0.0)
    chart = _tuning_figures.sensitivity(replace(record, tuning_runs={**record.tuning_runs, "good": lost}))
    labels = [line.get_label() for line in lines(drawn(chart))]
    assert labels == ["diverged"]
    assert len(x(lines(drawn(chart))[0])) == 6
    assert [len(lines(drawn(chart, i), label="curve")) for i in (1, 2, 3)] == [1, 1, 1]


def test_an_earlier_record_has_a_report_without_bounds():
    record = made_up()
    verdict = replace(record.verdict, seeds=None, bound=None, level=None, margin=None, tuning_deviation=None)
    entries = tuple(replace(entry, bound=None, tolerance=None) for entry in record.entries)
    page = own(report(replace(record, verdict=verdict, entries=entries)))
    assert "<td>-</td> <td>0.1</td> <td>×10</td>" in page
    assert "saved by an earlier version" in page
    assert "<dt>Bounds" not in page


def test_the_ranking_has_bounds_rates_and_tolerances():
    record = made_up()
    cells = '<td>95.7 ± 5.0\xa0%</td> <td>0.40 points</td> <td>0.1 <span class="flag">edge</span></td>'
    page = own(report(replace_entry(record, "near", final=replace(record.entry("near").final, mean=0.957))))
    assert f"near</button></th> {cells} <td>0.05–0.5, ×10</td> <td>2 ms</td> <td>recommended</td>" in page
    assert "±0.10 points" in page
    stopped = replace(record, plan=replace(record.plan, seeds=32))
    assert "8 final runs, of up to 32" in own(report(stopped))


def test_all_panels_of_sensitivity_are_equally_many_decades_wide():
    record = made_up()
    runs = record.tuning_runs
    chart = _tuning_figures.sensitivity(replace(record, tuning_runs={**runs, "near": runs["near"][1:3]}))
    limits = [drawn(chart, i).get_xlim() for i in range(4)]
    assert [np.log10(high / low) for low, high in limits] == pytest.approx([4.3] * 4)


def test_curves_are_medians_and_a_diverged_seed_does_not_take_them_away():
    chart = _training_figures.curves(made_up())
    medians = [lines(drawn(chart, panel), "good")[0] for panel in (0, 1)]
    assert [y(line) for line in medians] == [pytest.approx([1.0, 0.6, 0.3]), pytest.approx([50.0, 80.0, 90.0])]
    assert {"good", "same", "near", "<i>lost</i>"} == set(texts(drawn(chart))), "names in place of a legend"


def test_of_many_entries_the_leaders_are_coloured_and_the_others_grey():
    worse = [value - 0.2 for value in GOOD]
    record = make_record({**{f"leader{i}": GOOD for i in range(8)}, **{f"other{i}": worse for i in range(4)}})
    axes = drawn(_training_figures.curves(record))
    shades = {json.loads(line.get_gid() or "")["entry"]: line.get_color() for line in lines(axes)}
    assert [name for name, shade in shades.items() if shade != GREY] == [f"leader{i}" for i in range(5)]
    assert all(shades[f"leader{i}"] == colour(f"leader{i}") for i in range(5))


def test_titles_of_figures_state_what_they_show():
    record = made_up()
    assert format_pairs_title(record) == (
        "2 of 6 comparisons show a difference beyond the margin; good and same win 1 each."
    )
    wide = replace_entry(record, "near", tolerance_decades=1.3)
    assert format_sensitivity_title(wide) == (
        "near is most forgiving: learning rates in a range of 20× come close to its best; for good, it is 10×."
    )
    assert format_ranking_title(made_up(baseline="near")).startswith(
        "No other mean is within 0.5 points of the baseline"
    )
    order = {name: replace(curve, valid_metric=curve.valid_metric) for name, curve in record.curves.items()}
    late = tuple((0.4, 0.5, 0.95) for _ in GOOD)
    order["near"] = replace(order["near"], valid_metric=late)
    assert format_curves_title(replace(record, curves=order)).endswith(
        "good, same and <i>lost</i> are ahead at half of training, near at the end."
    )


def with_curves(record: RaceRecord, curves: dict[str, tuple[float, ...]]) -> RaceRecord:
    """Return a record with these validation metrics of every run, by entry."""
    each = {name: replace(record.curves[name], valid_metric=(run,) * len(GOOD)) for name, run in curves.items()}
    return replace(record, curves={**record.curves, **each})


def test_what_is_equal_is_not_said_to_be_ahead():
    record = make_record({"a": GOOD, "b": GOOD, "c": GOOD})
    assert format_sensitivity_title(record) == (
        "For each optimizer, learning rates in a range of 10× come close to its best."
    )
    narrow = replace_entry(record, "c", tolerance_decades=0.5)
    assert format_sensitivity_title(narrow).startswith("a and b are most forgiving: learning rates in a range of 10×")
    assert format_curves_title(record).startswith("All optimizers have the same median validation score at half")
    two = with_curves(record, {"a": (0.5, 0.9, 0.9), "b": (0.5, 0.9, 0.9), "c": (0.5, 0.8, 0.8)})
    assert format_curves_title(two) == "a and b are ahead at half of training and at the end."
    same = replace(record.efficiency, expected=dict.fromkeys("abc", (0.5, 0.6, 0.7, 0.8)))
    title = "With 3 trials or more, all optimizers are expected to do equally well."
    assert format_budget_title(replace(record, efficiency=same)) == title


def test_an_optimizer_without_a_scored_tuning_run_has_no_tolerance():
    record = replace_entry(make_record({"a": GOOD, "b": GOOD}), "b", tolerance=None, tolerance_decades=0.0)
    lost = tuple(replace(run, diverged=3) for run in record.tuning_runs["b"])
    one = replace(record, tuning_runs={**record.tuning_runs, "b": lost})
    assert format_sensitivity_title(one) == "For a, learning rates in a range of 10× come close to its best."
    assert format_sensitivity_title(replace(record, tuning_runs={"a": lost, "b": lost})) == "All tuning runs diverged."


@pytest.mark.parametrize(
    ("expected", "title"),
    [
        ({"a": (0.5, 0.6, 0.9, 0.9, 0.9), "b": (0.5, 0.6, 0.8, 0.95, 0.8)}, "With 3 trials and with 5, a is expected"),
        ({"a": (0.5, 0.6, 0.9, 0.9), "b": (0.5, 0.6, 0.8, 0.8)}, "With 3 trials or more, a is expected to do best."),
        ({"a": (0.5, 0.6, 0.7, 0.9), "b": (0.8,)}, "With 3 trials, b is expected to do best, with 4, a."),
    ],
)
def test_the_title_of_the_tuning_budget_holds_at_all_its_trials(expected, title):
    record = make_record({"a": GOOD, "b": GOOD})
    assert format_budget_title(replace(record, efficiency=replace(record.efficiency, expected=expected))).startswith(
        title
    )


def test_titles_state_the_margin_with_its_digits_and_count_one_comparison_as_one():
    record = make_record({"a": GOOD, "b": [v - 0.0024 for v in GOOD]}, margin=0.0025)
    assert format_ranking_title(record).startswith("All means are within 0.25 points of")
    assert format_pairs_title(record).startswith("The comparison shows no difference beyond the margin")
    record = make_record({"a": GOOD, "b": [v - 0.1 for v in GOOD]})
    assert format_pairs_title(record) == "The comparison shows a difference beyond the margin: a wins."


def test_a_race_whose_runs_all_diverged_recommends_nothing():
    assert format_headline(make_record({"a": [0.1] * 8, "b": [0.1] * 8})).startswith("every final run of every")


def test_titles_hold_in_random_races():
    rng = np.random.default_rng(0)
    for _ in range(40):
        names = [f"o{i}" for i in range(rng.integers(2, 7))]
        record = make_record({name: list(np.round(rng.uniform(0.9, 0.93, 8), 2)) for name in names}, margin=0.0075)
        for name in names:
            record = replace_entry(record, name, tolerance_decades=float(rng.choice([0.0, 0.6, 1.0])))
        record = with_curves(record, {name: tuple(np.round(rng.uniform(0.8, 0.83, 4), 2)) for name in names})
        title = format_sensitivity_title(record)
        if " most forgiving" in title:
            widest = max(entry.tolerance_decades for entry in record.entries)
            count = sum(entry.tolerance_decades == widest for entry in record.entries)
            assert _named(title.split(" most forgiving")[0].rsplit(" ", 1)[0]) == count
        metrics = {name: record.curves[name].valid_metric[0] for name in names}
        title = format_curves_title(record).removeprefix("By the median validation score, ")
        if " at the end" in title and not title.startswith("All"):
            last = title.split(" ahead")[0].rsplit(" ", 1)[0]
            if "training and" not in title:
                last = title.split("training, ")[1].split(" at the end")[0]
            best = max(run[-1] for run in metrics.values())
            assert _named(last) == sum(run[-1] == best for run in metrics.values())


def _named(text: str) -> int:
    """Return how many names a list such as `a, b and 2 more` has."""
    more = re.search(r"(\d+) more$", text)
    return len(re.findall(r"\bo\d", text)) + (int(more[1]) if more else 0)


# ---------------------------------------------------------------- the page


def test_the_answer_comes_first(result, text):
    record, page = result.record, own(text)
    places = [page.index(part) for part in (answer_lines(record)[0], record.best.code, format_protocol(record))]
    places += [page.index(f'id="{name}"') for name in SECTIONS]
    assert places == sorted(places)
    for entry in record.entries:
        assert f"<b>{entry.name}</b>" in page
        assert entry.code in page


def test_the_page_is_small_and_asks_nobody_for_anything(text):
    assert not re.search(r"""(src|href|action)\s*=\s*["']?\s*(https?:)?//""", own(text))
    assert len(text.encode()) < MOST_BYTES


def test_each_id_of_the_page_is_unique(text):
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 20
    assert {*re.findall(r'(?:href="|url\()#([\w-]+)', text)} <= set(ids)


def test_figures_follow_the_theme_and_the_font_of_the_page(text):
    figures = re.findall(r"<svg.*?</svg>", text)
    assert len(figures) == 7, "two panels of the ranking, two learning rates, two curves, and the budget"
    for svg in figures:
        assert "font-family" not in svg
        assert 'role="img"' in svg
        assert not re.search(r"(?<!,)#(1d2328|5b6670|dfe3e7)", svg), "colours of the light page are variables"


def with_text(text: str) -> RaceRecord:
    """Return a record with this text in place of every name and message."""
    record = made_up({**VALUES, text: GOOD}, task=text, baseline=text)
    mode = ExecutionMode(False, stack_rejection=Rejection(RejectionCause.FAILS, message=text))
    metric = replace(record.plan.metric, name=text)
    return replace(
        record,
        about=text,
        best=replace(record.best, code=text),
        plan=replace(record.plan, mode=mode, metric=metric, left_out=(text,), schedule=text),
        failed=(FailedRun(entry=text, learning_rate=0.1, seed=0, error=text, kind=FailureKind.EXCEPTION),),
        artifacts=Artifacts(
            numbers={text: {text: (1.0,)}}, pictures={text: {text: text}}, texts={text: {text: {text: text}}}
        ),
        versions={text: text},
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_the_record_is_escaped(text: str):
    harmless = text.translate(str.maketrans("<>\"'&{}", "++ij8ff"))  # as wide: long names are shortened
    page, plain = (ParsedPage(report(with_text(name), folder=name)) for name in (text, harmless))
    assert page.elements == plain.elements, "no element or attribute but those of the templates"
    assert page.text.count(text) > 20
    cells = [ParsedPage(race.Result(with_text(name))._repr_html_()) for name in (text, harmless)]
    assert cells[0].elements == cells[1].elements


def test_what_is_doubtful_is_said():
    page = own(report(made_up()))
    assert "The best setting of near (lr) is at the edge of the search range" in page
    assert "diverged on 1 of 8 final seeds; these score 10.0\u00a0%" in page
    assert re.search(r"Of 6 pairs: \d won, 1 tied, \d inconclusive", page)
    assert "More seeds would first settle the comparisons of good with &lt;i&gt;lost&lt;/i&gt; (about" in page
    assert "in different numbers of updates (good 100, same 100, near 4, &lt;i&gt;lost" in page
    assert "The batch size differs by entry" in page


def test_how_to_run_it_again_is_a_command_of_the_command_line(result):
    from typer.testing import CliRunner

    from gradprix.cli import app

    words = _sections.format_command(result.record).split()
    assert words[0] == "gradprix"
    ran = CliRunner().invoke(app, [*words[1:], "--plan"])
    assert ran.exit_code == 0, ran.output


def test_the_report_is_written_whole(result, monkeypatch):
    path = write_report(result)
    assert path == result.folder / race.REPORT
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_report(result)
    assert path.read_bytes() == before
    assert not list(result.folder.glob("*.part"))


def test_a_race_kept_nowhere_has_no_place_for_a_report(result):
    with pytest.raises(ValueError, match="was not saved"):
        write_report(race.Result(result.record))


# ---------------------------------------------------------------- the terminal


def printed(renderable: Any) -> list[str]:
    """The lines of a terminal with 80 columns, with one space between words."""
    console = Console(width=80, file=io.StringIO(), highlight=False)
    console.print(renderable)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_row_of_the_terminal_has_mean_bound_rate_and_tolerance():
    record = replace_entry(made_up(), "good", tolerance=(0.00068, 0.0015), tuned={"lr": 0.00093})
    lines = printed(terminal.standings(record))
    assert "good 96.8 ± 5.0 % 0.40 points ×10 0.00093 recommended" in lines
    assert printed(terminal.notes(record)[2]) == [
        "Comparisons and bounds allow for the variation from tuning: ±0.10 points",
        "(standard deviation of each mean).",
    ]
    earlier = replace_entry(record, "good", bound=None, tolerance=None, tolerance_decades=1.5)
    assert "good 96.8 ± 5.0 % - ×32 0.00093 leader" in printed(terminal.standings(earlier))


def test_the_plan_has_the_numbers_of_seeds_of_all_analyses():
    plan = make_plan("digits", "adam,momentum", trials=6, seeds=20)
    text = " ".join(printed(summarize_plan(plan, None, "")))
    assert plan.analysis_seeds == [8, 16, 20]
    assert "up to 20 held-out seeds, analysed after 8, 16, 20" in text
    assert "Up to 60 training runs" in text
    text = " ".join(printed(summarize_plan(replace_plan(plan, seeds=8), None, "")))
    assert "then 8 held-out seeds, the same" in text


def test_with_a_baseline_all_are_shown_against_it_and_not_with_each_other():
    record = made_up(baseline="near")
    axes = drawn(_race_figures.ranking(record), 1)
    words = dict(zip([entry.name for entry in record.ranking], texts(axes)[:4], strict=True))
    assert (words["near"], words["good"]) == ("baseline", "wins against near")
    expected = 100 * (sum(GOOD) - sum(VALUES["near"])) / 8
    assert x(lines(axes, "good", marker="o")[0]) == pytest.approx([expected]), "ahead is to the right"
    page = own(report(record))
    assert 'id="pairs"' not in page
    assert "--baseline near" in page
    assert "compared with near, and not with each other" in page


def test_several_tuned_values_have_a_panel_each():
    record = made_up()
    runs = {
        name: tuple(
            replace(
                run,
                point={
                    **run.point,
                    **({"momentum": 0.5 + 0.1 * i} if name == "good" else {}),
                    "schedule": ("cosine", "linear")[i % 2],
                },
            )
            for i, run in enumerate(each)
        )
        for name, each in record.tuning_runs.items()
    }
    tuned = {"lr": 0.1, "momentum": 0.7, "schedule": "cosine"}
    record = replace_entry(replace(record, tuning_runs=runs), "good", tuned=tuned)
    record = replace(record, plan=replace(record.plan, tune=("lr", "momentum", "schedule")))
    chart = figures(record)["sensitivity"]
    assert [panel.title for panel in chart.panels[:3]] == [
        "good: lr 0.1",
        "good: momentum 0.7",
        "good: schedule cosine",
    ]
    rates, momenta, schedules = (drawn(chart, i) for i in range(3))
    assert rates.get_xscale() == "log"
    assert [label.get_text() for label in schedules.get_xticklabels()] == ["cosine", "linear"]
    assert x(lines(momenta, label="runs")[0]) == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert y(lines(momenta, label="runs")[0]) == pytest.approx([95.0, 97.0, 94.0, 96.0])
    assert x(lines(schedules, label="runs")[0]) == [1, 0, 1, 0]
    assert "against each value that was tuned" in own(report(record))


def test_columns_that_are_empty_for_all_entries_are_left_out_with_the_reason():
    record = made_up()
    missed = {name: (None,) * len(GOOD) for name in VALUES}
    empty = replace(record.efficiency, examples=missed, default=dict.fromkeys(VALUES))
    page = ParsedPage(report(replace(record, efficiency=empty)))
    table = _efficiency.format_speed(replace(record, efficiency=empty))
    assert table.columns == ["tuned", "reached the target", "time per step"]
    assert {tuple(cells[1:]) for cells in table.rows.values()} == {("0 of 8", "2 ms")}
    assert len(table.notes) == 2
    assert all(note in page.text for note in table.notes)
    whole = _efficiency.format_speed(record)
    assert (len(whole.columns), whole.notes) == (7, [])


def test_what_was_reached_with_less_is_in_a_table():
    record = made_up()
    text = own(report(record))
    assert "70.0\xa0%" in text
    assert "+20.00" in text, "90 % tuned, 70 % at the default"
    assert "5 of 8" in text
    assert "<td>200</td><td>2 ms</td><td>0.13 s</td>" in text, "200 of 300 examples, 100 steps of 2 ms"
    assert _efficiency.until([100.0, None, None]) is None
    assert "with 2 trials good" in text
    assert "<i>lost</i>" not in text
    plan = replace(record.plan, left_out=("2 of 5 optimizers (a, b)",))
    verdict = replace(record.verdict, interim_analyses=((16, 0.035), (32, 0.01)))
    page = own(report(replace(record, plan=plan, verdict=verdict)))
    assert "2 of 5 optimizers (a, b)." in page
    assert "over 2 interim analyses, with 16 and 32 seeds" in page


def test_the_ranking_is_written_as_a_picture(result):
    path = write_picture(result)
    assert path == result.folder / race.PICTURE
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_each_figure_is_exported_with_its_title_and_settings(result, tmp_path, form, start):
    files = result.export(form, tmp_path / "figures")
    assert {"ranking", "sensitivity", "curves"} <= {file.stem for file in files}
    for file in files:
        assert file.read_bytes().startswith(start)
    if form == "svg":
        shown = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", files[0].read_text("utf-8")))
        assert _race_figures.ranking(result.record).title in shown
        assert "2 trials + 8 held-out seeds each" in shown
        assert "a bar for their mean" in shown, "an image has no page that explains it"
    with pytest.raises(ValueError, match="must be one of csv, parquet, latex, png"):
        result.export("gif", tmp_path)


def test_a_notebook_cell_is_small_and_has_the_answer_and_the_ranking(result, monkeypatch):
    cell = result._repr_html_()
    assert len(cell.encode()) < MOST_CELL_BYTES
    page = own(cell)
    assert page.index(answer_lines(result.record)[0]) < page.index("<table>") < page.index("<svg")
    write_report(result)
    assert f'href="{(result.folder / race.REPORT).as_uri()}"' in result._repr_html_()
    monkeypatch.chdir(result.folder.parent)
    assert f'href="{result.folder.name}/{race.REPORT}"' in result._repr_html_()
    assert "<script" not in cell
    assert repr(result) == result.text


@pytest.mark.parametrize(("diverged", "named"), [(0, True), (7, True), (8, False)])
def test_a_best_value_at_an_edge_is_none_if_every_final_run_diverged(diverged: int, named: bool) -> None:
    values = {"adam": [0.9, 0.91] * 4, "sgd": [0.5, 0.52] * 4}
    record = make_record(values, edges={"sgd": ("lr",)}, diverged={"adam": 0, "sgd": diverged})
    text = "\n".join([*map(str, terminal.notes(record)), *_sections.format_warnings(record)])
    assert text.count("sgd (lr)") == 2 * named
    assert summed_up({"made-up": record}).tasks["made-up"].at_edge == ("sgd",) * named
