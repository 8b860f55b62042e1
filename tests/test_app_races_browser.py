"""Pages of races in a real browser: form, list, live view, report and comparison."""

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from accessibility import serious_problems
from app_browser import faultless, served
from saved_races import save_races

PAGES = [
    "races",
    "races/digits-small",
    "races/stopped",
    "races/compare?race=digits-small&race=shorter",
    "races/nothing",
]
BRIGHT = """[...document.querySelectorAll('body *')].filter(element => {
    const box = element.getBoundingClientRect();
    const [r, g, b, a = 1] = getComputedStyle(element).backgroundColor.match(/[\\d.]+/g).map(Number);
    return box.width * box.height > 2500 && a > .5 && Math.min(r, g, b) > 150;
}).map(element => element.outerHTML.slice(0, 100))"""
"""Large elements with a bright background."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the app with saved races."""
    with served(save_races(tmp_path_factory.mktemp("runs"))) as address:
        yield address


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with faultless(browser, url) as opened:
        yield opened


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_accessible_and_fit_a_phone_in_the_dark(browser: Browser, url: str, path: str) -> None:
    for width, dark in ((390, True), (1280, False)):
        opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        opened.goto(url + path)
        opened.wait_for_load_state("networkidle")
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        assert serious_problems(opened) == []
        if dark:
            assert opened.evaluate(BRIGHT) == []
        opened.close()


def test_a_finished_race_is_its_report_and_shows_nothing_that_does_not_apply(page: Page, url: str) -> None:
    page.goto(f"{url}races/digits-small")
    expect(page.locator("h1")).to_have_text("Which optimizer for digits-small?")
    expect(page.locator("nav[aria-label=Sections] a").first).to_have_text("Ranking")
    assert page.locator("iframe").count() == 0
    for name in ("Stop", "Resume"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    width = page.locator("#figure-ranking").bounding_box()
    assert width is not None
    assert width["width"] > 900
    page.get_by_role("button", name="adam").first.hover()
    assert page.locator("#figure-curves [data-entry=adam].on").count() > 0
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the report").click()
    assert download.value.suggested_filename == "digits-small.html"


def test_races_are_sorted_selected_and_compared(page: Page, url: str) -> None:
    page.goto(f"{url}races")
    names = page.locator(".race-table tbody th a")
    page.get_by_role("button", name="Race", exact=True).click()
    assert names.all_inner_texts() == ["digits-small", "shorter", "stopped"]
    page.get_by_role("button", name="Race", exact=True).click()
    assert names.all_inner_texts() == ["stopped", "shorter", "digits-small"]
    compare = page.get_by_role("button", name="Compare the selected races")
    page.get_by_label("Compare digits-small").check()
    expect(compare).to_be_disabled()
    page.get_by_label("Compare shorter").check()
    compare.click()
    expect(page.locator("h1")).to_have_text("digits-small and shorter")
    expect(page.locator(".answer")).to_contain_text("different numbers of examples")
    settings = page.locator("table", has_text="Setting").last
    expect(settings).to_contain_text(re.compile(r"Epochs\s*5\s*3"))
    assert page.locator("#figure-compared-curves svg").count() == 2


def test_errors_in_the_form_are_said_in_words(page: Page, url: str) -> None:
    page.goto(f"{url}races")
    start = page.get_by_role("button", name="Start the race")
    page.get_by_label("Tuning trials").fill("many")
    expect(page.locator("[data-error=trials]")).to_have_text(re.compile("'many' is not a whole number from 2 to 300"))
    expect(start).to_be_disabled()
    page.get_by_label("Tuning trials").fill("4")
    expect(page.locator("#estimate")).to_contain_text("For each of 10 optimizers: 4 to tune it")
    expect(start).to_be_enabled()
    page.get_by_role("button", name="None").click()
    expect(page.locator("[data-error=names]")).to_contain_text("at least two optimizers")


def test_a_note_is_kept(page: Page, url: str) -> None:
    page.goto(f"{url}races/stopped")
    page.locator("summary", has_text="Note").click()
    page.get_by_label("Note about this race").fill("Interrupted: the machine was needed.")
    page.get_by_role("button", name="Save the note").click()
    page.goto(f"{url}races")
    expect(page.locator(".race-table")).to_contain_text("the machine was needed")


def test_a_race_is_watched_stopped_at_once_and_resumed(page: Page, url: str) -> None:
    page.goto(f"{url}races")
    page.get_by_label("Size").select_option("default")
    page.get_by_label("Tuning trials").fill("150")  # the race must not end while it is watched, on any machine
    page.get_by_role("button", name="Start the race").click()
    expect(page.locator("#phase")).to_have_text(re.compile("Starting|Checking|Preparing"))
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.locator("#curves path.line").first).to_be_visible()
    expect(page.locator("#leader")).to_contain_text("leads so far")
    expect(page.locator("#counts")).to_contain_text("training runs")
    seen, began = [], time.monotonic()
    while time.monotonic() - began < 6:
        seen.append(page.evaluate("[bar.value, ranking.textContent, curves.innerHTML].join()"))
        page.wait_for_timeout(250)
    assert len(set(seen)) > (time.monotonic() - began) / 2, f"{len(set(seen))} new numbers"

    name = page.locator("#ranking tr").first.get_attribute("data-entry")  # the ranking changes while the race runs
    page.locator(f"#ranking tr[data-entry='{name}']").hover()
    expect(page.locator(f"#curves .highlight[data-entry='{name}']").first).to_be_attached()
    expect(page.locator(f"#curves .highlight:not([data-entry='{name}'])")).to_have_count(0)

    began = time.monotonic()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#phase")).to_have_text("Stopped. Finished training runs are saved.", timeout=2_000)
    assert time.monotonic() - began < 2, "it is killed after half a second"
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.locator("#counts")).to_be_empty()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#counts")).to_contain_text("training runs")
    expect(page.get_by_role("button", name="Resume")).to_be_hidden()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


@pytest.mark.parametrize("losses", [[-1, -2, -3], [1, 0.1, 0], [0, 0, 0], [5, 5, 5], []])
def test_live_curves_draw_losses_of_any_sign(page: Page, url: str, losses: list[float]) -> None:
    page.goto(f"{url}races")
    paths = page.evaluate(
        """async losses => {
            const {draw} = await import("/static/chart.js");
            const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
            svg.setAttribute("style", "width: 600px; height: 300px");
            document.body.append(svg);
            const x = losses.map((_, i) => i);
            const line = {entry: "a", kind: "best", colour: "red", dash: "solid", x, y: losses};
            draw(svg, [line], [], {xLabel: "x", yLabel: "y", yLog: true});
            return [...svg.querySelectorAll("path.line")].map(path => path.getAttribute("d"));
        }""",
        losses,
    )
    assert len(paths) == bool(losses)
    heights = [[float(part.split()[1]) for part in re.split("[ML]", path) if part] for path in paths]
    assert all(each == sorted(each) and (losses[0] == losses[-1]) == (each[0] == each[-1]) for each in heights)
