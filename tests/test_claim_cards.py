"""Claims as cards: their data, the words of the terminal, and the page with its filters in a browser."""

import re

import pytest
from markupsafe import escape
from playwright.sync_api import expect

from accessibility import serious_problems
from app_browser import faultless
from gradprix import claims
from gradprix.claims.cards import CARDS, SIGNS, bare_verdict, make_cards
from gradprix.cli import _claims
from gradprix.race import ENTRIES
from gradprix.show.claim_cards import claim_cards
from parsed_page import ParsedPage

RECORDS = {record["id"]: record for record in claims.load_results()["claims"]}
SHOWN = make_cards(list(RECORDS.values()))


def test_every_claim_has_a_card_and_a_figure_of_its_own_numbers():
    assert set(CARDS) == set(claims.ALL) == {card.id for card in SHOWN}
    for card in SHOWN:
        measured = [(each["effect"], *each["ci95"]) for each in RECORDS[card.id]["measured"]]
        assert len(card.rows) == len(CARDS[card.id]["rows"]) > 0, card.id
        assert all((row.effect, *row.ci95) in measured for row in card.rows), card.id
        assert set(card.optimizers) <= set(ENTRIES), card.id
        assert len(card.title) <= 60, card.id
        assert not card.is_log or min(row.ci95[0] for row in card.rows) > 0, card.id


def test_titles_are_unique_and_similar_claims_stand_together():
    assert len({card.title for card in SHOWN}) == len(SHOWN)
    topics = [card.topic for card in SHOWN]
    assert len([a for a, b in zip(topics, [None, *topics], strict=False) if a != b]) == len(set(topics))
    for card in SHOWN:
        pair = next((other for other in SHOWN if other.id in (f"{card.id}-on-a-network", f"{card.id}-on-digits")), card)
        assert pair.topic == card.topic


@pytest.mark.parametrize("card", SHOWN, ids=lambda card: card.id)
def test_a_card_has_the_verdict_of_the_terminal(card):
    assert str(_claims.verdict(card.record)) == f"{card.sign} {card.verdict} {card.condition}".rstrip()
    assert bare_verdict(card.record["verdict"]) == card.verdict
    assert SIGNS[card.verdict] == card.sign


def test_the_fragment_has_all_claims_with_their_numbers_and_well_formed_markup():
    assert sum(tag == "article" for tag, *_ in ParsedPage(claim_cards()).elements) == len(SHOWN)
    for card in SHOWN:
        for text in (card.title, card.axis, card.record["says"], card.record["decides"]):
            assert escape(text) in claim_cards()
    assert len(re.findall(r"<svg", claim_cards())) == len(SHOWN)


FILTERS = [
    ("input[value='does not hold']", None, lambda card: card.verdict == "does not hold"),
    ("[name=optimizer]", "adagrad", lambda card: "adagrad" in card.optimizers),
    ("[name=kind]", "network", lambda card: card.kind == "network"),
    ("[name=q]", "bias correction", lambda card: card.topic == "Bias correction"),
]


@pytest.mark.parametrize("width", [390, 1280])
def test_filters_select_cards_and_are_in_the_url(browser, app_url, width):
    with faultless(browser, app_url, width) as page:
        page.goto(f"{app_url}claims")
        visible = "[...document.querySelectorAll('.claim')].filter((c) => c.offsetParent).map((c) => c.id)"
        assert len(page.evaluate(visible)) == len(SHOWN)
        for control, value, is_shown in FILTERS:
            element = page.locator(f"#claim-filters {control}")
            if value is None:
                element.check()
            elif control == "[name=q]":
                element.fill(value)
            else:
                element.select_option(value)
            expected = {f"claim-{card.id}" for card in SHOWN if is_shown(card)}
            found = set(page.evaluate(visible))
            assert found >= expected if control == "[name=q]" else found == expected
            assert len(found) < len(SHOWN)
            page.reload()
            assert set(page.evaluate(visible)) == found, "the URL holds the filters"
            page.locator("#claim-filters button").click()
            expect(page.locator("#claim-count")).to_have_text(f"{len(SHOWN)} claims")
            expect(page).to_have_url(f"{app_url}claims")
        page.goto(f"{app_url}claims?verdict=holds&optimizer=adamax")
        expect(page.locator("#claim-count")).to_have_text(re.compile("No claim matches"))


def test_the_page_is_accessible_and_cards_are_wide_enough_to_read(browser, app_url):
    for width, dark in ((390, False), (1280, True)):
        with faultless(browser, app_url, width, dark) as page:
            page.goto(f"{app_url}claims")
            assert serious_problems(page) == []
            widths = page.evaluate("[...document.querySelectorAll('.claim')].map((c) => c.offsetWidth)")
            assert min(widths) >= 300
            page.locator("details summary").first.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_printed_cards_are_not_cut_off(browser, app_url):
    with faultless(browser, app_url) as page:
        page.goto(f"{app_url}claims")
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins
        assert page.evaluate("document.documentElement.scrollWidth") <= 718
        assert not page.locator("#claim-filters").is_visible()
