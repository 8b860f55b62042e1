"""The report of a race in a real browser and on paper."""

import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

from accessibility import serious_problems
from gradprix.show import report
from parsed_page import HOSTILE
from test_report import GOOD, VALUES, made_up

RECORDS = {
    "plain": made_up(),
    "hostile": made_up({**VALUES, **dict.fromkeys(HOSTILE, GOOD)}, task=HOSTILE[0]),
}
LEAST_TEXT = 10.0
"""Least height of letters in figures, in pixels of the screen."""
TEXT_SIZES = """Array.from(document.querySelectorAll("figure svg text"), (text) => {
  const svg = text.ownerSVGElement;
  return parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
})"""
FORMATS = {"A4": (595, 842), "Letter": (612, 792)}
"""Width and height of paper in points."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    for name, record in RECORDS.items():
        (folder / f"{name}.html").write_text(report(record, "runs/made-up"), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in RECORDS}


@pytest.fixture
def problems() -> Iterator[list[str]]:
    """What the browser reports of a page: errors, warnings, dialogs, requests. There must be nothing."""
    reported: list[str] = []
    yield reported
    assert reported == []


def opened(browser: Browser, file: Path, problems: list[str], width: int = 1280, dark: bool = False) -> Page:
    context = browser.new_context(
        offline=True, viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url))
    page.goto(file.as_uri())
    return page


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", list(RECORDS))
def test_a_page_of_any_width_is_legible_and_does_not_scroll_sideways(
    browser: Browser, files: dict[str, Path], problems: list[str], which: str, width: int
):
    page = opened(browser, files[which], problems, width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    sizes = page.evaluate(TEXT_SIZES)
    assert len(sizes) > 50
    assert min(sizes) >= LEAST_TEXT
    wide = page.locator(".wide.scrolls")
    assert (wide.count() > 0) == (width == 390), "tables that are wider than the page scroll"
    assert all(box.get_attribute("tabindex") == "0" for box in wide.all()), "also with the keyboard"
    page.context.close()


def test_pointing_at_an_entry_highlights_it_everywhere_and_shows_its_values(
    browser: Browser, files: dict[str, Path], problems: list[str]
):
    page = opened(browser, files["plain"], problems)
    page.locator("#figure-ranking use[data-tip^=near]").first.hover(force=True)
    assert page.locator("#tip").text_content().startswith("near")
    highlighted = page.evaluate("[...new Set([...document.querySelectorAll('.on')].map((e) => e.dataset.entry))]")
    assert highlighted == ["near"]
    sections = ("ranking", "sensitivity", "curves", "budget")
    assert all(page.locator(f"#{name} .on").count() for name in sections), "in all figures"
    page.locator("h1").hover()
    assert page.locator(".on").count() == page.locator("#tip:not([hidden])").count() == 0
    button = page.locator("#ranking button[data-entry=near]")
    button.focus()
    page.keyboard.press("Enter")
    page.locator("h1").hover()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#curves .on").count() > 0, "a press of the button keeps the highlight"
    page.keyboard.press("Escape")
    assert page.locator(".on").count() == 0
    page.context.close()


@pytest.mark.parametrize("size", list(FORMATS))
def test_it_prints_completely(browser: Browser, files: dict[str, Path], problems: list[str], size: str):
    page = opened(browser, files["plain"], problems, dark=True)
    cells = page.evaluate(
        "Array.from(document.querySelectorAll('th, td, figcaption, summary + p'), (e) => e.textContent)"
    )
    pages = PdfReader(io.BytesIO(page.pdf(format=size))).pages
    assert len(pages) <= 9
    assert [round(float(end)) for end in (pages[0].mediabox.width, pages[0].mediabox.height)] == [
        pytest.approx(end, abs=1) for end in FORMATS[size]
    ]
    printed = unicodedata.normalize("NFKC", "".join("".join(each.extract_text().split()) for each in pages))
    missing = [cell for cell in cells if unicodedata.normalize("NFKC", "".join(cell.split())) not in printed]
    assert len(cells) > 150
    assert missing == []
    page.context.close()


@pytest.mark.parametrize("dark", [False, True])
def test_there_is_no_serious_accessibility_problem(
    browser: Browser, files: dict[str, Path], problems: list[str], dark: bool
):
    page = opened(browser, files["plain"], problems, 390 if dark else 1280, dark)
    assert serious_problems(page) == []
    page.context.close()
