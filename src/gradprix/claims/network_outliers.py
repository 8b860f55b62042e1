"""Effect of momentum on atypical samples (rare classes and wrong labels) at equal training loss."""

from collections.abc import Sequence
from functools import cache
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradprix.tasks import Data, Task
from gradprix.training.trial import Trial

from .claim import experiment
from .decisions import Decision, any_of, is_above, is_relevant
from .estimates import Measured, exact, geometric_mean, mean
from .network_training import CONSTANT, Training, make_trial, seeds, tuned
from .registry import Quantities

N = 64
EFFECT = 1.1  # if momentum raises the loss on atypical samples by this factor at equal total loss, it neglects them
HALF = 0.5  # fraction of the neglect that a cure must remove
BETA = 0.9
PASSES = 30  # maximum number of epochs; training ends when all runs have reached the last level
EVERY = 2  # number of steps between measurements of the losses
LEVELS = (0.8, 0.4, 0.2)  # training losses at which the arms are compared, as fractions of the initial loss
WRONG = 0.05  # fraction of all examples, test examples included, whose label is replaced by another digit
RARE = 5  # digits from 5 to 9 are the rare classes
ARMS = ("minibatch", "momentum", "nesterov")

Array = NDArray[Any]


def _rare() -> Data:
    """Return the digits data with Zipf frequencies: digit d is 1 / (d + 1) as frequent as digit 0."""
    full = CONSTANT.loaded
    count = torch.bincount(full.labels).min()
    index = torch.cat([(full.labels == d).nonzero()[:, 0][: int(count) // (d + 1)] for d in range(10)])
    return Data(full.inputs[index], full.targets[index], stratify=True)


def _wrong_label_mask(targets: Tensor) -> Tensor:
    """Return a mask of the examples whose label is replaced.

    It is the same for all seeds.
    """
    return torch.rand(len(targets), generator=torch.Generator().manual_seed(0)) < WRONG


def _mislabelled() -> Data:
    """Return the digits data with wrong labels for a few examples."""
    targets = CONSTANT.loaded.targets
    shift = torch.randint(1, 10, (len(targets),), generator=torch.Generator().manual_seed(1))
    labels = torch.where(_wrong_label_mask(targets), (targets + shift) % 10, targets)
    return Data(CONSTANT.loaded.inputs, labels, stratify=True)


KINDS = {
    "rare": CONSTANT.change(name="rare digits", data=_rare, epochs=2 * PASSES),  # a third as many examples
    "mislabelled": CONSTANT.change(name="mislabelled digits", data=_mislabelled, epochs=PASSES),
}
SAMPLES = {"rare": "rare classes", "mislabelled": "wrong labels"}


def _atypical_mask(kind: str, task: Task, part: Tensor) -> Tensor:
    """Return a mask of the atypical examples.

    Args:
        kind: kind of the atypical examples, a key of `KINDS`.
        task: the task of this kind.
        part: indices of the examples, of any shape.
    """
    return task.loaded.targets[part] >= RARE if kind == "rare" else _wrong_label_mask(task.loaded.targets)[part]


@cache
def _train_arms(kind: str, quick: bool) -> dict[str, Array]:
    """Return the loss and the accuracy that `_train_to_levels` measures for each arm, `[2, seeds, levels]`.

    All arms use the same batches and initial weights. They also use the same effective learning rate lr / (1 − β),
    which is tuned for plain gradient descent.
    """
    task, run_seeds = KINDS[kind], seeds(quick, N // 2 if quick else N)
    lr = tuned(task, ("minibatch",), quick, by="train")["minibatch"]
    lrs = {name: lr if name == "minibatch" else lr * (1 - BETA) for name in ARMS}
    trials = [make_trial(task, name, lrs[name], seed) for name in ARMS for seed in run_seeds]
    values = np.array(_train_to_levels(kind, task, trials)).reshape(2, len(ARMS), -1, len(LEVELS))
    return {name: values[:, i] for i, name in enumerate(ARMS)}


def _train_to_levels(kind: str, task: Task, trials: Sequence[Trial]) -> tuple[list[list[float]], list[list[float]]]:
    """Train models, and measure each model when its training loss reaches each level.

    Returns:
        Two lists of measurements, `[models][levels]`. The first is the logarithm of the loss on atypical training
        samples. The second is the test accuracy, in percentage points, on the examples that neglect may affect: rare
        classes, or correctly labelled examples.
    """
    training = Training(task, trials)
    data = training.stack.data
    rows = data.seed_index[: training.count]
    atypical = _atypical_mask(kind, task, data.train)[rows].double()
    affected = (_atypical_mask(kind, task, data.test) == (kind == "rare"))[rows].double()
    history: list[tuple[Tensor, Tensor, Tensor]] = []

    def record_losses() -> None:
        losses = training.losses(data.train)
        accuracy = 100 * (training.correct(data.test) * affected).sum(1) / affected.sum(1)
        history.append((losses.mean(1), ((losses * atypical).sum(1) / atypical.sum(1)).log(), accuracy))

    record_losses()
    for t, _ in training.steps():
        if t % EVERY == 0:
            record_losses()
            if (torch.stack([loss for loss, *_ in history]).amin(0) <= LEVELS[-1] * history[0][0]).all():
                break
    total, *others = (torch.stack(parts, 1).numpy() for parts in zip(*history, strict=True))
    loss, accuracy = ([interpolate(*rows) for rows in zip(total, other, strict=True)] for other in others)
    return loss, accuracy


def interpolate(total: Array, value: Array) -> list[float]:
    """Return the value of a quantity when the total loss first falls to each level.

    The quantity is interpolated between measurements, linearly in the logarithm of the total loss. For a level that is
    not reached, its value at the lowest total loss is returned.

    Args:
        total: total loss at each measurement.
        value: the quantity at each measurement.
    """
    values = []
    for level in LEVELS:
        is_below = total <= level * total[0]
        i = int(is_below.argmax()) if is_below.any() else int(total.argmin())
        if i == 0 or not is_below.any():
            values.append(float(value[i]))
            continue
        share = log(total[i - 1] / (level * total[0])) / log(total[i - 1] / total[i])
        values.append(float((1 - share) * value[i - 1] + share * value[i]))
    return values


CONDITIONS = {
    f"{kind}_{round(100 * level)}": f"{samples} once the loss is at {level:g} of its initial value"
    for kind, samples in SAMPLES.items()
    for level in LEVELS
}
"""Phrases for the kind of samples and the level of the training loss, by the name of the measured quantity."""


def _neglect(quick: bool) -> dict[str, Measured]:
    """Return the ratio of the losses on atypical samples with and without momentum, for each kind and level."""
    ratios = {}
    for kind in KINDS:
        arms = _train_arms(kind, quick)
        for i, level in enumerate(LEVELS):
            ratios[f"{kind}_{round(100 * level)}"] = geometric_mean(
                arms["momentum"][0, :, i] - arms["minibatch"][0, :, i]
            )
    return ratios


def decide_neglect(m: Quantities) -> Decision:
    """Return the verdict from the ratios of losses for both kinds of samples at all levels.

    If momentum neglects samples in one case, inconclusive cases count as cases without neglect.
    """
    answers = {CONDITIONS[name]: is_relevant(m[name], EFFECT, 1) for name in CONDITIONS if name in m}
    if True in answers.values():
        answers = {condition: bool(answer) for condition, answer in answers.items()}
    return any_of(answers, "it is of ")


@experiment("momentum-neglects-atypical-samples", decide=decide_neglect)
def measure_neglect(quick: bool) -> Quantities:
    """Compare losses and accuracies with and without momentum at equal training loss.

    Ratios of losses that count as neglect come first.
    """
    ratios = _neglect(quick)
    cost = {kind: _train_arms(kind, quick)["momentum"][1] - _train_arms(kind, quick)["minibatch"][1] for kind in KINDS}
    return {
        **dict(sorted(ratios.items(), key=lambda pair: is_relevant(pair[1], EFFECT, 1) is not True)),
        **{f"cost_{kind}": mean(cost[kind].mean(1)) for kind in KINDS},
    }


def decide_cure(m: Quantities) -> Decision:
    """Return the verdict from the fraction of the neglect that Nesterov momentum removes."""
    return any_of({CONDITIONS[name]: is_above(m[name], HALF) for name in CONDITIONS if name in m}, "it is of ")


def say_cure(m: Quantities) -> str:
    """Return a sentence with the measured quantities."""
    removed = [f"{m[name]} of that of {condition}" for name, condition in CONDITIONS.items() if name in m]
    return f"Of momentum's neglect Nesterov's form removes {'; '.join(removed) or 'nothing, for there is none'}."


@experiment("acceleration-cures-neglect", decide=decide_cure, say=say_cure)
def measure_cure(quick: bool) -> Quantities:
    """Measure the fraction of the neglect that Nesterov momentum removes, in the cases with neglect."""
    shares = {}
    for name, ratio in _neglect(quick).items():
        if is_relevant(ratio, EFFECT, 1):
            kind, percent = name.split("_")
            level = LEVELS.index(int(percent) / 100)
            plain, heavy, nesterov = (_train_arms(kind, quick)[arm][0, :, level] for arm in ARMS)
            shares[name] = mean((heavy - nesterov) / (heavy - plain).mean())
    return shares or {"nothing": exact(0.0, 0)}
