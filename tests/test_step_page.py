"""The page "Step" in a browser: its numbers, equations and arrows are those of Python's traces."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("flask", reason="the app is served by Flask: pip install 'gradprix[app]'")

from playwright.sync_api import Browser, Page, expect

from accessibility import serious_problems
from app_browser import faultless
from gradprix.app.race_processes import Races
from gradprix.app.racers import RACERS
from gradprix.app.server import make
from gradprix.explain import LANDSCAPES, classify_state, equations, number, step
from gradprix.kernels import init_state

STEPS, T = 12, 7
START = (-1.2, 1.0)


def rate(name: str) -> float:
    """Return a learning rate at which no optimizer diverges."""
    return RACERS[name].default_rate / 1000


WHO = ",".join(f"{name}:lr={rate(name)}" for name in RACERS)


@pytest.fixture(scope="module")
def tab(browser: Browser, app_url: str) -> Iterator[Page]:
    with faultless(browser, app_url) as page:
        yield page


def show(page: Page, url: str) -> Page:
    page.goto(url)
    return settle(page)


def settle(page: Page) -> Page:
    """Wait until figures and equations are up to date."""
    page.locator("html[data-ready=true]").wait_for(state="attached")
    return page


def steps_of(name: str, t: int, moved: Any = None, lr: float | None = None) -> dict[str, Any]:
    """Return step `t` of an optimizer on the Rosenbrock function as Python computes it, with its equations.

    Args:
        name: the optimizer.
        t: number of the step.
        moved: point from which the last step is taken instead.
        lr: learning rate; that in `WHO` if None.
    """
    rule, values = RACERS[name].rule, RACERS[name].values(lr=lr or rate(name))
    after, state = torch.tensor(START, dtype=torch.float64), {}
    for k in range(1, t + 1):
        x = after if k < t or moved is None else torch.tensor(moved, dtype=torch.float64)
        g = LANDSCAPES["rosenbrock"]().gradient(x)[1]
        specs = rule.active_state(values)
        before = dict(state) if k > 1 else {key: init_state(spec, values, x, g) for key, spec in specs.items()}
        after = step(rule, values, k, x, g, state)["x"]
    found = equations(rule, values, t, x, g, before)
    return {"x": x, "g": g, "after": after, "state": state, "equations": found, "values": values}


def table(page: Page) -> dict[str, list[str]]:
    """Return the cells of the table of numbers by the label of their row."""
    rows = page.locator("#step-numbers tbody tr").evaluate_all(
        "rows => rows.map(row => [row.cells[0].textContent, row.cells[1].textContent, row.cells[2].textContent])"
    )
    return {label: cells for label, *cells in rows}


def close(cells: list[str], values: Any) -> bool:
    """Return True if cells show some numbers, to four digits."""
    shown = [float(cell.replace("−", "-").replace("∞", "inf").replace("–", "nan")) for cell in cells]
    return shown == pytest.approx([float(value) for value in values], rel=1e-3, abs=1e-12, nan_ok=True)


def read_equations(page: Page) -> list[list[str]]:
    return page.locator("#equations li").evaluate_all(
        "items => items.map(item => [...item.children].map(each => each.textContent.trim()))"
    )


def written(found: Any) -> list[list[str]]:
    """Return equations as the page shows them."""
    axes = {1: ("",), 2: ("x: ", "y: ")}
    return [
        [each.sentence, each.formula, *map("".join, zip(axes[len(each.numbers)], each.numbers, strict=True))]
        for each in found
    ]


@pytest.mark.parametrize("name", RACERS)
def test_a_step_of_every_optimizer_is_that_of_python(tab: Page, app_url: str, name: str) -> None:
    url = f"{app_url}step?surface=rosenbrock&steps={STEPS}&step={T}&who={WHO}"
    if not tab.url.startswith(f"{app_url}step?"):
        show(tab, url)
    tab.locator("#of").select_option(name)
    expect(tab.locator("#step-title")).to_contain_text(f"Step {T} of {name},")
    settle(tab)
    expected, rows = steps_of(name, T), table(tab)
    assert read_equations(tab) == written(expected["equations"])
    assert close(rows["point before the step"], expected["x"])
    assert close(rows["update, to scale"], expected["after"] - expected["x"])
    assert close(rows["−g, steepest descent"], -expected["g"])

    kinds = classify_state(RACERS[name].rule, tuple(expected["values"].items()))
    drawn = tab.locator("#step-stage [data-quantity]").count()
    assert drawn == 2 + sum(kind == "mean" or power != 0 for kind, power in kinds.values())
    for key, (kind, power) in kinds.items():
        state = expected["state"][key]
        labels = [label for label in rows if re.search(r"accumulated gradients|direction only|squares", label)]
        if kind == "mean":
            assert any(close(rows[label], -state) for label in labels), key
        elif power:
            assert any(close(rows[label], state.abs() ** (1 / power)) for label in labels), key


def test_the_square_is_as_large_as_the_root_of_the_second_moment(tab: Page, app_url: str) -> None:
    """After one step of AdaGrad the root of the sum of squares is the size of the gradient, on the same scale."""
    show(tab, f"{app_url}step?surface=rosenbrock&who=adagrad:lr=0.1")
    side = float(tab.locator("[data-quantity='√s'] rect").first.get_attribute("width") or "nan")
    line = tab.locator("[data-quantity='−g'] polygon").get_attribute("points") or ""
    tip = [float(value) for value in line.split()[0].split(",")]
    handle = tab.locator("#step-stage .start")
    centre = [float(handle.evaluate(f"each => parseFloat(each.style.{edge})")) for edge in ("left", "top")]
    assert side == pytest.approx(abs(tip[0] - centre[0]), abs=0.2)


def drag(page: Page, dx: float, dy: float) -> None:
    """Drag the point by some pixels."""
    box = page.locator("#step-stage .start").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx / 2, y + dy / 2)
    page.mouse.move(x + dx, y + dy)
    page.mouse.up()


def test_dragging_the_first_point_moves_the_start(tab: Page, app_url: str) -> None:
    show(tab, f"{app_url}step?surface=rosenbrock&zoom=whole&who=adam:lr=0.1")
    drag(tab, 60, 40)
    expect(tab).to_have_url(re.compile("start="))
    settle(tab)
    x, y = (float(value) for value in re.findall(r"start=([-\d.]+),([-\d.]+)", tab.url)[0])
    assert x > START[0] + 0.1
    assert y < START[1] - 0.1
    assert close(table(tab)["point before the step"], (x, y))


@pytest.mark.parametrize("by", ["pointer", "keys"])
def test_a_later_step_from_another_point_keeps_the_state(tab: Page, app_url: str, by: str) -> None:
    show(tab, f"{app_url}step?surface=rosenbrock&step=5&who=adam:lr=0.1")
    expect(tab.locator("#back")).to_be_hidden()
    if by == "pointer":
        drag(tab, 30, -50)
    else:
        tab.locator("#step-stage .start").press("Shift+ArrowUp")
    expect(tab.locator("#back")).to_be_visible()
    expect(tab).to_have_url(re.compile("at="))
    settle(tab)
    moved = [float(value) for value in re.findall(r"at=([-\d.e]+),([-\d.e]+)", tab.url)[0]]
    expected = steps_of("adam", 5, moved, lr=0.1)
    assert expected["x"][1] > steps_of("adam", 5, lr=0.1)["x"][1]
    assert read_equations(tab) == written(expected["equations"])
    assert close(table(tab)["update, to scale"], expected["after"] - expected["x"])

    show(tab, tab.url)  # the address has it all
    assert read_equations(tab) == written(expected["equations"])
    tab.locator("#back").click()
    settle(tab)
    assert read_equations(tab) == written(steps_of("adam", 5, lr=0.1)["equations"])


def test_buttons_and_keys_step_forward_and_back(tab: Page, app_url: str) -> None:
    show(tab, f"{app_url}step?surface=rosenbrock&steps={STEPS}&who=adam:lr=0.1")
    title = tab.locator("#step-title")
    forward, back, first, last = "One step forward", "One step back", "To step 1", "To the last step"
    for press, t in ((forward, 2), (forward, 3), (back, 2), (last, STEPS), (forward, STEPS), (first, 1), (back, 1)):
        tab.get_by_role("button", name=press).click()
        expect(title).to_contain_text(f"Step {t} of")
    tab.locator("h2#equations-title").click()
    tab.keyboard.press("ArrowRight")
    expect(title).to_contain_text("Step 2 of")
    settle(tab)
    assert read_equations(tab) == written(steps_of("adam", 2, lr=0.1)["equations"])


def test_equations_of_an_earlier_step_are_marked_and_replaced(tab: Page, app_url: str) -> None:
    """Of several steps that are asked for while the server is busy, only the last is requested."""
    show(tab, f"{app_url}step?surface=rosenbrock&who=adam:lr=0.1")
    held: list[Any] = []
    tab.route("**/step/equations*", lambda route: held.append(route))
    for _ in range(4):
        tab.get_by_role("button", name="One step forward").click()
        expect(tab.locator("#equations")).to_have_attribute("aria-busy", "true")
    assert len(held) == 1
    held[0].continue_()
    tab.wait_for_function("() => document.querySelector('#equations').textContent.includes('0.9²')")
    assert tab.locator("#equations").get_attribute("aria-busy") == "true"
    held[1].continue_()
    tab.unroute("**/step/equations*")
    settle(tab)
    assert read_equations(tab) == written(steps_of("adam", 5, lr=0.1)["equations"])
    assert len(held) == 2


def test_a_slider_redraws_the_step(tab: Page, app_url: str) -> None:
    show(tab, f"{app_url}step?surface=rosenbrock&who=adam:lr=0.1")
    slider = tab.locator("input[type=range][aria-label='Learning rate of adam, slider']")
    slider.evaluate("each => { each.value = Number(each.value) - 100; each.dispatchEvent(new Event('input')); }")
    expect(tab.locator("#step-title")).not_to_contain_text("learning rate 0.1")
    settle(tab)
    lr = float((tab.locator("#step-title").text_content() or "").split()[-1])
    assert close(table(tab)["update, to scale"], steps_of("adam", 1, lr=lr)["after"] - torch.tensor(START))


def test_a_descent_that_diverges_has_numbers_but_no_arrows(tab: Page, app_url: str) -> None:
    show(tab, f"{app_url}step?surface=bowl&who=gd:lr=2.5&step=150")
    expect(tab.locator("#step-note")).to_contain_text("diverges")
    assert tab.locator("[data-quantity]").count() == 0
    x, g = (-2.0 * (-1.5) ** 149, 1.2 * (-1.5) ** 149), (2.0 * (-1.5) ** 149, -1.2 * (-1.5) ** 149)
    assert close(table(tab)["point before the step"], x)
    assert close(table(tab)["−g, steepest descent"], g)
    assert number(x[0]) in read_equations(tab)[0][2]


@pytest.mark.parametrize("form", ["png", "svg", "csv"])
def test_a_step_is_exported_with_its_settings(tab: Page, app_url: str, form: str, tmp_path: Path) -> None:
    show(tab, f"{app_url}step?surface=rosenbrock&step=3&steps={STEPS}&who=adam:lr=0.1")
    tab.locator(".save summary").click()
    with tab.expect_download() as download:
        tab.locator(f"[data-save={form}]").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    if form == "csv":
        head, *rows = path.read_text().splitlines()
        assert head == "step,x,y,gradient_x,gradient_y,update_x,update_y,m_x,m_y,v_x,v_y"
        assert len(rows) == STEPS
        expected = steps_of("adam", 3, lr=0.1)
        numbers = [*expected["x"], *expected["g"], *(expected["after"] - expected["x"]), *expected["state"]["m"]]
        assert [float(value) for value in rows[2].split(",")[1:9]] == pytest.approx([float(each) for each in numbers])
    elif form == "svg":
        text = path.read_text()
        assert "Step 3 of adam, learning rate 0.1" in text
        assert "Surface Rosenbrock" in text
    else:
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_nothing_is_wider_than_the_window_and_all_is_accessible(
    browser: Browser, app_url: str, width: int, dark: bool
) -> None:
    with faultless(browser, app_url, width, dark) as page:
        show(page, f"{app_url}step?surface=rosenbrock&step=9&who=nadam:lr=0.1,adam:lr=0.1")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for part in ("#step-stage", "#step-numbers table", "#equations"):
            box = page.locator(part).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        assert serious_problems(page) == []


def test_problems_of_an_address_are_told(tab: Page, app_url: str) -> None:
    show(tab, f"{app_url}step?surface=rosenbrock&steps=50&step=99&who=adam:lr=0.1")
    expect(tab.locator("#problems")).to_contain_text("Step: 1 to 50")
    expect(tab.locator("#step-title")).to_contain_text("Step 1 of")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"of": "moon"}, "moon"),
        ({"x": "1"}, "two coordinates"),
        ({"x": "1,b"}, "could not convert"),
        ({"t": "1.5"}, "invalid literal"),
        ({"state": "1,2"}, "state of adam has 4 numbers, not 2"),
        ({"h": "beta1:2"}, "beta1"),
        ({"h": "depth:2"}, "depth"),
        ({"g": None}, "g"),
    ],
)
def test_a_query_that_is_not_understood_is_answered_in_words(
    tmp_path: Path, changed: dict[str, str | None], reason: str
) -> None:
    client = make(Races(tmp_path)).test_client()
    usual = {"of": "adam", "h": "lr:0.1", "t": "1", "x": "1,2", "g": "3,4", "state": "0,0,0,0"}
    assert client.get("/step/equations", query_string=usual).status_code == 200
    query = {key: value for key, value in {**usual, **changed}.items() if value is not None}
    response = client.get("/step/equations", query_string=query)
    assert response.status_code == 400
    assert reason in response.text


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "gd": {},
        "momentum": {"b": ("mean", 1)},
        "adagrad": {"s": ("size", 2)},
        "adadelta": {"v": ("size", 2), "u": ("size", 0)},
        "adam": {"m": ("mean", 1), "v": ("size", 2)},
        "adamax": {"m": ("mean", 1), "u": ("size", 1)},
        "amsgrad": {"m": ("mean", 1), "v": ("size", 2), "v_max": ("size", 2)},
        "adopt": {"m": ("mean", 0), "v": ("size", 2)},
    }.items(),
)
def test_the_kind_of_a_state_variable_is_found_by_running_the_rule(name, expected):
    entry = RACERS[name]
    assert classify_state(entry.rule, tuple(entry.values(0.1).items())) == expected
