"""Generalization of adaptive methods on the separable data of Wilson et al. 2017 (arXiv:1705.08292, section 3.3).

The label of an example is its first feature. The next two features are always 1, and each example has features of its
own, one if its label is +1 and five if it is −1. Least squares has many solutions that fit the training examples. The
one of minimum norm relies on the first feature; the one with equal weights up to sign, which adaptive methods find from
zero, predicts the majority label for every new example.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from gradprix.claims.decisions import Answer, Decision, any_of, is_above, is_below
from gradprix.claims.estimates import Measured, exact, mean
from gradprix.claims.quadratics import final_point
from gradprix.claims.registry import Quantities
from gradprix.rules import ALL, Rule
from gradprix.show.figure import Chart
from gradprix.tasks.rng import stream

from .answers import conjunction
from .figures import interval_rows
from .registry import experiment

DRAWS, QUICK_DRAWS = 20, 4
EXAMPLES = 40
POSITIVE = 0.65  # probability of the label +1
STEPS, QUICK_STEPS = 2_000, 300
RATES = tuple(10 ** (k / 2) for k in range(-6, 2))
EPS = (1e-8, 1e-4, 1e-2, 1.0, 1e2)
DECAY = (1e-4, 1e-3, 1e-2, 1e-1)
FITS = 0.5  # largest residual on a training example with which a run fits the training set
WORSE = 0.1  # an error rate larger by ten in a hundred counts as worse

Setting = Mapping[str, float]


@dataclass(frozen=True)
class SeparableData:
    """Draws of the training set.

    Args:
        inputs: features, `[draws, EXAMPLES, 3 + 5 EXAMPLES]`.
        labels: +1 or −1, `[draws, EXAMPLES]`.
    """

    inputs: Tensor
    labels: Tensor

    def gradient(self, w: Tensor) -> Tensor:
        """Return the gradient of half the mean squared residual at weights `[..., draws, features]`."""
        residual = torch.einsum("nef,...nf->...ne", self.inputs, w) - self.labels
        return torch.einsum("nef,...ne->...nf", self.inputs, residual) / EXAMPLES

    def minimum_norm(self) -> Tensor:
        """Return the interpolating weights of minimum norm, `[draws, features]`."""
        return (torch.linalg.pinv(self.inputs) @ self.labels[..., None])[..., 0]

    def equal_weights(self) -> Tensor:
        """Return the interpolating weights that are equal up to sign, `[draws, features]` (lemma 3.1 of the paper)."""
        signs = (self.inputs.mT @ self.labels[..., None])[..., 0].sign()
        score = torch.einsum("nef,nf->ne", self.inputs, signs)
        return signs / (score / self.labels).mean(1, keepdim=True)


def draw_data(draws: int, seed: int = 0) -> SeparableData:
    """Draw training sets in which both labels occur and +1 is the more frequent one."""
    generator, labels = stream(seed, "separable data"), torch.empty(0, EXAMPLES, dtype=torch.float64)
    while len(labels) < draws:
        signs = torch.where(torch.rand(4 * draws, EXAMPLES, generator=generator) < POSITIVE, 1.0, -1.0).double()
        labels = torch.cat([labels, signs[(signs.mean(1) > 0) & (signs.mean(1) < 1)]])[:draws]
    own = torch.zeros(draws, EXAMPLES, EXAMPLES, 5, dtype=torch.float64)
    index = torch.arange(EXAMPLES)
    own[:, index, index, 0] = 1
    own[:, index, index, 1:] = (labels < 0).double()[..., None]
    shared = torch.stack([labels, torch.ones_like(labels), torch.ones_like(labels)], -1)
    return SeparableData(torch.cat([shared, own.flatten(2)], -1), labels)


def new_scores(w: Tensor) -> Tensor:
    """Return the scores of new examples with labels +1 and −1, `[2, ...]`; the weights of their own features are 0."""
    label = torch.tensor([1.0, -1.0], dtype=torch.float64).view(2, *[1] * (w.dim() - 1))
    scores: Tensor = label * w[..., 0] + w[..., 1] + w[..., 2]
    return scores


def test_error(w: Tensor) -> Tensor:
    """Return the probability that the label of a new example is predicted wrongly."""
    positive, negative = new_scores(w)
    return POSITIVE * (positive <= 0).double() + (1 - POSITIVE) * (negative >= 0).double()


def test_loss(w: Tensor) -> Tensor:
    """Return the expected squared error on a new example, by which settings are selected."""
    positive, negative = new_scores(w)
    loss = POSITIVE * (positive - 1).square() + (1 - POSITIVE) * (negative + 1).square()
    return loss.nan_to_num(float("inf"), float("inf"))


def train_selected(data: SeparableData, rule: Rule, settings: Sequence[Setting], steps: int) -> tuple[Tensor, Tensor]:
    """Train from zero with full batches under every setting, and select the best setting of each draw.

    Args:
        data: the training sets.
        rule: the optimizer.
        settings: values of the hyperparameters besides the learning rate. Each is combined with every learning rate,
            and the combination with the lowest expected loss on new examples is selected, of those that fit the
            training set. Without this condition, a run that oscillates can be selected for a lucky last step.
        steps: number of steps.

    Returns:
        The test error under the selected setting, `[draws]`, and the largest training residual under it, `[draws]`.
    """
    start = torch.zeros(len(RATES), len(data.labels), data.inputs.shape[-1], dtype=torch.float64)
    results = []
    for fixed in settings:
        # With an ε that dominates the second moment, a step is lr / ε times the gradient.
        rates = torch.tensor(RATES, dtype=torch.float64)[:, None, None] * max(1.0, 100 * fixed.get("eps", 0.0))
        results.append(final_point(rule, data.gradient, start, steps, lr=rates, **fixed))
    w = torch.cat(results)
    residual = (torch.einsum("nef,rnf->rne", data.inputs, w) - data.labels).abs().amax(-1)
    best = test_loss(w).where(residual <= FITS, torch.inf).argmin(0)
    draws = torch.arange(len(best))
    return test_error(w[best, draws]), residual[best, draws]


@cache
def train_arms(quick: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the results of `train_selected` by optimizer and by what is tuned besides the learning rate."""
    data, steps = draw_data(QUICK_DRAWS if quick else DRAWS), QUICK_STEPS if quick else STEPS
    decays = [{"weight_decay": 0.0}, *({"weight_decay": decay} for decay in DECAY)]
    arms: dict[str, tuple[str, Sequence[Setting]]] = {
        **{name: (name, [{}]) for name in ("sgd", "adagrad", "rmsprop", "adam")},
        "adam_eps": ("adam", [{"eps": eps} for eps in EPS]),
        "adam_l2": ("adam", decays),
        "adamw": ("adamw", decays),
    }
    return {arm: train_selected(data, ALL[name], settings, steps) for arm, (name, settings) in arms.items()}


def is_worse(*arms: Measured) -> Answer:
    """Return True if the test error of every arm is larger by `WORSE`, False if that of one is not, else None."""
    return conjunction(*(is_above(arm, WORSE) for arm in arms))


def decide(m: Quantities) -> Decision:
    """Return the verdict: whether adaptive methods are worse, by what is tuned."""
    if is_below(m["minimum_norm"], WORSE) is not True or is_above(m["equal_weights"], WORSE) is not True:
        return "inconclusive"
    return any_of(
        {
            "nothing but the learning rate is tuned": is_worse(m["adagrad"], m["rmsprop"], m["adam"]),
            "ε is tuned as well": is_worse(m["adam_eps"]),
            "an L2 penalty is tuned as well": is_worse(m["adam_l2"]),
            "decoupled weight decay is tuned as well": is_worse(m["adamw"]),
        }
    )


def draw(m: Quantities) -> Chart:
    """Draw the test error above that of gradient descent for each arm."""
    labels = {
        "adagrad": "AdaGrad",
        "rmsprop": "RMSProp",
        "adam": "Adam",
        "adam_eps": "Adam, ε tuned",
        "adam_l2": "Adam, L2 tuned",
        "adamw": "AdamW, decay tuned",
    }
    rows = {label: m[arm] for arm, label in labels.items()}
    title = "test error above that of gradient descent"
    return interval_rows("adaptive-methods-generalize-worse-on-separable-data", title, rows, 0.0)


@experiment("adaptive-methods-generalize-worse-on-separable-data", decide, draw=draw)
def measure(quick: bool) -> Quantities:
    """Compare the test errors of adaptive methods with that of gradient descent, in closed form and trained."""
    data, arms = draw_data(QUICK_DRAWS if quick else DRAWS), train_arms(quick)
    worse = {arm: mean((error - arms["sgd"][0]).numpy()) for arm, (error, _) in arms.items() if arm != "sgd"}
    return {
        **worse,
        "sgd": mean(arms["sgd"][0].numpy()),
        "minimum_norm": mean(test_error(data.minimum_norm()).numpy()),
        "equal_weights": mean(test_error(data.equal_weights()).numpy()),
        "residual": exact(max(float(arms[arm][1].max()) for arm in ("sgd", "adagrad", "rmsprop", "adam"))),
    }
