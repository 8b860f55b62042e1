"""The app in a real browser: what a person does there, and that nothing leaves the machine meanwhile."""

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("dash", reason="the app's pages are made with dash: pip install 'gradprix[app]'")

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from gradprix.app.race_processes import Races
from gradprix.app.server import listen, make

PATIENCE = 60_000
"""Milliseconds: machines that run the tests do other things besides."""
SMALL = "?tab=race&names=momentum,adam&trials=2&seeds=6"
PATH = "document.querySelector('#stage .js-plotly-plot').data.find(trace => trace.meta === 'whole')"
AT = "document.querySelector('#stage .js-plotly-plot').data.find(trace => trace.meta === 'head')"


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    quiet = ("dev-shm-usage", "background-networking", "component-update", "sync")
    # Relief views, which slow tests look at, need WebGL; emulating it slows down every page.
    slow = request.config.getoption("--slow")
    gl = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"] if slow else ["--disable-gpu"]
    args = ["--no-sandbox", "--disable-quic", "--no-first-run", *gl, *(f"--disable-{q}" for q in quiet)]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=args)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    races = Races(tmp_path_factory.mktemp("runs"))
    server = listen(make(races), 0, "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.socket.getsockname()[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()
    races.close()


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    """A page for all tests: to load it anew takes the browser seconds."""
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    tab.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield tab
    tab.close()


@pytest.fixture
def page(tab: Page, address: str) -> Iterator[Page]:
    """The page, which must report no problem during the test."""
    problems: list[str] = []
    ours = (address, "data:", "blob:")
    listeners = {
        # What a graphics driver without a graphics card says of its own speed is no problem of the page.
        "console": lambda m: problems.append(m.text) if m.type == "error" else None,
        "pageerror": lambda error: problems.append(str(error)),
        "response": lambda r: problems.append(f"{r.status} {r.url}") if r.status >= 400 else None,
        "request": lambda r: None if r.url.startswith(ours) else problems.append(r.url),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    yield tab
    assert problems == []
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)


def go_to(page: Page, address: str) -> None:
    """Go to an address: in the page that is there, as with the browser's back button, or else by loading it."""
    if page.url.partition("?")[0] == address.partition("?")[0]:
        go = "address => { history.pushState({}, '', address); dispatchEvent(new PopStateEvent('popstate')) }"
        page.evaluate(go, address)
    else:
        page.goto(address)


def opened(page: Page, address: str, steps: int = 200) -> Page:
    """Show a race of so many steps."""
    go_to(page, f"{address}{'&' if '?' in address else '?'}steps={steps}")
    expect(page.locator("#stage .main-svg").first).to_be_attached()
    expect(page.locator("#table tbody tr").first).to_be_visible()
    page.wait_for_function(f"{PATH}.x.length === {steps + 1}")
    expect(page.locator("#readout")).to_have_text(f"step {steps} of {steps}")
    return page


def racer(page: Page, name: str) -> Locator:
    return page.locator(f"#racer-{name}")


def step(page: Page) -> int:
    said = re.search(r"step (\d+) of", page.locator("#readout").inner_text())
    assert said is not None
    return int(said[1])


def test_click_to_start_play_step_and_reload(page: Page, address: str):
    opened(page, f"{address}?who=gd,adam", 40)
    assert step(page) == 40
    box = page.locator("#stage .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 0.25 * box["height"])
    expect(page).to_have_url(re.compile("start="))
    x, y = (float(page.get_by_label(f"Start {axis}").input_value()) for axis in "xy")
    assert (x, y) == pytest.approx((1, 1.25), abs=0.05), "where the click was, as far as there are pixels"
    page.wait_for_function(f"{PATH}.x[0] === {x}")
    page.get_by_label("To the start").click()
    expect(page.locator("#readout")).to_have_text("step 0 of 40")
    page.wait_for_function(f"{AT}.x[0] === {x} && {AT}.y[0] === {y}")
    page.get_by_label("One step forward").click()
    expect(page.locator("#readout")).to_have_text("step 1 of 40")
    page.wait_for_function(f"{AT}.y[0] < {y}")
    page.get_by_label("Play or pause").click()
    expect(page.locator("#readout")).to_have_text("step 40 of 40")
    expect(page.locator("#play")).to_have_text("▶")
    page.locator("#frame [role=slider]").press("ArrowLeft")
    expect(page.locator("#readout")).to_have_text("step 39 of 40")
    expect(page).to_have_url(re.compile(r"[?&]t=39"))
    page.reload()
    expect(page.locator("#readout")).to_have_text("step 39 of 40")
    assert float(page.get_by_label("Start x").input_value()) == x
    assert not racer(page, "adagrad").get_by_role("checkbox").is_checked()


def test_playing_asks_the_server_nothing(page: Page, address: str):
    opened(page, f"{address}?who=gd,adam", 30)
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    # A browser that is slow to answer would miss the sign of playing, which is there for a second.
    page.evaluate(
        "signs = []; new MutationObserver(() => signs.push(play.textContent)).observe(play, {childList: true})"
    )
    page.locator("body").press("Home")
    page.locator("body").press(" ")
    page.wait_for_function("signs.join('').endsWith('❚❚▶')")
    expect(page.locator("#readout")).to_have_text("step 30 of 30")
    assert asked == []


@pytest.mark.slow
def test_a_setting_that_is_changed_is_seen_and_in_the_address(page: Page, address: str):
    opened(page, address)
    page.get_by_label("Condition").fill("100")
    page.get_by_label("Condition").press("Enter")
    expect(page).to_have_url(re.compile("condition=100"))
    expect(page.locator("#about")).to_contain_text("100 times")
    racer(page, "rmsprop").get_by_role("checkbox").check()
    expect(page.locator("#table")).to_contain_text("rmsprop")
    rate = racer(page, "rmsprop").get_by_label("η")
    expect(rate).to_have_attribute("placeholder", re.compile(r"tuned: \d"))
    rate.fill("1e-3")
    rate.press("Tab")
    expect(page).to_have_url(re.compile("rmsprop:lr=0.001"))
    expect(page.locator("#table")).to_contain_text("0.001 given")
    page.go_back()
    expect(page.locator("#table")).not_to_contain_text("given")
    page.locator("#surface").click()
    page.get_by_role("option", name="himmelblau").click()
    expect(page.locator("#about")).to_contain_text("Four minima")
    for view in ("3-D", "Basins of attraction"):
        page.get_by_label(view, exact=True).check()
        expect(page).to_have_url(re.compile("view="))
    page.wait_for_function("document.querySelector('#stage .js-plotly-plot').data.some(t => /^to /.test(t.name))")


@pytest.mark.slow
def test_a_race_plays_in_three_dimensions(page: Page, address: str):
    opened(page, f"{address}?surface=saddle&view=relief&who=gd,adam", 20)
    expect(page.locator("#stage .gl-container")).to_be_attached()
    page.get_by_label("To the start").click()
    page.wait_for_function(f"{AT}.z.length === 2 && {AT}.x[0] === -1.5")


def test_a_preset_is_a_link_with_a_word_on_it(page: Page, address: str):
    opened(page, address)
    page.get_by_role("link", name="Just above 2/λ").click()
    expect(page).to_have_url(re.compile("surface=bowl.*gd:lr=2.05"))
    expect(page.locator("#comment")).to_contain_text("diverges")


def test_one_step_at_a_time(page: Page, address: str):
    opened(page, f"{address}?who=gd,adam&of=adam", 25)
    page.get_by_text("Step", exact=True).click()
    expect(page.locator("#equations")).to_contain_text("m ← β₁ m + (1 − β₁) g")
    expect(page.locator("#step-readout")).to_contain_text("step 1 of 25")
    page.get_by_role("button", name="next").click()
    expect(page.locator("#step-readout")).to_contain_text("step 2 of 25")
    page.locator("body").press("ArrowRight")
    expect(page.locator("#step-readout")).to_contain_text("step 3 of 25")
    expect(page).to_have_url(re.compile("tab=step.*step=3"))
    page.get_by_role("button", name="previous").click()
    expect(page.locator("#step-readout")).to_contain_text("step 2 of 25")
    page.reload()
    expect(page.locator("#step-readout")).to_contain_text("step 2 of 25")
    expect(page.locator("#equations")).to_contain_text("v̂")


def test_what_is_seen_can_be_kept(page: Page, address: str, tmp_path: Path):
    opened(page, f"{address}?who=gd,adam", 10)
    for form, begins in (("CSV", b"step,optimizer"), ("HTML", b"<!doctype html>")):
        with page.expect_download() as waited:
            page.get_by_title(f"Surface as {form}").click()
        kept = tmp_path / waited.value.suggested_filename
        waited.value.save_as(kept)
        assert kept.read_bytes().startswith(begins)


@pytest.mark.slow
def test_light_and_dark(page: Page, address: str):
    opened(page, address)
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == "rgb(20, 24, 28)"
    page.locator("#theme").click()  # from the system's to light
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="light")
    page.locator("#theme").click()
    assert page.evaluate(ground) == "rgb(20, 24, 28)"
    page.reload()
    assert page.evaluate(ground) == "rgb(20, 24, 28)"
    page.locator("#theme").click()  # to the system's again


def test_the_keyboard_reaches_everything_and_everything_has_a_name(page: Page, address: str):
    opened(page, address)
    nameless = """[...document.querySelectorAll('button, input, a, [role=slider], [role=combobox]')].filter(e =>
        e.offsetParent && !e.closest('.modebar') && !(e.labels && e.labels.length) && !e.closest('label')
        && !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.title || e.textContent.trim()))
        .map(e => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    page.locator("button").first.focus()
    seen = set()
    stops = page.locator("button:visible, input:visible, a:visible, [tabindex='0']:visible").count()
    for _ in range(stops):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("(e => e.id || e.closest('[id]')?.id || '')(document.activeElement)"))
    assert {"surface", "noise", "start-x", "play", "copy", "theme"} <= seen


def test_a_small_race_is_watched_to_its_end(page: Page, address: str):
    go_to(page, address + SMALL)
    page.get_by_role("button", name="Start the race").click()
    expect(page).to_have_url(re.compile("race=digits"))
    expect(page.locator("progress")).to_be_visible()
    expect(page.locator("#watched .first")).to_contain_text("digits-small", timeout=3 * PATIENCE)
    expect(page.frame_locator("iframe.report").locator("h1")).to_contain_text("digits")
    assert page.locator("#watched progress").count() == 0
    page.reload()
    expect(page.locator("#watched .first")).to_contain_text("digits-small")
    expect(page.locator("#kept a")).to_have_text("digits-small")
    go_to(page, f"{address}?tab=race&race=../../etc")
    expect(page.locator("#watched")).to_contain_text("There is no race")


def test_claims(page: Page, address: str):
    go_to(page, f"{address}?tab=claims")
    expect(page.locator(".for-claims")).to_contain_text("gradprix claims")
