"""The gap between SGD and Adam at several batch sizes."""

import numpy as np

from gradprix.claims import Measured
from gradprix.claims.decisions import Decision, all_of, is_below, is_relevant
from gradprix.claims.estimates import mean, ratio_of_means
from gradprix.claims.registry import Quantities
from gradprix.rules import adam, sgd
from gradprix.show.figure import Chart
from gradprix.tasks import Task, find

from .figures import interval_lines
from .registry import experiment
from .training import Arm, train, tune

SIZES = (1, 4, 16)
EPOCHS, TUNING_SEEDS, SEEDS = 3, 2, 12
HALF_LIFE = 128
"""Half-life of Adam's second moment, in sequences: a sixteenth of the training. In the original it is a sixtieth."""
EFFECT, SMALL = 0.05, 0.25


def beta2(batch_size: int) -> float:
    """Return the decay of the second moment, per step, for the half-life in sequences."""
    return 0.5 ** (batch_size / HALF_LIFE)


def decide(m: Quantities) -> Decision:
    """Return the verdict from the growth of the gap and from its size at batch size 1."""
    grows, is_small = is_relevant(m["growth"], EFFECT), is_below(m["share"], SMALL)
    if grows and is_small is False:
        return "holds only if", f"a gap of more than {SMALL:g} of the largest counts as small"
    return all_of(grows, is_small) if grows else all_of(grows)


def draw(m: Quantities) -> Chart:
    """Draw the test losses against the batch size."""
    lines = {name: {size: m[f"{name}_{size}"] for size in SIZES} for name in ("sgd", "adam")}
    title = "Test loss of tuned SGD and Adam after the same number of examples"
    return interval_lines("sgd-adam-gap-grows-with-batch-size", title, ("batch size", "nats per character"), lines)


@experiment("sgd-adam-gap-grows-with-batch-size", decide, draw=draw)
def measure(quick: bool) -> Quantities:
    """Return the test losses of SGD and Adam at each batch size, and their gaps."""
    task = find("charlm", "small", None).change(epochs=1 if quick else EPOCHS)
    losses = {size: measure_losses(task.change(batch_size=size), quick) for size in SIZES}
    gaps = {size: sgd_losses - adam_losses for size, (sgd_losses, adam_losses) in losses.items()}
    quantities: dict[str, Measured] = {
        "growth": mean(gaps[SIZES[-1]] - gaps[1]),
        "share": ratio_of_means(gaps[1], gaps[SIZES[-1]]),
    }
    quantities |= {f"gap_{size}": mean(gap) for size, gap in gaps.items()}
    for i, name in enumerate(("sgd", "adam")):
        quantities |= {f"{name}_{size}": mean(each[i]) for size, each in losses.items()}
    return quantities


def measure_losses(task: Task, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the test losses of tuned SGD and Adam, one for each held-out seed."""
    arms = (Arm(sgd, 2.2e-2, 1.0), Arm(adam, 1e-3, 4.7e-2, {"beta2": beta2(task.batch_size)}))
    spacing, most, tuning_seeds, seeds = (5, 3, 1, 4) if quick else (2, 24, TUNING_SEEDS, SEEDS)
    tuned = [tune(task, [arm], tuning_seeds, spacing, most) for arm in arms]
    plain, adaptive = ([o.test_loss for o in outcomes] for outcomes in train(task, tuned, seeds))
    return np.array(plain), np.array(adaptive)
