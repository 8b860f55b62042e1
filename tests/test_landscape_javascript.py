"""The JavaScript of rules and surfaces against their Python, in a browser: the same points, losses, learning rates."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("flask", reason="the app is served by Flask: pip install 'gradprix[app]'")

from playwright.sync_api import Browser

from app_browser import faultless
from gradprix.app.racers import RACERS, SURFACES, adjustable, parameters
from gradprix.explain import descend, draw_noise, step, tuned
from gradprix.explain.gradient_noise import philox
from gradprix.kernels import compute_evaluation_point
from gradprix.rules import (
    ALL,
    Rule,
    adam,
    adamw,
    cautious,
    cautious_decay,
    clipped,
    decoupled,
    ema,
    lamb,
    lookahead,
    mars,
    muon,
    nesterov,
    schedule_free,
    sgd,
    soap,
    variant,
)
from gradprix.rules.javascript import HELPERS, step_functions

STEPS, TUNING_STEPS, SEED = 60, 40, 3
TOLERANCE = 1e-12
"""Of coordinates, relative to the width of the box, or to the coordinate where it is larger; of losses, relative to the
loss, or to the one at the start where that is larger."""
FACTORS = (0.1, 1.0, 10.0)
"""Learning rates, relative to the default one."""
PLACES: dict[str, dict[str, float]] = {
    **{name: {} for name in SURFACES},
    "bowl": {"curvature": 3.0},
    "ravine": {"condition": 200.0, "angle": 30.0},
}
CHAOTIC = {
    ("rosenbrock", "adabelief"): "divides by the running mean of (g − m)², where g and m agree in most digits",
}
"""Descents, as pairs of surface and optimizer, in which rounding errors grow, with the reason. Their single steps are
compared in `test_every_step_equals_that_of_python`."""
NOISE = {"noisy": 0.5, "ravine": 2.0, "digits-path": 0.1}
HARNESS = """
const [descent, { RULES }, { SURFACES }, noise] = await Promise.all(
  ["descent", "rules", "surfaces", "gradient_noise"].map((name) => import(`/static/landscape/${name}.js`)));
const place = ({ surface, parameters, noise = 0, seed = 0 }) =>
  ({ surface: SURFACES[surface], parameters, noise, seed });
const racer = ([name, given]) => ({ rule: RULES[name], h: descent.hyperparameters(RULES[name], given) });
"""

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(browser: Browser, app_url: str) -> Iterator[Run]:
    """Function that runs JavaScript in the browser, with the modules of the landscape and an argument `given`."""
    with faultless(browser, app_url) as page:
        page.goto(f"{app_url}step")  # a page of the server, from which its modules can be imported

        def evaluate(body: str, given: Any = None) -> Any:
            return page.evaluate(f"async (given) => {{ {HARNESS} {body} }}", given)

        yield evaluate


def hyperparameters(name: str, variant: str) -> dict[str, float]:
    """Return hyperparameters that differ from the defaults: none, or all that have sliders."""
    return {} if variant == "default" else {key: 0.5 * value for key, value in adjustable(RACERS[name]).items()}


def flatten(state: dict[str, Any]) -> list[float]:
    """Return the numbers of a state in the order of `state_layout`; state that only matrices have is None."""
    parts = [torch.as_tensor(value, dtype=torch.float64) for value in state.values() if value is not None]
    return [float(each) for part in parts for each in part.flatten()]


def relative(ours: Any, theirs: Any, scale: Any) -> float:
    """Return the largest difference; equal infinite values and two NaN count as equal."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    with np.errstate(all="ignore"):
        off = np.abs(ours - theirs) / np.maximum(scale, np.abs(theirs))
    off = np.where((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), 0.0, off)
    return float(np.nan_to_num(off, nan=np.inf).max())


def compare_steps(run: Run, rules: str, cases: dict[str, tuple[Rule, dict[str, Any]]]) -> dict[str, float]:
    """Compare single steps, from the point, gradient and state of the Python, so that errors cannot accumulate.

    Args:
        run: function that runs JavaScript.
        rules: JavaScript expression of an object with the functions of each rule.
        cases: rule and hyperparameters by name.

    Returns:
        The largest difference of points, states and evaluation points, by name.
    """
    given, expected = [], {}
    for name, (rule, values) in cases.items():
        rng = torch.Generator().manual_seed(0)
        x, state, before, after = torch.tensor([-1.2, 1.0], dtype=torch.float64), {}, [], []
        for t in range(1, STEPS + 1):
            g = torch.randn(2, generator=rng, dtype=torch.float64) * (100.0 if t % 7 == 0 else 1.0)
            g = g * (t % 5 > 0)  # also a gradient of zero
            before.append([x.tolist(), g.tolist(), flatten(state)])
            x = step(rule, values, t, x, g, state)["x"]
            point = compute_evaluation_point(rule, values, t, x, state)
            after.append([*x.tolist(), *flatten(state), *point.tolist()])
        given.append([name, {key: value for key, value in values.items() if not isinstance(value, bool)}, before])
        expected[name] = np.array(after)
    results = run(
        f"const rules = {rules};"
        """
        return given.map(([name, h, steps]) => {
          const rule = rules[name];
          return steps.map(([x, g, before], i) => {
            const state = i ? Float64Array.from(before) : rule.init(h, x, g), point = Float64Array.from(x);
            rule.step(h, i + 1, point, g, state);
            return [...point, ...state, ...(rule.evaluate ? rule.evaluate(h, i + 1, point, state) : point)];
          });
        });
        """,
        given,
    )
    return {name: relative(r, expected[name], 1e-6) for (name, *_), r in zip(given, results, strict=True)}


@pytest.mark.parametrize("variant", ["default", "halved"])
def test_every_step_equals_that_of_python(run: Run, variant: str) -> None:
    cases = {
        name: (entry.rule, entry.values(**{"lr": entry.default_rate, **hyperparameters(name, variant)}))
        for name, entry in RACERS.items()
    }
    off = compare_steps(run, "RULES", cases)
    assert {name: value for name, value in off.items() if not value < TOLERANCE} == {}


def test_steps_of_other_and_of_modified_rules_equal_those_of_python(run: Run) -> None:
    others = [rule for name, rule in ALL.items() if rule not in [entry.rule for entry in RACERS.values()]]
    composed = [
        *(modify(adamw) for modify in (cautious, cautious_decay, clipped, mars, lookahead, ema, schedule_free)),
        *(nesterov(adam), decoupled(sgd), ema(cautious(sgd)), lookahead(clipped(lamb)), schedule_free(clipped(sgd))),
        variant(adam, denominator="sqrt(v_hat + eps)"),
    ]
    cases, source = {}, []
    for rule in [*others, *composed]:
        values = rule.values(**({"weight_decay": 0.01} if "weight_decay" in rule.hyperparameters else {}))
        if rule in (muon, soap):
            with pytest.raises(ValueError, match="updates matrices"):
                step_functions(rule, values)
            continue
        functions = ", ".join(f"{key}: {body}" for key, body in step_functions(rule, values).items())
        cases[rule.name] = rule, values
        source.append(f"{json.dumps(rule.name)}: {{ {functions} }}")
    off = compare_steps(run, f"(() => {{ {HELPERS} return {{ {', '.join(source)} }}; }})()", cases)
    assert off.keys() == cases.keys()
    assert len(cases) >= len(composed) + 3  # besides those that the landscapes race
    assert {name: value for name, value in off.items() if not value < TOLERANCE} == {}


@pytest.mark.parametrize("surface", SURFACES)
def test_values_and_gradients_equal_those_of_python(run: Run, surface: str) -> None:
    """Points are also taken outside the box; the gradients of the formulas equal those of autograd."""
    landscape = SURFACES[surface](**PLACES[surface])
    box, rng = torch.tensor(landscape.box), torch.Generator().manual_seed(0)
    unit = 2 * torch.rand(200, 2, generator=rng, dtype=torch.float64) - 0.5
    points = box[:, 0] + unit * (box[:, 1] - box[:, 0])
    value, gradient = landscape.gradient(points)
    ours = run(
        """
        const { surface, parameters } = place(given);
        return given.points.map(([x, y]) =>
          [surface.value(parameters, x, y), ...surface.gradient(parameters, x, y)]);
        """,
        {"surface": surface, "parameters": parameters(surface) | PLACES[surface], "points": points.tolist()},
    )
    assert relative(np.array(ours)[:, 0], value, 1.0) < 1e-14
    assert relative(np.array(ours)[:, 1:], gradient, 1.0) < 1e-14
    by_autograd = landscape.change(value=lambda p: landscape.value(p)).gradient(points)[1]
    assert relative(gradient, by_autograd, 1.0) < TOLERANCE


@pytest.mark.parametrize("surface", SURFACES)
def test_descents_equal_those_of_python(run: Run, surface: str) -> None:
    """The learning rates include some at which descents diverge."""
    landscape = SURFACES[surface](**PLACES[surface]).change(noise=NOISE.get(surface, 0.0))
    given, points, losses = [], [], []
    for chosen, factors in (("default", FACTORS), ("halved", FACTORS[1:2])):
        starts = torch.tensor(landscape.start, dtype=torch.float64).repeat(len(factors), 1)
        racing = []
        for name, entry in RACERS.items():
            rates = torch.tensor([factor * entry.default_rate for factor in factors], dtype=torch.float64)
            own = hyperparameters(name, chosen)
            racing.append((entry.rule, {**entry.values(**{"lr": entry.default_rate, **own}), "lr": rates[:, None]}))
            given += [[name, {**own, "lr": rate}] for rate in rates.tolist()]
        path, curve = descend(racing, landscape, STEPS, starts, SEED)
        points += path.flatten(1, 2).unbind(1)
        losses += curve.flatten(1, 2).unbind(1)
    result = run(
        """
        const { points, losses } = descent.descend(given.racers.map(racer), place(given), given.steps);
        return points.map((each, i) => [Array.from(each), Array.from(losses[i])]);
        """,
        {
            "surface": surface,
            "parameters": parameters(surface) | PLACES[surface],
            "noise": landscape.noise,
            "seed": SEED,
            "racers": given,
            "steps": STEPS,
        },
    )
    width = np.diff(np.array(landscape.box))[:, 0]
    off = {}
    for (name, own), ours, path, curve in zip(given, result, points, losses, strict=True):
        error = max(relative(np.array(ours[0]).reshape(-1, 2), path, width), relative(ours[1], curve, float(curve[0])))
        if not error < TOLERANCE and (surface, name) not in CHAOTIC:
            off[name] = (own, error)
    assert off == {}


@pytest.mark.parametrize("surface", SURFACES)
def test_tuned_learning_rates_equal_those_of_python(run: Run, surface: str) -> None:
    landscape = SURFACES[surface](**PLACES[surface])
    names = [name for name, entry in RACERS.items() if entry.rule.is_separable or surface == "ravine"]
    expected = {
        name: tuned(
            RACERS[name].rule,
            landscape,
            TUNING_STEPS,
            None,
            5 if landscape.noise else 1,
            tuple(RACERS[name].fixed.items()),
        )
        for name in names
    }
    ours = run(
        "return given.names.map((name) => descent.tune(RULES[name], {}, place(given), given.steps));",
        {
            "surface": surface,
            "parameters": parameters(surface) | PLACES[surface],
            "noise": landscape.noise,
            "names": names,
            "steps": TUNING_STEPS,
        },
    )
    assert dict(zip(names, ours, strict=True)) == expected


def test_final_points_from_a_grid_of_starts_equal_those_of_python(run: Run) -> None:
    landscape, entry, size = SURFACES["himmelblau"](), RACERS["adam"], 9
    x, y, _ = landscape.grid(size)
    starts = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    points, losses = descend([(entry.rule, entry.values(lr=0.3))], landscape, 200, starts)
    distances = torch.cdist(points[-1, 0] / 12, torch.tensor(landscape.minima, dtype=torch.float64) / 12)
    near, reached = distances.min(1)
    ours = run(
        """
        const found = descent.basins(racer(["adam", { lr: 0.3 }]), place(given), 200, given.size);
        return Object.fromEntries(Object.entries(found).map(([key, each]) => [key, Array.from(each)]));
        """,
        {"surface": "himmelblau", "parameters": {}, "size": size},
    )
    assert relative(np.array(ours["starts"]).reshape(-1, 2), starts, 12) == 0
    assert relative(np.array(ours["ends"]).reshape(-1, 2), points[-1, 0], 12) < TOLERANCE
    assert relative(ours["losses"], losses[-1, 0], 1.0) < TOLERANCE
    assert ours["reached"] == torch.where(near < 0.05, reached, -1).tolist()
    assert len(set(ours["reached"])) >= 4


def test_noise_is_that_of_the_published_generator_in_both_languages(run: Run) -> None:
    """The known answers are those of Random123, the authors' library."""
    full = 0xFFFFFFFF
    answers = {
        ((0, 0, 0, 0), (0, 0)): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ((full,) * 4, (full,) * 2): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    }
    assert {given: philox(*given) for given in answers} == answers
    assert run("return given.map(([c, k]) => noise.philox(c, k));", list(answers)) == [
        list(a) for a in answers.values()
    ]

    draws = [(seed, t) for seed in (0, 1, 999_999) for t in range(1, 2001)]
    ours = np.array(run("return given.map(([seed, t]) => noise.drawNoise(seed, t));", draws))
    assert relative(ours, [draw_noise(*each) for each in draws], 1.0) < 1e-15
    assert np.abs(ours.mean(0)).max() < 0.05
    assert np.abs(np.cov(ours.T) - np.eye(2)).max() < 0.08


def test_the_worker_tunes_and_finds_basins_as_the_page_does(run: Run) -> None:
    same = run(
        """
        const { inBackground, cancelBackground } = await import("/static/landscape/background.js");
        const args = { name: "adam", given: { beta1: 0.8 }, place: given, steps: 50, size: 5 };
        const lr = await inBackground("tune", args);
        const found = await inBackground("basins", { ...args, given: { lr } });
        cancelBackground();
        const here = descent.basins(racer(["adam", { lr }]), place(given), 50, 5);
        return [lr, descent.tune(RULES.adam, { beta1: 0.8 }, place(given), 50), Array.from(found.reached),
          Array.from(here.reached)];
        """,
        {"surface": "himmelblau", "parameters": {}, "noise": 0.0, "seed": 0},
    )
    assert same[0] == same[1]
    assert same[2] == same[3]
