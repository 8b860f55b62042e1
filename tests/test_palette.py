"""Colours of optimizers: contrast on light and dark pages, and differences that color-blind readers see."""

from itertools import combinations

import numpy as np
import pytest

from gradprix.race import BRACKETS, ENTRIES
from gradprix.rules import ALL
from gradprix.show.palette import COLOURS, colour, contrast, style, styles

# Simulation of complete color blindness on linear RGB: Machado, Oliveira & Fernandes 2009, doi:10.1109/TVCG.2009.113.
VISION = {
    "all colors": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
# Oklab: Björn Ottosson 2020, https://bottosson.github.io/posts/oklab. Distances are in hundredths of its lightness.
TO_LMS = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
TO_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]
LEAST_DISTANCE = {"all colors": 7.0, "deuteranopia": 5.0, "protanopia": 5.0}
COMPOSED = ["ema(adamw)", "clipped(adam, norm=1)", "sam(momentum, rho=0.1)", "schedule_free(lion)", "my adam"]
UNKNOWN = ["mine", "myopt", "other", "Ünïcode", "", "<b>x</b>"]


def oklab(name: str, vision: str) -> np.ndarray:
    rgb = np.array([int(colour(name)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 100 * np.array(TO_LAB) @ np.cbrt(np.array(TO_LMS) @ np.clip(np.array(VISION[vision]) @ linear, 0, 1))


@pytest.mark.parametrize("background", ["#ffffff", "#14181c"])
@pytest.mark.parametrize("name", [*ENTRIES, *ALL, *COMPOSED, *UNKNOWN])
def test_colours_are_legible_on_light_and_dark_pages(name: str, background: str):
    assert contrast(colour(name), background) >= 3


@pytest.mark.parametrize("vision", list(VISION))
def test_color_blind_readers_see_differences_among_the_classics(vision: str):
    pairs = combinations(BRACKETS["rules"], 2)
    distances = {pair: np.linalg.norm(oklab(pair[0], vision) - oklab(pair[1], vision)) for pair in pairs}
    closest = min(distances, key=distances.__getitem__)
    assert distances[closest] >= LEAST_DISTANCE[vision], closest


def test_all_optimizers_have_a_colour_and_a_style_of_their_own():
    assert {*ENTRIES, *ALL} <= {*COLOURS}
    assert len({*COLOURS.values()}) == len(COLOURS)
    for one, other in combinations(COLOURS, 2):
        a, b = style(one), style(other)
        is_close = np.linalg.norm(oklab(one, "deuteranopia") - oklab(other, "deuteranopia")) < 2
        assert not is_close or (a.dash, a.marker) != (b.dash, b.marker), (one, other)


def test_modified_optimizers_resemble_their_base():
    for name, base in zip(COMPOSED, ["adamw", "adam", "momentum", "lion", "adam"], strict=True):
        distance = np.linalg.norm(oklab(name, "all colors") - oklab(base, "all colors"))
        others = [np.linalg.norm(oklab(name, "all colors") - oklab(each, "all colors")) for each in ("lion", "rmsprop")]
        assert 0 < distance < 18, name
        assert base == "lion" or distance < min(others), name


def test_names_of_users_get_different_styles_in_a_race():
    names = [f"entry {i}" for i in range(40)]
    assert len({*styles(names).values()}) == len(names)
    assert colour("AdamW") == colour("adamw")
    assert colour("mine") == colour("mine")
