import copy
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from gradprix import race
from gradprix.show import _efficiency, _figures, _page, _report, _sections, _training_figures, style, write_picture
from gradprix.show._report import report, write_report

FIGURES = ("ranking", "pairs", "sensitivity", "curves", "less")
GOOD = [0.97, 0.96, 0.98, 0.97, 0.95, 0.96, 0.97, 0.98]
VALUES = {
    "good": GOOD,
    "same": GOOD,
    "near": [v - 0.02 - 0.001 * (i % 3) for i, v in enumerate(GOOD)],
    "<i>lost</i>": [0.1, *GOOD[1:]],
}
TRIVIAL = 0.1


def made_up(
    values: dict[str, list[float]] = VALUES,
    higher_is_better: bool = True,
    baseline: str | None = None,
    **metric: Any,
) -> dict[str, Any]:
    """A record with known numbers: each entry tuned at 0.1, a run at 10 diverged, a value at the baseline diverged."""
    metric = {"margin": 0.005, "relative": False, "percent": True, **metric}
    given: dict[str, Any] = {
        "margin": metric["margin"],
        "relative": metric["relative"],
        "baseline": baseline,
        "level": 0.035,
    }
    found = race.judge(values, higher_is_better=higher_is_better, **given)
    seeds = len(next(iter(values.values())))
    tried = [
        {"lr": lr, "seed": 1000, "first": True, "loss": loss, "metric": 0.9, "diverged": None}
        for lr, loss in ((0.001, 2.0), (0.01, 0.4), (0.1, 0.1), (1.0, 0.5))
    ]
    tried += [{**tried[2], "seed": 1001, "first": False, "loss": 0.12}]
    tried += [{**tried[0], "lr": 10.0, "loss": math.inf, "diverged": 3}]
    lost = {name: [7 if value == TRIVIAL else None for value in each] for name, each in values.items()}
    entries = [
        {
            "name": name,
            "optimizer": "SGD",
            "batch_size": 0 if name == "near" else 32,
            "tuned": {"lr": 0.1},
            "tuning": {"trials": 6, "diverged": 1, "at_edge": name == "near", "edges": ["lr"] * (name == "near")},
            "final": {
                "metric": "test accuracy",
                "values": each,
                "mean": sum(each) / seeds,
                "ci95": [0.9, 1.0],
                "diverged": sum(step is not None for step in lost[name]),
                "lost": lost[name],
            },
            "losses": [0.2 if step is None else None for step in lost[name]],
            "leads": name in found.leaders,
            "window": 1.5,
            "memory": 1,
            "updates": 4 if name == "near" else 100,
            "code": f"gradprix.optim.SGD(params, lr=0.1)  # {name}",
        }
        for name, each in values.items()
    ]
    curve = {
        "examples": [100.0, 200.0, 300.0],
        "train_loss": [[1.0, 0.5, 0.2]] * seeds,
        "valid_loss": [[1.0, 0.6, 0.3]] * (seeds - 1) + [[math.nan] * 3],
        "valid_metric": [[0.5, 0.8, 0.9]] * seeds,
    }
    chosen, code = found.leaders[0], entries[0]["code"]
    return {
        "task": "made-up",
        "about": "Numbers made up for a test.",
        "budget": {"trials": 6, "seeds": seeds, "examples": 300},
        "entries": entries,
        "verdict": {
            "best": list(found.leaders),
            "take": chosen,
            "why": "for a test",
            "text": f"made-up: some lead.\nTake {chosen} (for a test): {code}\nNot all made as many updates.",
            "protocol": "Not settled: some.  6 trials",
            "looks": [[seeds, 0.035]],
            "pairs": [{**vars(pair), "ci95": list(pair.ci95)} for pair in found.pairs],
        },
        "cost": {"trials": 56, "examples": 16800, "seconds": 1.0, "step_seconds": dict.fromkeys(values, 0.002)},
        "best": {"name": chosen, "optimizer": "SGD", "arguments": {"lr": 0.1}, "schedule": "cosine", "code": code},
        "after": {"numbers": {}, "pictures": {}, "texts": {}},
        "parts": None,
        "less": {
            "expected": {name: [0.5, 0.8, 0.9 + 0.01 * i] for i, name in enumerate(values)},
            "chance": {name: [1 / len(values)] * 3 for name in values},
            "default": {name: None if name == "near" else 0.7 for name in values},
            "tuned": dict.fromkeys(values, 0.9),
            "target": 0.85,
            "examples": {name: [200.0] * 5 + [None] * (seeds - 5) for name in values},
        },
        "plan": {
            "task": "made-up",
            "fingerprint": "0123456789abcdef0123",
            "metric": {"name": "test accuracy", "higher_is_better": higher_is_better, **metric},
            "baseline": baseline,
            "trivial": TRIVIAL,
            "crossed": False,
            "left_out": [],
            "epochs": 3,
            "examples": 300,
            "batch_size": 32,
            "schedule": "cosine",
            "loop": False,
            "tested": True,
            "tune": ["lr"],
            "form": "stacked, one row a network",
            "compiled": False,
            "trials": 6,
            "seeds": seeds,
            "seed": 0,
            "entries": [{"name": name} for name in values],
        },
        "tried": {name: copy.deepcopy(tried) for name in values},
        "near_limit": 0.2,
        "curves": {name: copy.deepcopy(curve) for name in values},
        "versions": {"python": "3", "torch": "2"},
    }


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> race.Result:
    out = tmp_path_factory.mktemp("race")
    return race.race("digits", "adam,momentum", trials=2, seeds=6, epochs=1, processes=1, out=out)


@pytest.fixture(scope="module")
def text(result: race.Result) -> str:
    return report(result.record, str(result.folder))


def own(text: str) -> str:
    """A page without plotly.js, which is not ours to judge."""
    assert text.count(_report.get_plotlyjs()) == 1, "plotly.js is in the page once"
    return text.replace(_report.get_plotlyjs(), "")


def traces(figure: Any, **wanted: Any) -> list[dict[str, Any]]:
    return [t for t in figure.to_dict()["data"] if all(t.get(k) == v for k, v in wanted.items())]


# ---------------------------------------------------------------- figures


def test_ranking_shows_the_simultaneous_intervals_against_the_best():
    record = made_up()
    shown = traces(_figures.ranking(record), name="difference")
    assert [t["x"][0] for t in shown[:2]] == [0, 0]
    near = next(t for t in shown if t["hovertemplate"].startswith("near"))
    pair = _page.find_pair(record, "good", "near")
    assert near["x"][0] == pytest.approx(-100 * pair["difference"])
    assert near["x"][0] + near["error_x"]["array"][0] == pytest.approx(-100 * pair["ci95"][0])
    assert near["x"][0] - near["error_x"]["arrayminus"][0] == pytest.approx(-100 * pair["ci95"][1])


def test_ranking_is_best_first_with_every_seed_and_the_word():
    record = made_up()
    figure = _figures.ranking(record).to_dict()
    axis, words = figure["layout"]["yaxis"], figure["layout"]["yaxis2"]
    assert list(axis["ticktext"]) == ["<b>good</b>", "<b>same</b>", "near", "<b>&lt;i&gt;lost&lt;/i&gt;</b>"]
    assert list(words["ticktext"]) == ["best mean", "ties", "loses", "not settled"]
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
    assert "10 % of the better mean" in report(record)


def test_pairs_say_the_same_from_both_sides():
    (matrix,) = _figures.pairs(made_up()).to_dict()["data"]
    cells = matrix["text"]
    assert [cells[i][i] for i in range(4)] == ["", "", "", ""]
    assert cells[0][1] == cells[1][0] == "=<br>0.00"
    assert (cells[0][2][0], cells[2][0][0], cells[0][3][0]) == ("▲", "▼", "?")
    assert cells[0][2][1:].replace("+", "") == cells[2][0][1:].replace("−", "")
    assert "more seeds would settle it" in matrix["customdata"][0][3]


def test_sensitivity_has_a_line_a_ring_and_crosses_at_the_top():
    figure = _training_figures.sensitivity(made_up())
    lines = traces(figure, mode="lines+markers")
    assert [list(t["x"]) for t in lines] == [[0.001, 0.01, 0.1, 1.0]] * 4
    assert [(t["x"][0], t["y"][0]) for t in traces(figure, name="tuned")] == [(0.1, 0.1)] * 4
    crosses = traces(figure, name="diverged")
    assert [t["x"][0] for t in crosses] == [10.0] * 4
    assert crosses[0]["y"][0] >= max(lines[0]["y"])
    limits = {shape["y1"] for shape in figure.to_dict()["layout"]["shapes"]}
    assert limits == {0.2}


def test_all_panels_of_sensitivity_are_equally_many_decades_wide():
    record = made_up()
    record["tried"]["near"] = record["tried"]["near"][1:3]
    layout = _training_figures.sensitivity(record).to_dict()["layout"]
    widths = [layout[axis]["range"][1] - layout[axis]["range"][0] for axis in ("xaxis", "xaxis2", "xaxis3", "xaxis4")]
    assert widths == pytest.approx([4.3] * 4)


def test_curves_are_medians_and_a_diverged_seed_does_not_take_them_away():
    figure = _training_figures.curves(made_up())
    medians = [t for t in figure.to_dict()["data"] if t["name"] == "good"]
    assert [list(t["y"]) for t in medians] == [[1.0, 0.6, 0.3], [50.0, 80.0, 90.0]]
    assert [t["showlegend"] for t in medians] == [True, False]


def test_no_two_entries_look_alike():
    names = [{"name": str(i)} for i in range(24)]
    looks = style.styles({"entries": names}).values()
    assert len({(look["color"], look["dash"]) for look in looks}) == 24
    assert len({(look["color"], look["symbol"]) for look in looks}) == 24


# ---------------------------------------------------------------- the page


def test_the_answer_comes_first(result, text):
    record, page = result.record, own(text)
    first = record["verdict"]["text"].split("\n")[0]
    places = [page.index(part) for part in (first, record["best"]["code"], record["verdict"]["protocol"])]
    places += [page.index(f'id="figure-{name}"') for name in FIGURES]
    assert places == sorted(places)
    for entry in record["entries"]:
        assert f"<b>{entry['name']}</b>" in page
        assert entry["code"] in page


def test_the_page_asks_nobody_for_anything(text):
    page = own(text)
    assert not re.search(r"""(src|href|action)\s*=\s*["']?\s*(https?:)?//""", page)
    assert "cloud.plotly.com" not in page
    assert len(text.encode()) < 6_000_000


def test_no_figure_offers_to_upload(text):
    configs = [json.loads(found) for found in re.findall(r'\{"showSendToCloud".*?\}', own(text))]
    assert len(configs) == len(FIGURES)
    assert all(config["showSendToCloud"] is False and config["displaylogo"] is False for config in configs)


def test_text_from_the_record_is_escaped():
    record = made_up()
    attack = "<script>alert(1)</script>"
    for part in (record, record["plan"]):
        part["task"] = attack
    record["about"] = record["verdict"]["text"] = record["verdict"]["protocol"] = attack
    record["plan"]["metric"]["name"] = record["versions"]["torch"] = attack
    page = own(report(record, folder=attack))
    assert attack not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<i>lost</i>" not in page


def test_what_is_doubtful_is_said():
    page = own(report(made_up()))
    assert "The best setting of near (lr) was at the end of what was tried" in page
    assert "diverged on 1 of 8 final seeds; these score 10.0\u00a0%" in page
    assert re.search(r"Of 6 pairs: \d won, 1 tied, \d not settled", page)
    assert "More seeds would settle good against &lt;i&gt;lost&lt;/i&gt; (about" in page
    assert "Not all made as many updates." in page
    assert "The batch size differs by entry" in page


def test_how_to_run_it_again_is_a_command_of_the_command_line(result):
    from typer.testing import CliRunner

    from gradprix.cli import app

    words = _sections.command(result.record).split()
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
    with pytest.raises(ValueError, match="kept in no folder"):
        write_report(race.Result(result.record))


# ---------------------------------------------------------------- in a browser


def test_with_a_baseline_all_are_shown_against_it_and_not_with_each_other():
    record = made_up(baseline="near")
    fig = _figures.ranking(record)

    words = fig.layout.yaxis2.ticktext
    told = dict(zip([e["name"] for e in _page.ranked(record)], words, strict=True))
    assert told["near"] == "baseline"
    assert told["good"] == "wins"
    (good,) = [t for t in traces(fig, name="difference") if t["y"][0] == 0]
    assert good["x"][0] == pytest.approx(100 * (sum(GOOD) - sum(VALUES["near"])) / 8), "ahead is to the right"
    page = report(record)
    assert 'id="pairs"' not in page
    assert "--baseline near" in page
    assert "compared with near, and not with each other" in page


def test_several_tuned_values_have_a_column_each():
    record = made_up()
    record["plan"]["tune"] = ["lr", "momentum", "schedule"]
    for name, runs in record["tried"].items():
        for i, run in enumerate(runs):
            run |= {"momentum": 0.5 + 0.1 * i} if name == "good" else {}
            run["schedule"] = ("cosine", "linear")[i % 2]
    fig = _training_figures.points(record)
    kinds = [fig.layout[f"xaxis{i}"].type for i in (10, 12)]
    assert kinds == ["log", "category"]
    (momentum,) = [t for t in traces(fig, xaxis="x2", mode="markers") if t["marker"]["symbol"] == "circle"]
    assert list(momentum["x"]) == [0.5, 0.6, 0.7, 0.8], "runs on the first seed that did not diverge"
    assert "against each value that was tuned" in report(record)


def test_what_was_reached_with_less_is_in_a_table():
    record = made_up()
    text = _efficiency.pace(record)
    assert "70.0\xa0%" in text
    assert "+20.00" in text, "90 % tuned, 70 % at the default"
    assert "5 of 8" in text
    assert "<td>200</td><td>2 ms</td><td>0.133 s</td>" in text, "200 of 300 examples, 100 steps of 2 ms"
    assert _efficiency.until([100.0, None, None]) is None
    assert f"with 3 trials {'<i>lost</i>'}" not in _efficiency.read_budget(record)
    record["plan"]["left_out"] = ["2 of 5 optimizers (a, b)"]
    record["verdict"]["looks"] = [[16, 0.035], [32, 0.01]]
    page = report(record)
    assert "2 of 5 optimizers (a, b)." in page
    assert "over 2 looks at it, with 16 and 32 seeds" in page


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


@pytest.mark.parametrize("which", ["raced", "made up"])
def test_it_works_in_a_browser_without_a_network(page: Page, result: race.Result, tmp_path: Path, which: str):
    file = tmp_path / "report.html"
    file.write_text(report(result.record if which == "raced" else made_up()), encoding="utf-8")
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else problems.append(r.url))
    page.goto(file.as_uri())
    for name in FIGURES:
        figure = page.locator(f"#figure-{name}")
        figure.locator(".main-svg").first.wait_for(state="attached")
        figure.hover()
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
