"""What momentum does with atypical samples: rare classes and wrong labels, at one training loss."""

from collections.abc import Sequence
from functools import cache
from math import log

import numpy as np
import torch
from torch import Tensor

from gradprix.race._trial import Trial
from gradprix.tasks import Data, Task

from ._claim import Claim, Finding, Measured, Verdict
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
    return _some(torch.cat(chosen))


def _some(index: Tensor) -> Data:
    return Data(STEADY.loaded.inputs[index], STEADY.loaded.targets[index], stratify=True)


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
def _neglect(kind: str, quick: bool) -> dict[str, list[float]]:
    """For each arm and seed, the logarithm of the loss on atypical samples, where the loss on all is at a level.

    All arms see the same batches from the same weights, and move as far in the end by each gradient: lr / (1 − β) is
    the best rate of plain descent.
    """
    task, known = KINDS[kind], seeds(quick, N)
    rate = tuned(task, ("minibatch",), quick, by="train")["minibatch"]
    arms = [trial(task, name, rate if name == "minibatch" else rate * (1 - BETA), s) for name in ARMS for s in known]
    return dict(zip(ARMS, np.array(_levels(kind, task, arms)).reshape(len(ARMS), -1).tolist(), strict=True))


def _levels(kind: str, task: Task, arms: Sequence[Trial]) -> list[float]:
    """The logarithm of each network's loss on atypical samples, where its loss on all is at a level; mean of levels."""
    training = Training(task, arms)
    lane = training.lane
    odd = _atypical(kind, task, lane.train)[lane.of_seed][: training.count].double()
    seen: list[tuple[Tensor, Tensor]] = []

    def look() -> None:
        each = training.losses(lane.train)
        seen.append((each.mean(1), (each * odd).sum(1) / odd.sum(1)))

    look()
    for t, _ in training.steps():
        if t % EVERY == 0:
            look()
            if (torch.stack([now for now, _ in seen]).amin(0) <= LEVELS[-1] * seen[0][0]).all():
                break
    every, atypical = (torch.stack(parts, 1).numpy() for parts in zip(*seen, strict=True))
    return [at_levels(*rows) for rows in zip(every, atypical, strict=True)]


def at_levels(every: np.ndarray, atypical: np.ndarray) -> float:
    """The logarithm of the loss on atypical samples where the loss on all first falls to a level; mean over levels.

    Between two looks it is interpolated, in logarithms. A network that does not come down to a level is taken at its
    lowest loss.

    Args:
        every: the loss on all examples, look after look.
        atypical: that on the atypical ones.
    """
    found = []
    for level in LEVELS:
        below = every <= level * every[0]
        i = int(below.argmax()) if below.any() else int(every.argmin())
        if i == 0 or not below.any():
            found.append(log(atypical[i]))
            continue
        share = log(every[i - 1] / (level * every[0])) / log(every[i - 1] / every[i])
        found.append((1 - share) * log(atypical[i - 1]) + share * log(atypical[i]))
    return sum(found) / len(found)


def on_both(rare: Measured, wrong: Measured, says: str) -> Finding:
    """A claim about atypical samples of both kinds, judged by how much larger one loss is than another on each.

    Args:
        rare: their ratio on rare classes.
        wrong: likewise, on wrong labels.
        says: what was found.
    """
    answers = {"rare classes": is_more(rare, EFFECT, 1), "wrong labels": is_more(wrong, EFFECT, 1)}
    true = [kind for kind, answer in answers.items() if answer]
    if None in answers.values():
        return Finding("not settled", says, [rare, wrong])
    verdict: Verdict = "holds" if len(true) == 2 else "holds only if" if true else "does not hold"
    return Finding(verdict, says, [rare, wrong], f"they are {true[0]}" if len(true) == 1 else "")


def _ratio(kind: str, above: str, below: str, quick: bool) -> Measured:
    found = _neglect(kind, quick)
    paired = np.subtract(found[above], found[below]).tolist()
    where = {"rare": "rare classes", "mislabelled": "wrong labels"}[kind]
    return times(f"loss on {where} at one training loss, {above} over {below}", paired)


def _neglects(quick: bool) -> Finding:
    rare, wrong = (_ratio(kind, "momentum", "minibatch", quick) for kind in KINDS)
    says = (
        "At the same loss on all training examples and the same lr / (1 − β), the loss with momentum is "
        f"{rare.said()} times that of plain descent on rare classes, and {wrong.said()} times "
        "on wrong labels."
    )
    return on_both(rare, wrong, says)


def _cured(quick: bool) -> Finding:
    rare, wrong = (_ratio(kind, "momentum", "nesterov", quick) for kind in KINDS)
    says = (
        "At the same loss on all training examples, the loss of heavy-ball momentum is "
        f"{rare.said()} times that of Nesterov's on rare classes, and {wrong.said()} times on "
        "wrong labels."
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
