"""What momentum does with atypical samples: rare classes and wrong labels, at one training loss."""

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
"""A loss on atypical samples a tenth larger, at the same loss on all, is neglect."""
HALF = 0.5
"""A cure takes away this share or more."""
BETA = 0.9
PASSES = 30
"""At most: it ends when all have come down to the last level."""
EVERY = 2
"""Steps from one look at the losses to the next."""
LEVELS = (0.8, 0.4, 0.2)
"""Losses on all training examples at which the arms are compared, as shares of the first loss."""
WRONG = 0.05
"""The share of training and other examples whose label is drawn from the nine other digits."""
RARE = 5
"""Digits from this one on are the rare ones."""
ARMS = ("minibatch", "momentum", "nesterov")


def _rare() -> Data:
    """Digits at Zipf's frequencies: there is 1 / (d + 1) as much of digit d as of digit 0."""
    every = STEADY.loaded
    count = torch.bincount(every.labels).min()
    chosen = [(every.labels == d).nonzero()[:, 0][: int(count) // (d + 1)] for d in range(10)]
    index = torch.cat(chosen)
    return Data(every.inputs[index], every.targets[index], stratify=True)


def _wrong(targets: Tensor) -> Tensor:
    """Which labels are drawn anew, the same for all seeds: the split differs."""
    return torch.rand(len(targets), generator=torch.Generator().manual_seed(0)) < WRONG


def _mislabelled() -> Data:
    """Digits of which a few have a wrong label."""
    targets = STEADY.loaded.targets
    shift = torch.randint(1, 10, (len(targets),), generator=torch.Generator().manual_seed(1))
    return Data(STEADY.loaded.inputs, torch.where(_wrong(targets), (targets + shift) % 10, targets), stratify=True)


KINDS = {
    "rare": STEADY.change(name="rare digits", data=_rare, epochs=2 * PASSES),  # there are a third as many of them
    "mislabelled": STEADY.change(name="mislabelled digits", data=_mislabelled, epochs=PASSES),
}


def _atypical(kind: str, task: Task, part: Tensor) -> Tensor:
    """Which of some examples are the atypical ones."""
    return task.loaded.targets[part] >= RARE if kind == "rare" else _wrong(task.loaded.targets)[part]


@cache
def _neglect(kind: str, quick: bool) -> dict[str, np.ndarray]:
    """For each arm what its networks are at the levels, `[2, seeds, levels]`: two things, as `_at_levels` has them.

    All arms see the same batches from the same weights, and move as far in the end by each gradient: lr / (1 − β) is
    the best rate of plain descent.
    """
    task, known = KINDS[kind], seeds(quick, N // 2 if quick else N)
    rate = tuned(task, ("minibatch",), quick, by="train")["minibatch"]
    arms = [trial(task, name, rate if name == "minibatch" else rate * (1 - BETA), s) for name in ARMS for s in known]
    found = np.array(_at_levels(kind, task, arms)).reshape(2, len(ARMS), -1, len(LEVELS))
    return {name: found[:, i] for i, name in enumerate(ARMS)}


def _at_levels(kind: str, task: Task, arms: Sequence[Trial]) -> tuple[list[list[float]], list[list[float]]]:
    """Where each network's training loss is at each level.

    Returns:
        The logarithm of the loss on atypical training samples; and the points of test accuracy that neglect might cost:
        on rare classes, or where labels are right.
    """
    training = Training(task, arms)
    lane = training.lane
    odd = _atypical(kind, task, lane.train)[lane.of_seed][: training.count].double()
    judged = (_atypical(kind, task, lane.test) == (kind == "rare"))[lane.of_seed][: training.count].double()
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def look() -> None:
        each = training.losses(lane.train)
        accuracy = 100 * (training.right(lane.test) * judged).sum(1) / judged.sum(1)
        seen.append((each.mean(1), ((each * odd).sum(1) / odd.sum(1)).log(), accuracy))

    look()
    for t, _ in training.steps():
        if t % EVERY == 0:
            look()
            if (torch.stack([now for now, *_ in seen]).amin(0) <= LEVELS[-1] * seen[0][0]).all():
                break
    every, *others = (torch.stack(parts, 1).numpy() for parts in zip(*seen, strict=True))
    loss, accuracy = ([at_levels(*rows) for rows in zip(every, other, strict=True)] for other in others)
    return loss, accuracy


def at_levels(every: np.ndarray, value: np.ndarray) -> list[float]:
    """What something is where the loss on all first falls to each level.

    Between two looks it is interpolated, by the logarithm of the loss. A network that does not come down to a level is
    taken at its lowest loss.

    Args:
        every: the loss on all examples, look after look.
        value: the something, likewise.
    """
    found = []
    for level in LEVELS:
        below = every <= level * every[0]
        i = int(below.argmax()) if below.any() else int(every.argmin())
        if i == 0 or not below.any():
            found.append(float(value[i]))
            continue
        share = log(every[i - 1] / (level * every[0])) / log(every[i - 1] / every[i])
        found.append(float((1 - share) * value[i - 1] + share * value[i]))
    return found


NOTHING = Measured("places where there is neglect to cure", 0.0, (0.0, 0.0), 0)
WHERE = {"rare": "rare classes", "mislabelled": "wrong labels"}


def neglected(found: Mapping[tuple[str, float], Measured], says: str, others: Sequence[Measured] = ()) -> Finding:
    """A claim about atypical samples of both kinds at all levels, judged by how much larger one loss is than another.

    Args:
        found: the ratio, by kind and level.
        says: what was found.
        others: what else was measured.
    """
    counts = {key: is_more(ratio, EFFECT, 1) for key, ratio in found.items()}
    true = [key for key, answer in counts.items() if answer]
    measured = [*(found[key] for key in true), *(found[key] for key in found if key not in true), *others]
    if not true and None in counts.values():
        return Finding("not settled", says, measured)
    verdict: Verdict = "holds" if len(true) == len(found) else "holds only if" if true else "does not hold"
    return Finding(verdict, says, measured, _of(true) if verdict == "holds only if" else "")


def _of(true: Iterable[tuple[str, float]]) -> str:
    return "it is of " + " or ".join(
        f"{WHERE[kind]} once the loss is at {level:g} of its first" for kind, level in true
    )


def cured(found: Mapping[tuple[str, float], Measured], says: str) -> Finding:
    """Whether a share of the neglect is gone, where there is some.

    Args:
        found: the share that is gone, by the kind and level at which neglect counts.
        says: what was found.
    """
    if not found:
        return Finding("not settled", says, [NOTHING])
    gone = {key: True if m.ci95[0] >= HALF else False if m.ci95[1] < HALF else None for key, m in found.items()}
    if None in gone.values():
        return Finding("not settled", says, list(found.values()))
    verdict: Verdict = "holds" if all(gone.values()) else "holds only if" if any(gone.values()) else "does not hold"
    true = [
        f"{WHERE[kind]} once the loss is at {level:g} of its first" for (kind, level), answer in gone.items() if answer
    ]
    return Finding(
        verdict, says, list(found.values()), f"it is of {' or '.join(true)}" if verdict == "holds only if" else ""
    )


def _ratios(quick: bool) -> dict[tuple[str, float], Measured]:
    """How many times as large the loss on atypical samples is with momentum, by kind and level."""
    found = {}
    for kind in KINDS:
        each = _neglect(kind, quick)
        for i, level in enumerate(LEVELS):
            what = f"loss on {WHERE[kind]} where the loss is at {level:g} of its first, momentum over minibatch"
            found[kind, level] = times(what, (each["momentum"][0, :, i] - each["minibatch"][0, :, i]).tolist())
    return found


def _cost(kind: str, quick: bool) -> Measured:
    found = _neglect(kind, quick)
    paired = (found["momentum"][1] - found["minibatch"][1]).mean(1).tolist()
    where = {"rare": "on rare classes", "mislabelled": "where labels are right"}[kind]
    return mean(f"points of test accuracy {where} at one training loss, momentum - minibatch", paired)


def _neglects(quick: bool) -> Finding:
    ratios = _ratios(quick)
    on_rare, on_right = (_cost(kind, quick) for kind in KINDS)
    said = [f"{level:g}: {ratios['rare', level].said()} and {ratios['mislabelled', level].said()}" for level in LEVELS]
    says = (
        "At the same loss on all training examples and the same lr / (1 − β), the loss with momentum, as a multiple of "
        f"plain descent's on rare classes and on wrong labels, where the loss is at so much of its first, is at "
        f"{'; '.join(said)}. Over these, test accuracy is {on_rare.said('+.2f')} points higher on rare classes, and "
        f"{on_right.said('+.2f')} on rightly labelled examples where some are wrong."
    )
    return neglected(ratios, says, (on_rare, on_right))


def _cured(quick: bool) -> Finding:
    found = {}
    for (kind, level), ratio in _ratios(quick).items():
        if is_more(ratio, EFFECT, 1):
            each, i = _neglect(kind, quick), LEVELS.index(level)
            plain, heavy, ahead = (each[name][0, :, i] for name in ARMS)
            gone = (heavy - ahead) / (heavy - plain).mean()
            what = f"share of the neglect of {WHERE[kind]} that is gone, where the loss is at {level:g} of its first"
            found[kind, level] = mean(what, gone.tolist())
    said = [f"{m.said()} of that of {WHERE[kind]} at {level:g} of the first loss" for (kind, level), m in found.items()]
    taken = "; ".join(said) or "nothing, for there is none to speak of"
    says = f"Of momentum's neglect Nesterov's form takes away {taken}."
    return cured(found, says)


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
