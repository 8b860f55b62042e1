"""Pages of the app in a real browser: header, theme and layout, which all pages share."""

import pytest

from app_browser import faultless
from gradprix.app.templating import PAGES

PATHS = ["" if key == "landscape" else key for key in PAGES]


@pytest.mark.parametrize("path", PATHS)
def test_a_page_has_its_title_and_does_not_scroll_sideways(browser, app_url, path):
    for width in (1280, 390):
        with faultless(browser, app_url, width) as page:
            page.goto(app_url + path)
            assert page.locator("header a[aria-current]").inner_text() == PAGES[path or "landscape"]
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_theme_is_light_dark_or_that_of_the_system_and_kept(browser, app_url):
    with faultless(browser, app_url, dark=True) as page:
        page.goto(app_url)
        background = "getComputedStyle(document.body).backgroundColor"
        for theme, colour in (("system", "20, 24, 28"), ("light", "255, 255, 255"), ("dark", "20, 24, 28")):
            assert page.locator("#theme").inner_text() == f"Theme: {theme}"
            assert page.evaluate(background) == f"rgb({colour})"
            page.reload()
            assert page.evaluate(background) == f"rgb({colour})"
            page.locator("#theme").click()
        assert page.locator("#theme").inner_text() == "Theme: system"
