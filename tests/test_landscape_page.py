"""The landscape page in a browser, from the app's server and as a file."""

import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from accessibility import serious_problems
from app_browser import faultless
from gradprix import cli
from gradprix.app.landscape_modules import MODULES
from gradprix.app.presets import PRESETS, Preset
from gradprix.app.templating import FOLDER
from preset_runs import run_preset

REDRAW = 150
"""Milliseconds from an input to the painted frame."""
FRAME = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"


@pytest.fixture(scope="module")
def tab(browser: Browser, app_url: str) -> Iterator[Page]:
    """A page for all tests: to load it anew takes the browser a second."""
    with faultless(browser, app_url) as page:
        yield page


def show(page: Page, url: str) -> Page:
    """Show a state, and wait until its learning rates are tuned and its figures drawn."""
    page.goto(url)
    page.locator("html[data-ready=true]").wait_for(state="attached")
    return page


def number(page: Page, name: str, field: str) -> float:
    value = page.locator(f"tr[data-name={name}] [data-field={field}]").get_attribute("data-value")
    return float("nan" if value in (None, "null") else value)


def test_generated_modules_are_those_of_the_rules():
    for name, source in MODULES.items():
        written = (FOLDER / "static" / "landscape" / name).read_text("utf-8")
        assert written == source(), f"{name} is out of date: python -m gradprix.app.landscape_modules"


def test_the_first_page_does_not_wait_for_torch():
    code = "import sys; from gradprix.app.landscape_view import page; page(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.title)
def test_numbers_of_a_preset_are_those_of_python(tab: Page, app_url: str, preset: Preset):
    show(tab, f"{app_url}?{preset.query}")
    expect(tab.locator("#comment b")).to_contain_text(preset.title)
    expect(tab.locator("#comment p")).not_to_contain_text("{")
    for name, run in run_preset(preset).items():
        for field in ("rate", "end", "maximum", "convergence_step"):
            expected = float(getattr(run, field))
            shown = number(tab, name, field)
            if expected == float("inf"):
                assert shown != shown, "a step that is never reached has no number"
            else:
                assert shown == pytest.approx(expected, rel=1e-6, abs=1e-13 * run.start), (name, field)


def move_slider(label: str, by: int) -> str:
    """Return JavaScript that moves a slider and waits for the next painted frame; its value is the time in ms."""
    return f"""(async () => {{
        const slider = document.querySelector('input[type=range][aria-label^="{label}"]');
        const begun = performance.now();
        slider.value = Number(slider.value) + {by};
        slider.dispatchEvent(new Event("input", {{ bubbles: true }}));
        await {FRAME};
        return performance.now() - begun;
    }})()"""


def test_a_slider_redraws_within_150_ms(tab: Page, app_url: str):
    show(tab, app_url)
    for label in ("Condition number", "Rotation", "Learning rate of momentum", "momentum of momentum"):
        times = [tab.evaluate(move_slider(label, by)) for by in (40, -30, 20, -40, 30, -20, 10, 20)]
        assert statistics.quantiles(times)[0] < REDRAW, f"{label}: {times}"  # other processes delay some of them


def test_a_comment_stays_while_its_settings_are_varied(tab: Page, app_url: str):
    preset = next(each for each in PRESETS if each.title == "Momentum overshoots")
    show(tab, f"{app_url}?{preset.query}")
    words = tab.locator("#comment p").inner_text()
    tab.evaluate(move_slider("momentum of momentum", -20))
    expect(tab.locator("#comment")).to_contain_text("The settings are changed")
    expect(tab.locator("#comment p")).to_have_text(words)
    tab.get_by_role("button", name="Restore").click()
    expect(tab.locator("#comment .note")).to_be_hidden()
    tab.locator("#controls select").first.select_option("bowl")
    expect(tab.locator("#comment")).to_be_hidden()


def test_no_old_curve_stands_under_new_controls(tab: Page, app_url: str):
    show(tab, f"{app_url}?who=gd,adam:lr=0.1")
    ground = "document.querySelector('#surface-stage svg > g:nth-child(2)').innerHTML"
    before = tab.evaluate(ground), number(tab, "adam", "end")
    seen: dict[str, Any] = tab.evaluate(f"""(async () => {{
        await {move_slider("Condition number", 200)};
        const faded = [...document.querySelectorAll("#loss-stage [opacity='0.3'] .member")].map(e => e.dataset.name);
        const status = document.getElementById("status").textContent;
        return {{ faded: [...new Set(faded)], status, ground: {ground} }};
    }})()""")
    assert seen["faded"] == ["gd"], "its learning rate is being tuned; that of adam is given"
    assert "gd" in seen["status"]
    assert seen["ground"] != before[0]
    assert number(tab, "adam", "end") != before[1]
    tab.locator("html[data-ready=true]").wait_for(state="attached")
    assert tab.locator("#loss-stage [opacity='0.3']").count() == 0


def test_a_line_that_diverges_is_drawn_within_the_plot(tab: Page, app_url: str):
    """Browsers take seconds to draw a dashed line of a million pixels."""
    show(tab, f"{app_url}?who=nesterov:lr=0.3")
    d = tab.locator("#surface-stage path.trail").get_attribute("d")
    frame = tab.locator("#surface-stage svg > g:nth-child(2) > rect").first
    x, y, width, height = (float(frame.get_attribute(name) or "nan") for name in ("x", "y", "width", "height"))
    numbers = np.array(re.findall(r"-?[\d.]+", d or ""), dtype=float).reshape(-1, 2)
    assert len(numbers) > 2
    assert (np.abs(numbers - (x, y) - np.array([width, height]) / 2) <= np.array([width, height]) / 2 + 0.1).all()
    expect(tab.locator("#surface-stage svg")).to_contain_text("nesterov (off the plot)")


def test_start_is_dragged_clicked_and_moved_with_arrow_keys(tab: Page, app_url: str):
    show(tab, f"{app_url}?surface=bowl&who=gd:lr=0.1,adam:lr=0.1")
    handle, start = tab.locator("button.start"), [tab.get_by_label(f"Start {axis}", exact=True) for axis in "xy"]
    box, stage = handle.bounding_box(), tab.locator("#surface-stage").bounding_box()
    assert box is not None
    assert stage is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 80, y + 40, steps=4)
    tab.mouse.up()
    expect(start[0]).not_to_have_value("-2")
    dragged = [float(each.input_value()) for each in start]
    assert dragged[0] > -2
    assert dragged[1] < 1.2
    handle.press("ArrowRight")
    expect(start[0]).to_have_value(f"{dragged[0] + 5 / 200:.4g}")
    assert tab.locator("#step-readout").inner_text() == "step 200 of 200", "the arrow key moves the start, not the step"
    tab.mouse.click(stage["x"] + 100, stage["y"] + 100)
    expect(start[0]).not_to_have_value(f"{dragged[0] + 5 / 200:.4g}")
    tab.wait_for_function("location.search.includes('start=')")


def test_momentum_overshoots_is_found_and_played_from_step_0(tab: Page, app_url: str):
    show(tab, app_url)
    tab.get_by_label("Find an example").fill("overshoot")
    assert tab.locator(".preset:visible").all_inner_texts() == ["Momentum overshoots"]
    tab.locator(".preset:visible").click()
    readout = tab.locator("#step-readout")
    expect(readout).to_have_text("step 0 of 120")
    expect(tab.locator("#surface-stage svg")).to_contain_text("momentum passes the minimum at step")
    tab.get_by_label("Speed").select_option("fast")
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press("Space")
    expect(readout).to_have_text("step 120 of 120")
    tab.keyboard.press("ArrowLeft")
    expect(readout).to_have_text("step 119 of 120")
    tab.keyboard.press("Home")
    expect(readout).to_have_text("step 0 of 120")


@pytest.mark.parametrize(
    ("label", "typed", "words"),
    [
        ("Steps", "100000000", "Steps: 1 to 2,000."),
        ("Steps", "abc", "Steps: 1 to 2,000, as a number."),
        ("Steps", "1.5", "Steps: 1 to 2,000, without decimals."),
        ("Noise σ", "-1", "Noise σ: 0 to 20."),
        ("Start x", "", "Start x: −5 to 2.5, as a number."),
        ("Learning rate of gd", "0", "Learning rate: 1e−9 to 100,000."),
    ],
)
def test_a_value_out_of_range_is_answered_with_the_range(tab: Page, app_url: str, label: str, typed: str, words: str):
    show(tab, f"{app_url}?who=gd")
    field = tab.get_by_label(label, exact=True)
    field.fill(typed)
    field.press("Enter")
    expect(tab.locator(".problem:visible")).to_have_text(words)
    expect(field).to_have_value(typed)
    assert tab.locator("#step-readout").inner_text() == "step 200 of 200"


def test_a_value_in_the_address_that_is_not_used_is_named(tab: Page, app_url: str):
    show(tab, f"{app_url}?steps=100000000&who=gd,nobody&surface=moon&start=99,0")
    problems = "\n".join(tab.locator("#problems p").all_inner_texts())
    for words in ("Steps: 1 to 2,000", "who=nobody", "surface=moon", "Start x: −5 to 2.5"):
        assert words in problems


def test_hovering_fades_all_others(tab: Page, app_url: str):
    show(tab, f"{app_url}?who=gd,adam")
    tab.locator("tr[data-name=adam] th").hover()
    opacity = "name => getComputedStyle(document.querySelector(`#loss-stage .member[data-name=${name}]`)).opacity"
    assert float(tab.evaluate(opacity, "gd")) < 0.5
    assert float(tab.evaluate(opacity, "adam")) == 1


def test_hyperparameters_are_dragged_on_their_map(tab: Page, app_url: str):
    show(tab, f"{app_url}?view=sweep&who=gd,momentum&of=momentum")
    before = number(tab, "momentum", "end")
    tab.locator("button.start").press("Shift+ArrowRight")
    expect(tab.locator("tr[data-name=momentum] [data-field=rate]")).to_contain_text("given")
    tab.locator("button.start").press("Shift+ArrowDown")
    momentum = tab.get_by_label("momentum of momentum", exact=True)
    expect(momentum).not_to_have_value("0.9")  # waits: the page is drawn anew after each key
    assert float(momentum.input_value()) < 0.9
    assert number(tab, "momentum", "end") != before


def test_fewer_steps_than_the_one_pointed_at(tab: Page, app_url: str):
    show(tab, f"{app_url}?who=gd")
    tab.locator("#loss-stage").hover()
    expect(tab.locator("#step-readout")).not_to_have_text("step 200 of 200")
    steps = tab.get_by_label("Steps", exact=True)
    steps.fill("20")
    steps.press("Enter")
    expect(tab.locator("#step-readout")).to_have_text("step 20 of 20")


@pytest.mark.parametrize(
    ("view", "element"),
    [
        ("contour", "path.trail"),
        ("relief", "polygon"),
        ("starts", "g:first-child rect"),
        ("sweep", "g:first-child rect"),
    ],
)
def test_a_view_is_drawn(tab: Page, app_url: str, view: str, element: str):
    show(tab, f"{app_url}?surface=himmelblau&who=gd,momentum&view={view}")
    assert tab.locator(f"#surface-stage svg {element}").count() >= 2


def test_exports_have_title_settings_and_numbers(tab: Page, app_url: str, tmp_path: Path):
    show(tab, f"{app_url}?surface=bowl&steps=60&who=gd:lr=2.05,momentum:lr=2.05")
    for what, form, contained in (
        (
            "surface",
            "svg",
            (
                b"Just above 2/",
                b"Surface Bowl",
                b"60 steps",
                b"momentum: learning rate 2.05, momentum 0.9",
                b"data:image/png",
            ),
        ),
        ("losses", "svg", (b"loss above the minimum", b"Surface Bowl")),
        ("losses", "png", (b"\x89PNG",)),
        ("surface", "csv", (b"step,optimizer,learning_rate,x,y,loss_above_minimum\n0,gd,2.05,-2,1.2,2.7",)),
        ("surface", "html", (b'data-query="surface=bowl&amp;steps=60', b"default-src 'none'")),
    ):
        with tab.expect_download() as download:
            tab.evaluate(f"document.querySelector('[data-save=\"{what} {form}\"]').click()")
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        for each in contained:
            assert each in path.read_bytes()


def test_the_page_is_one_file_that_works_without_a_server(tab: Page, browser: Browser, app_url: str, tmp_path: Path):
    query = PRESETS[1].query
    show(tab, f"{app_url}?{query}")
    result = CliRunner().invoke(cli.app, ["app", "--static", str(tmp_path)])
    path = tmp_path / "index.html"
    assert result.output.split() == ["Landscape", "page:", str(path)]
    assert list(tmp_path.iterdir()) == [path]
    with faultless(browser, path.as_uri()) as page:
        show(page, f"{path.as_uri()}#{query}")
        for name in ("gd", "momentum", "nesterov"):
            assert number(page, name, "end") == number(tab, name, "end")
        page.get_by_role("link", name="AdaGrad stalls").click()
        expect(page.locator("#comment")).to_contain_text("AdaGrad divides")
        assert "surface=rosenbrock" in page.url


@pytest.mark.parametrize("view", ["contour", "relief", "starts", "sweep"])
def test_a_view_fits_on_a_phone_and_has_no_accessibility_problem(browser: Browser, app_url: str, view: str):
    with faultless(browser, app_url, 390, dark=view == "relief") as page:
        show(page, f"{app_url}?surface=himmelblau&who=gd,adam&steps=50&view={view}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert serious_problems(page) == []


def test_the_start_is_dragged_by_touch(browser: Browser, app_url: str):
    with faultless(browser, app_url, 390) as page:
        show(page, f"{app_url}?surface=bowl&who=gd:lr=0.1")
        page.locator("button.start").scroll_into_view_if_needed()
        box = page.locator("button.start").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch = page.context.new_cdp_session(page)
        for kind, by in (("touchStart", 0), ("touchMove", 25), ("touchMove", 50), ("touchEnd", None)):
            points = [] if by is None else [{"x": x + by, "y": y + by}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        expect(page.get_by_label("Start x", exact=True)).not_to_have_value("-2")
        assert float(page.get_by_label("Start x", exact=True).input_value()) > -1.8
        assert float(page.get_by_label("Start y", exact=True).input_value()) < 1
