"""What momentum does with atypical samples: rare classes and wrong labels, at one training loss."""

from collections.abc import Sequence
from functools import cache
from math import log

import numpy as np
import torch
from torch import Tensor

from gradprix.race._trial import Trial
from gradprix.tasks import Data, Task

from ._claim import Claim, Finding, Measured, Verdict, mean
from ._net_lane import STEADY, Training, is_more, seeds, times, trial, tuned

ALPHA = 0.05
N = 64
EFFECT = 1.1
"""A loss on atypical samples a tenth larger, at the same loss on all, is neglect."""
BETA = 0.9
PASSES = 30
"""At most: it ends when all have come down to the last level."""
EVERY = 4
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
def _neglect(kind: str, quick: bool) -> dict[str, tuple[list[float], list[float]]]:
    """For each arm what its networks are at the levels, one a seed: two of them, as `_at_levels` has it.

    All arms see the same batches from the same weights, and move as far in the end by each gradient: lr / (1 − β) is
    the best rate of plain descent.
    """
    task, known = KINDS[kind], seeds(quick, N // 2 if quick else N)
    rate = tuned(task, ("minibatch",), quick, by="train")["minibatch"]
    arms = [trial(task, name, rate if name == "minibatch" else rate * (1 - BETA), s) for name in ARMS for s in known]
    found = np.array(_at_levels(kind, task, arms)).reshape(2, len(ARMS), -1)
    return {name: (found[0, i].tolist(), found[1, i].tolist()) for i, name in enumerate(ARMS)}


def _at_levels(kind: str, task: Task, arms: Sequence[Trial]) -> tuple[list[float], list[float]]:
    """Where each network's training loss is at a level, mean over levels.

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


def at_levels(every: np.ndarray, value: np.ndarray) -> float:
    """What something is where the loss on all first falls to a level; mean over levels.

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
    return sum(found) / len(found)


def on_both(rare: Measured, wrong: Measured, says: str, others: Sequence[Measured] = ()) -> Finding:
    """A claim about atypical samples of both kinds, judged by how much larger one loss is than another on each.

    Args:
        rare: their ratio on rare classes.
        wrong: likewise, on wrong labels.
        says: what was found.
        others: what else was measured.
    """
    answers = {"rare classes": is_more(rare, EFFECT, 1), "wrong labels": is_more(wrong, EFFECT, 1)}
    true = [kind for kind, answer in answers.items() if answer]
    measured = [rare, wrong, *others]
    if None in answers.values():
        return Finding("not settled", says, measured)
    verdict: Verdict = "holds" if len(true) == 2 else "holds only if" if true else "does not hold"
    return Finding(verdict, says, measured, f"they are {true[0]}" if len(true) == 1 else "")


def _ratio(kind: str, above: str, below: str, quick: bool) -> Measured:
    found = _neglect(kind, quick)
    paired = np.subtract(found[above][0], found[below][0]).tolist()
    where = {"rare": "rare classes", "mislabelled": "wrong labels"}[kind]
    return times(f"loss on {where} at one training loss, {above} over {below}", paired)


def _cost(kind: str, quick: bool) -> Measured:
    found = _neglect(kind, quick)
    paired = np.subtract(found["momentum"][1], found["minibatch"][1]).tolist()
    where = {"rare": "on rare classes", "mislabelled": "where labels are right"}[kind]
    return mean(f"points of test accuracy {where} at one training loss, momentum - minibatch", paired)


def _neglects(quick: bool) -> Finding:
    rare, wrong = (_ratio(kind, "momentum", "minibatch", quick) for kind in KINDS)
    on_rare, on_right = (_cost(kind, quick) for kind in KINDS)
    says = (
        "At the same loss on all training examples and the same lr / (1 − β), the loss with momentum is "
        f"{rare.said()} times that of plain descent on rare classes, and {wrong.said()} times on wrong labels. Test "
        f"accuracy is {on_rare.said('+.2f')} points higher on rare classes, and {on_right.said('+.2f')} on rightly "
        "labelled examples where some are wrong."
    )
    return on_both(rare, wrong, says, (on_rare, on_right))


def _cured(quick: bool) -> Finding:
    rare, wrong = (_ratio(kind, "momentum", "nesterov", quick) for kind in KINDS)
    says = (
        f"At the same loss on all training examples, the loss of heavy-ball momentum is {rare.said()} times that of "
        f"Nesterov's on rare classes, and {wrong.said()} times on wrong labels."
    )
    return on_both(rare, wrong, says)


_HOW = (
    f"The ratio of the losses on atypical samples, where the loss on all has come down to "
    f"{', '.join(map(str, LEVELS))} of its first value, over {N} paired seeds, once with a few rare classes and once "
    f"with {100 * WRONG:.0f} % wrong labels. It counts if its 95 % interval is above 1 and it is {EFFECT} or more. "
    f"Holds if it counts for both, only for one if for one, and does not hold if both intervals are below {EFFECT}."
)
CLAIMS = (
    Claim(
        id="momentum-neglects-atypical-samples",
        account="Momentum may ignore atypical samples and outliers, which can cost accuracy.",
        prediction="At the same training loss, from the same weights and batches and at the same lr / (1 − β), the "
        "loss on rare classes and on wrongly labelled training samples is larger with momentum than without.",
        decides=_HOW,
        run=_neglects,
        on="networks",
    ),
    Claim(
        id="acceleration-cures-neglect",
        account="An acceleration term (Nesterov's) mitigates that neglect.",
        prediction="In the same runs, heavy-ball momentum has a larger loss on atypical samples than Nesterov's.",
        decides=_HOW,
        run=_cured,
        on="networks",
    ),
)
