import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace as replace_plan
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser, Page, sync_playwright
from plotly.offline import get_plotlyjs
from rich.console import Console

from gradprix import race
from gradprix.race import RaceRecord, make_plan
from gradprix.race.response_curves import response_curves
from gradprix.race.run_records import Artifacts, FailedRun
from gradprix.show import (
    _efficiency,
    _figures,
    _sections,
    _training_figures,
    _tuning_figures,
    style,
    terminal,
    write_picture,
)
from gradprix.show._report import report, write_report
from gradprix.show.plans import summarize_plan
from gradprix.text.answer import answer_lines, format_protocol
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.trial import FailureKind
from parsed_page import HOSTILE, ParsedPage
from records import make_record, replace_entry

FIGURES = ("ranking", "pairs", "sensitivity", "curves", "less")
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
    """A page without plotly.js, which is not ours to judge, with spaces for line breaks, as a browser shows it."""
    assert text.count(get_plotlyjs()) == 1, "plotly.js is in the page once"
    return re.sub(r" *\n *", " ", text.replace(get_plotlyjs(), ""))


def traces(figure: Any, **wanted: Any) -> list[dict[str, Any]]:
    return [t for t in figure.to_dict()["data"] if all(t.get(k) == v for k, v in wanted.items())]


# ---------------------------------------------------------------- figures


def test_ranking_shows_the_simultaneous_intervals_against_the_best():
    record = made_up()
    shown = traces(_figures.ranking(record), name="difference")
    assert [t["x"][0] for t in shown[:2]] == [0, 0]
    near = next(t for t in shown if t["hovertemplate"].startswith("near"))
    pair = record.pair("good", "near")
    assert near["x"][0] == pytest.approx(-100 * pair.difference)
    assert near["x"][0] + near["error_x"]["array"][0] == pytest.approx(-100 * pair.ci95[0])
    assert near["x"][0] - near["error_x"]["arrayminus"][0] == pytest.approx(-100 * pair.ci95[1])


def test_ranking_is_best_first_with_every_seed_and_the_word():
    record = made_up()
    figure = _figures.ranking(record).to_dict()
    axis, words = figure["layout"]["yaxis"], figure["layout"]["yaxis2"]
    assert list(axis["ticktext"]) == ["<b>good</b>", "<b>same</b>", "near", "<b>&lt;i&gt;lost&lt;/i&gt;</b>"]
    assert list(words["ticktext"]) == ["best mean", "ties", "loses", "inconclusive"]
    dots = [t for t in figure["data"] if t.get("marker", {}).get("opacity")]
    assert [len(t["x"]) for t in dots] == [8, 8, 8, 7]
    assert list(dots[0]["x"]) == pytest.approx([100 * v for v in GOOD])


def test_a_diverged_run_is_a_cross_at_the_edge_and_does_not_stretch_the_axis():
    figure = _figures.ranking(made_up())
    (cross,) = traces(figure, name="diverged")
    low, high = figure.to_dict()["layout"]["xaxis"]["range"]
    assert 80 < low < cross["x"][0] < high
    assert "10.0" in cross["hovertemplate"]


def test_the_margin_is_a_band_round_zero():
    bands = [s for s in _figures.ranking(made_up()).to_dict()["layout"]["shapes"] if s["type"] == "rect"]
    assert [(s["x0"], s["x1"]) for s in bands] == [(-0.5, 0.5)]


def test_a_loss_is_ranked_from_small_to_large_with_a_relative_margin():
    values = {"bad": [2.0, 2.1, 2.2, 2.3, 2.1, 2.0], "best": [1.0, 1.1, 1.2, 1.3, 1.1, 1.2]}
    record = made_up(values, higher_is_better=False, percent=False, relative=True, margin=0.1)
    figure = _figures.ranking(record)
    assert list(figure.to_dict()["layout"]["yaxis"]["ticktext"]) == ["<b>best</b>", "bad"]
    assert traces(figure, name="difference")[1]["x"][0] == pytest.approx(5.8 / 6)
    assert figure.to_dict()["layout"]["shapes"][0]["x1"] == pytest.approx(0.1 * 6.9 / 6)
    assert "10 % of the better mean" in own(report(record))


def test_pairs_say_the_same_from_both_sides():
    (matrix,) = _figures.pairs(made_up()).to_dict()["data"]
    cells = matrix["text"]
    assert [cells[i][i] for i in range(4)] == ["", "", "", ""]
    assert cells[0][1] == cells[1][0] == "=<br>0.00"
    assert (cells[0][2][0], cells[2][0][0], cells[0][3][0]) == ("▲", "▼", "?")
    assert cells[0][2][1:].replace("+", "") == cells[2][0][1:].replace("−", "")
    assert "more seeds would make it conclusive" in matrix["customdata"][0][3]


def test_sensitivity_shows_the_metric_of_all_tuning_runs_and_their_response_curve():
    record = made_up()
    figure = _tuning_figures.sensitivity(record)
    low, high = figure.layout.yaxis.range
    dots = traces(figure, name="runs")[0]
    assert list(dots["x"]) == [0.001, 0.01, 0.1, 1.0, 0.1], "runs on both seeds"
    assert list(dots["y"][1:]) == pytest.approx([95.0, 97.0, 94.0, 96.0])
    assert list(dots["marker"]["symbol"]) == ["triangle-down", *["circle"] * 4]
    assert 85 < low < dots["y"][0] < 94, "a run far from the optimum does not stretch the axis"
    assert 97 < high < 99
    assert dots["customdata"][0][0] == 50.0
    assert [(list(t["x"]), list(t["y"])) for t in traces(figure, name="diverged")] == [([10.0], [dots["y"][0]])] * 4

    curve = response_curves(record.tuning_runs, True, 0.005)["good"]
    assert curve is not None
    tuned = traces(figure, name="tuned")
    assert [(t["x"][0], t["y"][0]) for t in tuned] == [(0.1, pytest.approx(-100 * curve(0.1)))] * 4
    line = traces(figure, name="curve")[0]
    assert min(line["x"]) <= 0.1 <= max(line["x"])
    assert list(line["y"]) == pytest.approx([-100 * curve(rate) for rate in line["x"]], rel=1e-4)
    means = traces(figure, name="means")[0]
    assert means["y"][0] == 50.0, "further out, a line through the runs"
    shapes = figure.to_dict()["layout"]["shapes"]
    bands = [(s["x0"], s["x1"]) for s in shapes if s["yref"].endswith("domain")]
    assert bands == [(0.05, 0.5)] * 4
    zones = [s["y0"] for s in shapes if s["xref"].endswith("domain")]
    assert zones == pytest.approx([-100 * (curve.metrics.min() + 0.005)] * 4)


def test_sensitivity_of_a_loss_has_its_worse_edge_at_the_top():
    record = made_up(higher_is_better=False, percent=False)
    runs = tuple(replace(run, metric=10 * (1 - run.metric)) for run in record.tuning_runs["good"])
    figure = _tuning_figures.sensitivity(replace(record, tuning_runs=dict.fromkeys(VALUES, runs)))
    dots, cross = traces(figure, name="runs")[0], traces(figure, name="diverged")[0]
    assert dots["marker"]["symbol"][0] == "triangle-up"
    assert dots["y"][0] == cross["y"][0] == max(dots["y"]) < 5


def test_an_entry_whose_tuning_runs_all_diverged_has_crosses_alone():
    record = made_up()
    lost = tuple(replace(run, diverged=3, metric=0.1) for run in record.tuning_runs["good"])
    record = replace_entry(record, "good", tolerance=None, tolerance_decades=0.0)
    figure = _tuning_figures.sensitivity(replace(record, tuning_runs={**record.tuning_runs, "good": lost}))
    assert [len(traces(figure, name=name)) for name in ("curve", "tuned")] == [3, 3]
    counts = [sum(len(t["x"]) for t in traces(figure, name=name)) for name in ("runs", "diverged")]
    assert counts == [3 * 5, 3 + 6]


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
    assert f"<td>near</td> {cells} <td>0.05–0.5, ×10</td>" in page
    assert "±0.10 points" in page
    stopped = replace(record, plan=replace(record.plan, seeds=32))
    assert "8 final runs, of up to 32" in own(report(stopped))


def test_all_panels_of_sensitivity_are_equally_many_decades_wide():
    record = made_up()
    runs = record.tuning_runs
    record = replace(record, tuning_runs={**runs, "near": runs["near"][1:3]})
    layout = _tuning_figures.sensitivity(record).to_dict()["layout"]
    widths = [layout[axis]["range"][1] - layout[axis]["range"][0] for axis in ("xaxis", "xaxis2", "xaxis3", "xaxis4")]
    assert widths == pytest.approx([4.3] * 4)


def test_curves_are_medians_and_a_diverged_seed_does_not_take_them_away():
    figure = _training_figures.curves(made_up())
    medians = [t for t in figure.to_dict()["data"] if t["name"] == "good"]
    assert [list(t["y"]) for t in medians] == [[1.0, 0.6, 0.3], [50.0, 80.0, 90.0]]
    assert [t["showlegend"] for t in medians] == [True, False]


def test_no_two_entries_look_alike():
    looks = style.styles(make_record({str(i): GOOD for i in range(24)})).values()
    assert len({(look["color"], look["dash"]) for look in looks}) == 24
    assert len({(look["color"], look["symbol"]) for look in looks}) == 24


# ---------------------------------------------------------------- the page


def test_the_answer_comes_first(result, text):
    record, page = result.record, own(text)
    places = [page.index(part) for part in (answer_lines(record)[0], record.best.code, format_protocol(record))]
    places += [page.index(f'id="figure-{name}"') for name in FIGURES]
    assert places == sorted(places)
    for entry in record.entries:
        assert f"<b>{entry.name}</b>" in page
        assert entry.code in page


def test_the_page_asks_nobody_for_anything(text):
    page = own(text)
    assert not re.search(r"""(src|href|action)\s*=\s*["']?\s*(https?:)?//""", page)
    assert "cloud.plotly.com" not in page
    assert len(text.encode()) < 6_000_000


def test_figures_have_the_font_of_the_page():
    assert f"font: 16px/1.6 {style.FONT};" in style.CSS


def test_no_figure_offers_to_upload(text):
    configs = [json.loads(found) for found in re.findall(r'\{"showSendToCloud".*?\}', own(text))]
    assert len(configs) == len(FIGURES)
    assert all(config["showSendToCloud"] is False and config["displaylogo"] is False for config in configs)


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
    page, plain = (ParsedPage(report(with_text(name), folder=name)) for name in (text, "harmless"))
    assert page.elements == plain.elements, "no element or attribute but those of the templates"
    assert page.text.count(text) > 20
    cell = ParsedPage(race.Result(with_text(text))._repr_html_())
    assert cell.elements == [("iframe", "srcdoc", "style")]


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
    assert "good 96.8 ± 5.0 % 0.40 points 0.00093 0.00068–0.0015, ×10" in lines
    assert printed(terminal.notes(record)[2]) == [
        "Comparisons and bounds allow for the variation from tuning: ±0.10 points",
        "(standard deviation of each mean).",
    ]
    earlier = replace_entry(record, "good", bound=None, tolerance=None, tolerance_decades=1.5)
    assert "good 96.8 ± 5.0 % - 0.00093 ×32" in printed(terminal.standings(earlier))


def test_the_plan_has_the_numbers_of_seeds_of_all_analyses():
    plan = make_plan("digits", "adam,momentum", trials=6, seeds=20)
    text = " ".join(printed(summarize_plan(plan, None, "")))
    assert plan.analysis_seeds == [8, 16, 20]
    assert "up to 20 held-out seeds, analysed after 8, 16, 20" in text
    assert "Up to 60 training runs" in text
    text = " ".join(printed(summarize_plan(replace_plan(plan, seeds=8), None, "")))
    assert "then 8 held-out seeds, the same" in text


# ---------------------------------------------------------------- in a browser


def test_with_a_baseline_all_are_shown_against_it_and_not_with_each_other():
    record = made_up(baseline="near")
    fig = _figures.ranking(record)

    words = fig.layout.yaxis2.ticktext
    told = dict(zip([entry.name for entry in record.ranking], words, strict=True))
    assert told["near"] == "baseline"
    assert told["good"] == "wins"
    (good,) = [t for t in traces(fig, name="difference") if t["y"][0] == 0]
    assert good["x"][0] == pytest.approx(100 * (sum(GOOD) - sum(VALUES["near"])) / 8), "ahead is to the right"
    page = own(report(record))
    assert 'id="pairs"' not in page
    assert "--baseline near" in page
    assert "compared with near, and not with each other" in page


def test_several_tuned_values_have_a_column_each():
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
    record = replace(record, plan=replace(record.plan, tune=("lr", "momentum", "schedule")), tuning_runs=runs)
    fig = _tuning_figures.points(record)
    kinds = [fig.layout[f"xaxis{i}"].type for i in (10, 12)]
    assert kinds == ["log", "category"]
    (momentum,) = traces(fig, xaxis="x2", name="runs")
    assert list(momentum["x"]) == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9]), "runs on all seeds that did not diverge"
    assert list(momentum["y"][1:]) == pytest.approx([95.0, 97.0, 94.0, 96.0])
    assert "against each value that was tuned" in own(report(record))


def test_what_was_reached_with_less_is_in_a_table():
    record = made_up()
    text = own(report(record))
    assert "70.0\xa0%" in text
    assert "+20.00" in text, "90 % tuned, 70 % at the default"
    assert "5 of 8" in text
    assert "<td>200</td><td>2 ms</td><td>0.133 s</td>" in text, "200 of 300 examples, 100 steps of 2 ms"
    assert _efficiency.until([100.0, None, None]) is None
    assert "with 2 trials good" in text
    assert "<i>lost</i>" not in text
    plan = replace(record.plan, left_out=("2 of 5 optimizers (a, b)",))
    verdict = replace(record.verdict, interim_analyses=((16, 0.035), (32, 0.01)))
    page = own(report(replace(record, plan=plan, verdict=verdict)))
    assert "2 of 5 optimizers (a, b)." in page
    assert "over 2 interim analyses, with 16 and 32 seeds" in page


def test_the_ranking_is_written_as_a_picture(result, monkeypatch):
    pytest.importorskip("kaleido")
    if shutil.which("chromium") is None:
        pytest.skip("no chromium")
    path = write_picture(result)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", lambda *_, **__: (_ for _ in ()).throw(ImportError))
    with pytest.raises(ValueError, match=r"pip install 'gradprix\[png\]'"):
        write_picture(result)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    quiet = ("background-networking", "component-update", "sync")
    args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", *(f"--disable-{q}" for q in quiet)]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=args)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("which", ["raced", "made up", "hostile"])
def test_it_works_in_a_browser_without_a_network(page: Page, result: race.Result, tmp_path: Path, which: str):
    file = tmp_path / "report.html"
    hostile = made_up({**VALUES, **dict.fromkeys(HOSTILE, GOOD)}, task=HOSTILE[0])
    record = {"raced": result.record, "made up": made_up(), "hostile": hostile}[which]
    file.write_text(report(record), encoding="utf-8")
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else problems.append(r.url))
    page.goto(file.as_uri())
    for name in FIGURES:
        figure = page.locator(f"#figure-{name}")
        figure.locator(".main-svg").first.wait_for(state="attached")
        figure.hover()
    labels = page.locator("#figure-ranking text").all_text_contents()
    assert {entry.name for entry in record.entries} <= set(labels)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    offers = """[...document.querySelectorAll('body *:not(script)')].filter(e => /share|cloud|upload/i.test(
        [e.dataset.title || '', e.title || '', e.childElementCount ? '' : e.textContent].join(' '))).length"""
    assert page.evaluate(offers) == 0
    assert page.locator(".modebar-btn").count() > 0
    assert problems == []


def test_a_narrow_page_does_not_scroll_sideways(page: Page, result: race.Result):
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(write_report(result).as_uri())
    page.locator("#figure-curves .main-svg").first.wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
