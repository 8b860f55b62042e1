"""Effect of momentum on atypical samples (rare classes and wrong labels) at equal training loss."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import log

import numpy as np
import torch
from torch import Tensor

from gradprix.tasks import Data, Task
from gradprix.training.trial import Trial

from ._claim import Claim, Finding, Measured, Verdict, mean
from ._network_experiment import STEADY, Training, is_more, seeds, times, trial, tuned

ALPHA = 0.05
N = 64
EFFECT = 1.1
"""A loss on atypical samples a tenth larger, at equal total loss, counts as neglect."""
HALF = 0.5
"""Share of the neglect that a cure must remove."""
BETA = 0.9
PASSES = 30
"""Maximum number of epochs; training ends when all runs have reached the last level."""
EVERY = 2
"""Steps between two measurements of the losses."""
LEVELS = (0.8, 0.4, 0.2)
"""Training losses at which the arms are compared, as shares of the initial loss."""
WRONG = 0.05
"""Share of examples, of all splits, whose label is replaced by one of the nine other digits."""
RARE = 5
"""Digits from this one on are the rare classes."""
ARMS = ("minibatch", "momentum", "nesterov")


def _rare() -> Data:
    """Return digits with Zipf frequencies: digit d is 1 / (d + 1) as frequent as digit 0."""
    every = STEADY.loaded
    count = torch.bincount(every.labels).min()
    chosen = [(every.labels == d).nonzero()[:, 0][: int(count) // (d + 1)] for d in range(10)]
    index = torch.cat(chosen)
    return Data(every.inputs[index], every.targets[index], stratify=True)


def _wrong_label_mask(targets: Tensor) -> Tensor:
    """Return a mask of the replaced labels, the same for all seeds: only the split differs."""
    return torch.rand(len(targets), generator=torch.Generator().manual_seed(0)) < WRONG


def _mislabelled() -> Data:
    """Return digits of which a few have a wrong label."""
    targets = STEADY.loaded.targets
    shift = torch.randint(1, 10, (len(targets),), generator=torch.Generator().manual_seed(1))
    return Data(
        STEADY.loaded.inputs, torch.where(_wrong_label_mask(targets), (targets + shift) % 10, targets), stratify=True
    )


KINDS = {
    "rare": STEADY.change(name="rare digits", data=_rare, epochs=2 * PASSES),  # a third as many examples
    "mislabelled": STEADY.change(name="mislabelled digits", data=_mislabelled, epochs=PASSES),
}


def _atypical_mask(kind: str, task: Task, part: Tensor) -> Tensor:
    """Return a mask of the atypical examples."""
    return task.loaded.targets[part] >= RARE if kind == "rare" else _wrong_label_mask(task.loaded.targets)[part]


@cache
def _measure_arms(kind: str, quick: bool) -> dict[str, np.ndarray]:
    """Return the values of `_at_levels` for each arm, `[2, seeds, levels]`.

    All arms use the same batches and initial weights, and the same effective learning rate lr / (1 − β), tuned for
    plain gradient descent.
    """
    task, run_seeds = KINDS[kind], seeds(quick, N // 2 if quick else N)
    rate = tuned(task, ("minibatch",), quick, by="train")["minibatch"]
    arms = [
        trial(task, name, rate if name == "minibatch" else rate * (1 - BETA), s) for name in ARMS for s in run_seeds
    ]
    values = np.array(_train_to_levels(kind, task, arms)).reshape(2, len(ARMS), -1, len(LEVELS))
    return {name: values[:, i] for i, name in enumerate(ARMS)}


def _train_to_levels(kind: str, task: Task, arms: Sequence[Trial]) -> tuple[list[list[float]], list[list[float]]]:
    """Return measurements at each level of the training loss, for each network.

    Returns:
        The logarithm of the loss on atypical training samples; and the test accuracy, in percentage points, that
            neglect might cost: on rare classes, or on correctly labelled examples.
    """
    training = Training(task, arms)
    trainer = training.trainer
    atypical = _atypical_mask(kind, task, trainer.train)[trainer.of_seed][: training.count].double()
    affected = (_atypical_mask(kind, task, trainer.test) == (kind == "rare"))[trainer.of_seed][
        : training.count
    ].double()
    history: list[tuple[Tensor, Tensor, Tensor]] = []

    def record_losses() -> None:
        losses = training.losses(trainer.train)
        accuracy = 100 * (training.correct(trainer.test) * affected).sum(1) / affected.sum(1)
        history.append((losses.mean(1), ((losses * atypical).sum(1) / atypical.sum(1)).log(), accuracy))

    record_losses()
    for t, _ in training.steps():
        if t % EVERY == 0:
            record_losses()
            if (torch.stack([loss_now for loss_now, *_ in history]).amin(0) <= LEVELS[-1] * history[0][0]).all():
                break
    total, *others = (torch.stack(parts, 1).numpy() for parts in zip(*history, strict=True))
    loss, accuracy = ([at_levels(*rows) for rows in zip(total, other, strict=True)] for other in others)
    return loss, accuracy


def at_levels(every: np.ndarray, value: np.ndarray) -> list[float]:
    """Return a value at the point where the total loss first falls to each level.

    Values are interpolated between measurements by the logarithm of the loss. A network that does not reach a level is
    evaluated at its lowest loss.

    Args:
        every: total loss at each measurement.
        value: the value at each measurement.
    """
    values = []
    for level in LEVELS:
        below = every <= level * every[0]
        i = int(below.argmax()) if below.any() else int(every.argmin())
        if i == 0 or not below.any():
            values.append(float(value[i]))
            continue
        share = log(every[i - 1] / (level * every[0])) / log(every[i - 1] / every[i])
        values.append(float((1 - share) * value[i - 1] + share * value[i]))
    return values


NOTHING = Measured("places where there is neglect to cure", 0.0, (0.0, 0.0), 0)
WHERE = {"rare": "rare classes", "mislabelled": "wrong labels"}


def neglected(ratios: Mapping[tuple[str, float], Measured], says: str, others: Sequence[Measured] = ()) -> Finding:
    """Return the verdict of a claim about atypical samples of both kinds at all levels.

    Args:
        ratios: ratio of the losses, by kind and level.
        says: description of the result.
        others: further measurements.
    """
    counts = {key: is_more(ratio, EFFECT, 1) for key, ratio in ratios.items()}
    true = [key for key, answer in counts.items() if answer]
    measured = [*(ratios[key] for key in true), *(ratios[key] for key in ratios if key not in true), *others]
    if not true and None in counts.values():
        return Finding("not settled", says, measured)
    verdict: Verdict = "holds" if len(true) == len(ratios) else "holds only if" if true else "does not hold"
    return Finding(verdict, says, measured, _format_conditions(true) if verdict == "holds only if" else "")


def _format_conditions(true: Iterable[tuple[str, float]]) -> str:
    return "it is of " + " or ".join(
        f"{WHERE[kind]} once the loss is at {level:g} of its first" for kind, level in true
    )


def cured(shares: Mapping[tuple[str, float], Measured], says: str) -> Finding:
    """Return the verdict from the share of the neglect that is gone.

    Args:
        shares: that share, by the kind and level at which there is neglect.
        says: description of the result.
    """
    if not shares:
        return Finding("not settled", says, [NOTHING])
    gone = {key: True if m.ci95[0] >= HALF else False if m.ci95[1] < HALF else None for key, m in shares.items()}
    if None in gone.values():
        return Finding("not settled", says, list(shares.values()))
    verdict: Verdict = "holds" if all(gone.values()) else "holds only if" if any(gone.values()) else "does not hold"
    true = [
        f"{WHERE[kind]} once the loss is at {level:g} of its first" for (kind, level), answer in gone.items() if answer
    ]
    return Finding(
        verdict, says, list(shares.values()), f"it is of {' or '.join(true)}" if verdict == "holds only if" else ""
    )


def _ratios(quick: bool) -> dict[tuple[str, float], Measured]:
    """Return the loss on atypical samples with momentum relative to without, by kind and level."""
    ratios = {}
    for kind in KINDS:
        arms = _measure_arms(kind, quick)
        for i, level in enumerate(LEVELS):
            what = f"loss on {WHERE[kind]} where the loss is at {level:g} of its first, momentum over minibatch"
            ratios[kind, level] = times(what, (arms["momentum"][0, :, i] - arms["minibatch"][0, :, i]).tolist())
    return ratios


def _cost(kind: str, quick: bool) -> Measured:
    arms = _measure_arms(kind, quick)
    paired = (arms["momentum"][1] - arms["minibatch"][1]).mean(1).tolist()
    where = {"rare": "on rare classes", "mislabelled": "where labels are right"}[kind]
    return mean(f"points of test accuracy {where} at one training loss, momentum - minibatch", paired)


def _neglects(quick: bool) -> Finding:
    ratios = _ratios(quick)
    on_rare, on_right = (_cost(kind, quick) for kind in KINDS)
    parts = [f"{level:g}: {ratios['rare', level].text()} and {ratios['mislabelled', level].text()}" for level in LEVELS]
    says = (
        "At the same loss on all training examples and the same lr / (1 − β), the loss with momentum, as a multiple of "
        f"plain descent's on rare classes and on wrong labels, where the loss is at so much of its first, is at "
        f"{'; '.join(parts)}. Over these, test accuracy is {on_rare.text('+.2f')} points higher on rare classes, and "
        f"{on_right.text('+.2f')} on rightly labelled examples where some are wrong."
    )
    return neglected(ratios, says, (on_rare, on_right))


def _cured(quick: bool) -> Finding:
    shares = {}
    for (kind, level), ratio in _ratios(quick).items():
        if is_more(ratio, EFFECT, 1):
            each, i = _measure_arms(kind, quick), LEVELS.index(level)
            plain, heavy, ahead = (each[name][0, :, i] for name in ARMS)
            gone = (heavy - ahead) / (heavy - plain).mean()
            what = f"share of the neglect of {WHERE[kind]} that is gone, where the loss is at {level:g} of its first"
            shares[kind, level] = mean(what, gone.tolist())
    parts = [
        f"{m.text()} of that of {WHERE[kind]} at {level:g} of the first loss" for (kind, level), m in shares.items()
    ]
    taken = "; ".join(parts) or "nothing, for there is none to speak of"
    says = f"Of momentum's neglect Nesterov's form takes away {taken}."
    return cured(shares, says)


_WHERE = (
    f"where the loss on all has come down to {', '.join(map(str, LEVELS))} of its first value, over {N} paired seeds, "
    f"once with a few rare classes and once with {100 * WRONG:.0f} % wrong labels"
)
_NEGLECT = (
    f"The ratio of the losses on atypical samples {_WHERE}. It counts if its 95 % interval is above 1 and it is "
    f"{EFFECT} or more. Holds if it counts everywhere, only if where it counts somewhere, and does not hold if all "
    f"intervals are below {EFFECT}."
)
_CURE = (
    f"Where that neglect counts, the share of it (in the logarithm of the loss) that is gone with Nesterov's form. "
    f"Holds if the 95 % interval is wholly above {HALF:g} everywhere, does not hold if it is below everywhere; not "
    "settled where there is nothing to cure."
)
REVISED = (
    "As first decided, one ratio was taken over all levels: 1.05 for both kinds, which hid that neglect comes and goes "
    "as training proceeds. Levels are told apart since, and a cure is judged by the share of the neglect."
)
CLAIMS = (
    Claim(
        id="momentum-neglects-atypical-samples",
        account="Momentum may ignore atypical samples and outliers, which can cost accuracy.",
        prediction="At the same training loss, from the same weights and batches and at the same lr / (1 − β), the "
        "loss on rare classes and on wrongly labelled training samples is larger with momentum than without.",
        decides=_NEGLECT,
        run=_neglects,
        on="networks",
        revised=REVISED,
    ),
    Claim(
        id="acceleration-cures-neglect",
        account="An acceleration term (Nesterov's) mitigates that neglect.",
        prediction="In the same runs, most of what momentum adds to the loss on atypical samples is gone with "
        "Nesterov's form.",
        decides=_CURE,
        run=_cured,
        on="networks",
        revised=REVISED,
    ),
)
