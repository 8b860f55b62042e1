"""Pages beside the report of a race, in a real browser: a suite, an explained optimizer, and a diagnosed race."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from accessibility import serious_problems
from gradprix.explain import resolve_optimizer
from gradprix.race.diagnosis_record import MeasurementKind, Trait
from gradprix.race.evidence import load_evidence
from gradprix.show import explanation, report
from gradprix.show._suite import suite_page
from test_diagnosis_section import CELLS, contrast, diagnosed
from test_report_browser import LEAST_TEXT, TEXT_SIZES, opened

PAGES: dict[str, Callable[[], str]] = {
    "suite": lambda: suite_page(load_evidence()),
    "explanation": lambda: explanation.page(explanation.explained(resolve_optimizer("nadam"), {})),
    "diagnosis": lambda: report(
        diagnosed(
            *dict.fromkeys(measurement for measurement, _ in CELLS.values()),
            families=(contrast(Trait.MOMENTUM, MeasurementKind.STABILITY, 0.1),),
        )
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_phone_desk_and_paper(browser: Browser, tmp_path: Path, name: str) -> None:
    file, problems = tmp_path / f"{name}.html", list[str]()
    file.write_text(PAGES[name](), encoding="utf-8")
    page = opened(browser, file, problems, 390, dark=True)

    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
        assert min(page.evaluate(TEXT_SIZES)) >= LEAST_TEXT
        assert serious_problems(page) == []
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 970})  # A4 without margins
    assert page.evaluate("document.documentElement.scrollWidth") == 688, "the paper cuts something off"
    assert problems == []
    page.context.close()
