"""The comments of the landscape page's presets say what the runs show."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from gradprix.app.presets import PRESETS, Preset
from preset_runs import PresetRun, run_preset

Runs = Mapping[str, PresetRun]
BY_TITLE = {preset.title: preset for preset in PRESETS}


def crossing(run: PresetRun) -> int:
    """Return the first step after which a run has passed the minimum at the origin, seen from its start."""
    return int(np.flatnonzero(run.points @ run.points[0] < 0)[0])


STATEMENTS: dict[str, Callable[[Runs], bool]] = {
    "Momentum overshoots": lambda s: (
        crossing(s["momentum"]) < 60
        and (s["gd"].points @ s["gd"].points[0] > 0).all()
        and s["momentum"].end < s["gd"].end
    ),
    "Momentum in a ravine": lambda s: (
        s["nesterov"].convergence_step < s["momentum"].convergence_step < s["gd"].convergence_step / 3
        and s["momentum"].end < 1e-6 * s["gd"].end
    ),
    "The best momentum for a ravine": lambda s: s["momentum"].end < 1e-16 * s["momentum"].start,
    "RMSProp against Adam in a ravine": lambda s: (
        s["adam"].convergence_step < s["rmsprop"].convergence_step / 2
        and s["adam"].end < s["rmsprop"].end
        and s["rmsprop"].losses[10:150].max() < s["rmsprop"].start / 100 < s["rmsprop"].losses[150:].max()
    ),
    "AdaGrad stalls": lambda s: (
        s["adagrad"].end > 1000 * max(s["adam"].end, s["momentum"].end)
        and s["adagrad"].maximum > 10 * s["adagrad"].start
    ),
    "Just above 2/λ": lambda s: s["gd"].end > 100 * s["gd"].start and s["momentum"].end < 0.01 * s["momentum"].start,
    "The textbook’s zig-zag": lambda s: bool((np.diff(np.sign(s["gd"].points[:, 1])) != 0).all()),
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
    "AdaDelta’s first steps": lambda s: s["adadelta"].end > 0.2 * s["adadelta"].start and s["gd"].end < 1e-6,
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
    "Four minima": lambda s: True,  # its basins are compared in test_landscape_javascript.py
}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.title)
def test_a_comment_says_what_the_runs_show(preset: Preset):
    assert STATEMENTS[preset.title](run_preset(preset))


def test_the_tuned_learning_rate_zigzags_less():
    zigzag = BY_TITLE["The textbook’s zig-zag"]
    high, tuned = run_preset(zigzag)["gd"], run_preset(zigzag, who="gd")["gd"]
    assert abs(tuned.points[5, 1]) < abs(high.points[5, 1])
    assert tuned.end < high.end


def test_rmsprop_is_the_faster_one_without_rotation():
    runs = run_preset(BY_TITLE["RMSProp against Adam in a ravine"], angle="0")
    assert runs["rmsprop"].convergence_step < runs["adam"].convergence_step


def test_a_tenth_of_the_learning_rate_takes_longer_and_hovers_lower():
    low, high = (run_preset(BY_TITLE[f"Noise: a {what} learning rate"]) for what in ("tenth of the", "constant"))
    for name in ("gd", "momentum", "adam"):
        assert low[name].final_mean < high[name].final_mean / 5
        assert low[name].losses[20] > high[name].losses[20]


def test_momentum_diverges_above_its_bound_only():
    """The bound 2 (1 + β) / λ, with the largest curvature λ = κ = 30."""
    best = BY_TITLE["The best momentum for a ravine"]
    for rate, diverges in ((0.098, False), (0.1, True)):
        momentum = run_preset(best, who=f"momentum:lr={rate}:momentum=0.48", steps="2000")["momentum"]
        assert (momentum.end > momentum.start) == diverges
