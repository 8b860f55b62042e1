import json
import math
from dataclasses import replace
from urllib.parse import urlencode

import numpy as np
import pytest

from gradprix import claims
from gradprix.explain import LANDSCAPES, classify_state, trace

pytest.importorskip("dash", reason="the app's pages are made with dash: pip install 'gradprix[app]'")

from dash import no_update
from hypothesis import given, settings
from hypothesis import strategies as st

from gradprix.app import (
    claims_page,
    export,
    figures,
    landscape_page,
    trajectories,
)
from gradprix.app.controls import SETTINGS
from gradprix.app.figure_elements import CONFIG, optimizer_style
from gradprix.app.presets import PRESETS, matching_preset
from gradprix.app.state import RACERS, TABS, VIEWS, ZOOMS, Racer, State, default_setting
from gradprix.app.url_query import read, write
from gradprix.app.url_sync import callback_outputs, changed_outputs, state_after_click, state_from_controls, values

NUMBERS = st.one_of(st.floats(-1e6, 1e6), st.just(""), st.text(max_size=4)).map(str)
WHO = (*RACERS, "adam:lr=0.1:beta1=2", "gd:lr=nan", "momentum:momentum=0", "::=", "x")
FREE = "condition angle curvature noise seed steps t step trials seeds".split()
CHOSEN = {
    "tab": st.sampled_from([*TABS, "x"]),
    "surface": st.sampled_from([*LANDSCAPES, "moon"]),
    "view": st.sampled_from([*VIEWS, ""]),
    "zoom": st.sampled_from([*ZOOMS, "🔍"]),
    "of": st.sampled_from([*RACERS, "nobody"]),
    "start": st.tuples(NUMBERS, NUMBERS).map(",".join),
    "who": st.lists(st.sampled_from(WHO)).map(",".join),
    "names": st.lists(st.sampled_from(["adam", "sgd", "../x"])).map(",".join),
    "race": st.text(max_size=8),
}
ADDRESSES = st.fixed_dictionaries({}, optional={**CHOSEN, **dict.fromkeys(FREE, NUMBERS)})


@settings(deadline=None, max_examples=150)
@given(ADDRESSES)
def test_an_address_is_the_state_and_the_state_the_address(fields):
    state = read("?" + urlencode(fields))
    assert read(write(state)) == state
    assert write(read(write(state))) == write(state)
    box = LANDSCAPES[state.setting.surface](**dict(state.setting.parameters)).box
    assert all(low <= value <= high for value, (low, high) in zip(state.setting.start, box, strict=True))


@settings(deadline=None, max_examples=150)
@given(st.text())
def test_a_broken_address_is_as_usual_and_never_an_error(text):
    assert read(write(read(text))) == read(text)


def test_what_makes_no_sense_in_an_address_is_left_out():
    assert read("") == State()
    assert write(State()) == ""
    assert read("?surface=moon&steps=many&start=here&who=nobody:lr=0&noise=inf&tab=&t=-") == replace(
        State(), setting=replace(State().setting, racers=())
    )
    assert read("?steps=999999").setting.steps == 2000
    assert read("?start=1e9,-1e9").setting.start == (2.5, -2.5)
    assert read("?surface=bowl&who=adam:lr=0.1:beta1=0.5:beta2=0.999:nesterov=1").setting.racers == (
        Racer("adam", (("lr", 0.1), ("beta1", 0.5))),
    )
    assert read("&".join(f"a{i}=1" for i in range(2000))) == State()


def test_controls_show_the_state_and_say_it_back():
    for preset in PRESETS:
        state = preset.state
        assert state_from_controls(values(state), state, "noise") == state


def test_a_setting_that_is_changed_changes_the_address_alone_where_it_is():
    state = read("?condition=200&t=7&who=gd,adam")
    shows = values(state)
    shows["own"][SETTINGS.index(("adam", "lr"))] = "0,5"
    after = state_from_controls(shows, state, "own")
    assert write(after) == "?condition=200&who=gd,adam:lr=0.5"
    assert state_from_controls({**values(state), "surface": "saddle"}, state, "surface").setting == default_setting(
        "saddle", state.setting.racers
    )


def test_the_browser_is_told_what_has_changed_alone():
    before = read("?who=gd,adam")
    after = state_after_click(before, {"xvals": [1.0], "yvals": [0.5]})
    told = changed_outputs(callback_outputs(after), callback_outputs(before))
    flat = {name: value for name, value in told.items() if not isinstance(value, list)}
    assert {name for name, value in flat.items() if value is not no_update} == {
        "start-x",
        "start-y",
        "address",
        "state",
    }
    assert all(one is no_update for name in ("own", "entered", "parameter", "boxes") for one in told[name])


@pytest.mark.parametrize(
    ("click", "start"),
    [
        ({"points": [], "xvals": [-1.004], "yvals": [2.0]}, (-1.0, 2.0)),
        ({"points": [{"x": 1.5, "y": 0.25, "z": 3.0}]}, (1.5, 0.25)),
        ({"points": [{"x": 99, "y": 0}]}, (2.5, 0.0)),
        ({"points": []}, (-4.2, 0.9)),
        (None, (-4.2, 0.9)),
    ],
)
def test_a_click_is_a_start(click, start):
    assert state_after_click(State(), click).setting.start == start


@pytest.fixture(scope="module")
def seen():
    return read("?surface=himmelblau&steps=20&who=gd,momentum,rmsprop,adam")


def test_a_run_is_what_descend_finds(seen):
    found = trajectories.run(seen.setting)
    assert found.points.shape == (21, 4, 2)
    assert found.heights[0] == pytest.approx([181.6] * 4, rel=1e-3)
    rule, lr = RACERS["adam"].rule, found.rates[found.names.index("adam")]
    one = trace(rule, LANDSCAPES["himmelblau"](), 20, lr=lr).x.points.numpy()
    assert found.points[:, found.names.index("adam")] == pytest.approx(one, abs=1e-12)


def test_whole_paths_are_drawn_once_and_only_heads_and_trails_move(seen):
    run = trajectories.run(seen.setting)
    for figure, t in ((figures.contour(run, 5), 5), (figures.relief(run, 5), 5)):
        traces = figure.to_dict()["data"]
        kinds = [trace.get("meta") for trace in traces]
        assert kinds.count("whole") == kinds.count("trail") == 4
        assert kinds.count("head") == 1
        whole = [trace for trace in traces if trace.get("meta") == "whole"]
        assert [len(trace["x"]) for trace in whole] == [21] * 4
        assert [len(trace["x"]) for trace in traces if trace.get("meta") == "trail"] == [t + 1] * 4
        head = next(trace for trace in traces if trace.get("meta") == "head")
        assert list(head["x"]) == [trace["x"][t] for trace in whole]
        assert list(head["text"]) == run.names
    assert figures.contour(run, 5).layout.clickanywhere


def test_optimizers_differ_in_more_than_their_colour():
    looks = [tuple(optimizer_style(name).values()) for name in RACERS]
    assert len(set(looks)) == len(RACERS)
    assert len({(dash, symbol) for _, dash, symbol in looks}) * 6 >= len(RACERS)


def test_loss_is_on_a_logarithmic_axis_with_the_step_marked(seen):
    figure = figures.losses(trajectories.run(seen.setting), 7)
    assert figure.layout.yaxis.type == "log"
    now = next(trace for trace in figure.data if trace.meta == "now")
    assert list(now.x) == [7, 7]


def test_every_start_is_drawn_by_the_minimum_it_reaches(seen):
    found = trajectories.run_from_grid(seen.setting, Racer("gd"))
    assert len(found.starts) == trajectories.LATTICE**2
    minima = np.asarray(found.landscape.minima)
    near = found.reached >= 0
    assert np.linalg.norm(found.ends[near] - minima[found.reached[near]], axis=1).max() < 1
    figure = figures.basins(found)
    assert sum(len(trace.x) for trace in figure.data if trace.name.startswith("to ")) == trajectories.LATTICE**2


def test_a_descent_that_diverges_is_drawn_as_far_as_it_is_seen():
    state = read("?surface=bowl&steps=60&who=gd:lr=2.05")
    run = trajectories.run(state.setting)
    assert run.summaries()["gd"].is_outside
    assert "null" in json.dumps([None if math.isnan(x) else x for x in run.points[:, 0, 0]])
    for view in VIEWS:
        landscape_page.stage(replace(state, view=view)).to_json()


def test_without_optimizers_there_is_the_surface():
    state = read("?who=")
    for view in VIEWS:
        assert landscape_page.stage(replace(state, view=view)).data
    figures.losses(trajectories.run(state.setting), 0)
    assert landscape_page.table(trajectories.run(state.setting)).to_plotly_json()
    assert callback_outputs(state)["of-options"] == ["momentum"]


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
def test_what_a_memory_is_of_is_found_by_asking_the_rule(name, expected):
    racer = Racer(name)
    assert classify_state(racer.rule, tuple(racer.entry.values(0.1).items())) == expected


SURE = {
    "Momentum in a ravine": lambda s: (
        s["nesterov"].convergence_step < s["momentum"].convergence_step < s["gd"].convergence_step / 3
        and s["momentum"].end < 1e-6 * s["gd"].end
    ),
    "Just above 2/λ": lambda s: s["gd"].end > 100 * s["gd"].start and s["momentum"].end < 0.01 * s["momentum"].start,
    "The textbook's zig-zag": lambda s: s["gd"].rate < 2 / 30,
    "AdaGrad stalls": lambda s: (
        s["adagrad"].end > 1000 * max(s["adam"].end, s["momentum"].end)
        and s["adagrad"].maximum > 10 * s["adagrad"].start
    ),
    "A ravine along the axes": lambda s: (
        max(s["adagrad"].convergence_step, s["rmsprop"].convergence_step) < s["momentum"].convergence_step
        and s["momentum"].convergence_step < s["gd"].convergence_step
    ),
    "The same ravine, rotated": lambda s: s["adagrad"].end > s["gd"].end > s["momentum"].end,
    "One learning rate for all": lambda s: (
        s["adadelta"].end > 0.9 * s["adadelta"].start
        and min(s, key=lambda name: s[name].end) == "nesterov"
        and sorted(s, key=lambda name: s[name].end)[-2] == "adagrad"
    ),
    "Tuned learning rates": lambda s: (
        min(s, key=lambda name: s[name].convergence_step) == "adagrad"
        and min(s, key=lambda name: s[name].rate) == "momentum"
        and max(s, key=lambda name: s[name].rate) == "adadelta"
    ),
    "AdaDelta's first steps": lambda s: s["adadelta"].end > 0.2 * s["adadelta"].start and s["gd"].end < 1e-6,
    "Noise: a constant learning rate": lambda s: all(it.final_mean > 0.05 for it in s.values()),
    # The expected loss of gradient descent is ½ η σ² (1 / (2 − η) + 1 / (2 − 4 η)) = 0.016.
    "Noise: a tenth of the learning rate": lambda s: all(it.final_mean < 0.016 for it in s.values()),
    "Escape from a saddle": lambda s: (
        s["adam"].convergence_step < s["momentum"].convergence_step < s["gd"].convergence_step
    ),
    "After the cliff": lambda s: s["adam"].end < 1e-6 < min(s["adagrad"].end, s["adamax"].end),
    "Across the plateau": lambda s: (
        s["adam"].convergence_step < s["momentum"].convergence_step < s["gd"].convergence_step
    ),
    "Four minima": lambda s: True,
}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.title)
def test_what_a_preset_says_is_so(preset):
    assert write(preset.state) == preset.address
    assert matching_preset(preset.state.setting) is preset
    run = trajectories.run(preset.state.setting)
    assert "{" not in preset.explain(run)
    assert SURE[preset.title](run.summaries())


def test_the_zig_zag_crosses_the_ravine_at_every_step_and_less_at_the_tuned_rate():
    preset = next(preset for preset in PRESETS if "zig-zag" in preset.title)
    high = trajectories.run(preset.state.setting)
    assert (np.diff(np.sign(high.points[:, 0, 1])) != 0).all()
    tuned = trajectories.run(replace(preset.state.setting, racers=(Racer("gd"),)))
    assert abs(tuned.points[5, 0, 1]) < abs(high.points[5, 0, 1])
    assert tuned.heights[-1, 0] < high.heights[-1, 0]


def test_the_tenth_of_a_rate_takes_longer_and_hovers_lower():
    low, high = (
        trajectories.run(next(p for p in PRESETS if p.title == f"Noise: a {what}").state.setting)
        for what in ("tenth of the learning rate", "constant learning rate")
    )
    for name in ("gd", "momentum", "adam"):
        assert low.summaries()[name].final_mean < high.summaries()[name].final_mean / 5
        i = low.names.index(name)
        assert low.heights[20, i] > high.heights[20, i]


def test_minima_depend_on_the_start_and_the_optimizer():
    state = next(preset for preset in PRESETS if preset.title == "Four minima").state
    reached = {name: trajectories.run_from_grid(state.setting, Racer(name)).reached for name in ("gd", "momentum")}
    assert set(reached["gd"]) >= {0, 1, 2, 3}
    assert (reached["gd"] != reached["momentum"]).any()


@pytest.mark.parametrize("what", ["stage", "losses"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_figure_is_kept_as_numbers_and_as_a_page_of_its_own(what, view, seen):
    state = replace(seen, view=view)
    head, *rest = export.as_csv(what, state).splitlines()
    assert rest
    assert all(row.count(",") == head.count(",") for row in rest)
    page = export.as_page(what, state)
    assert "Plotly.newPlot" in page
    assert '"showSendToCloud": false' in page
    assert "<script src" not in page
    assert '<link href="http' not in page


def test_the_page_of_a_race_can_be_played(seen):
    figure = export.animated(landscape_page.stage(seen), seen)
    assert len(figure.frames) == 21
    assert all(len(frame.data) == 1 for frame in figure.frames), "only where everyone is moves"


def test_figures_offer_no_upload():
    assert CONFIG["showSendToCloud"] is False
    assert CONFIG["displaylogo"] is False


def test_claims_are_a_table_and_the_command_that_makes_it():
    claim = {
        "id": "x",
        "statement": "It <helps>",
        "verdict": "holds only if it rains",
        "effect": 0.5,
        "ci95": [0.25, 0.75],
        "n": 8,
        "says": "so",
        "prediction": "p",
        "decides": "d",
        "measured": [{"what": "w", "effect": 1.0, "ci95": [1.0, 1.0], "n": 1}],
    }
    page = str(claims_page.content([claim, {**claim, "id": "y", "verdict": "holds", "measured": []}]))
    assert "gradprix claims" in page
    for text in ("It <helps>", "◐ holds only if it rains", "0.25 to 0.75", "✓ 1 holds", "◐ 1 holds only if"):
        assert text in page
    unknown = {**claim, "id": "z", "verdict": "not settled", "effect": None, "ci95": [None, None]}
    assert "? 1 not settled" in str(claims_page.content([unknown]))
    every = claims.committed()["claims"]
    assert all(each["statement"] in str(claims_page.content(every)) for each in every)
