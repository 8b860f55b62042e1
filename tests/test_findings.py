"""What is known of optimizers comes out in races: limits of one rule in another, and edges of stability."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradprix as gp
from gradprix import tasks
from gradprix.race import ENTRIES
from gradprix.stats.verdict import PairVerdict
from gradprix.training.trainer import train_stack
from gradprix.training.trial import Trial


@gp.rule(
    "Polyak 1964, doi:10.1016/0041-5553(64)90137-5, with the bias correction of Adam",
    relation="Adam whose eps is much larger than any gradient.",
    space={"lr": gp.log(1e-3, 1e-1)},
    lr=1e-2,
    momentum=0.9,
    state={"b": "momentum_buffer"},
)
def corrected_momentum(h, t, x, g, b):
    """Momentum, corrected for starting at zero."""
    b = h.momentum * b + g
    x = x - h.lr / (1 - h.momentum**t) * b
    return x, b


def test_adam_with_a_huge_eps_is_momentum_curve_for_curve() -> None:
    eps, beta1 = 1e8, 0.9
    scale = eps / (1 - beta1)  # nine decades: the ladder's rates are the same numbers, nine decades up
    adam = gp.Entry("adam", gp.rules.adam, {"eps": eps}, {"lr": gp.log(scale * 1e-3, scale * 1e-1)})
    momentum = gp.Entry("momentum", corrected_momentum)
    result = gp.race("digits", [adam, momentum], trials=6, seeds=8, epochs=4)

    first, second = result.record.entries
    assert first.tuned["lr"] == pytest.approx(scale * second.tuned["lr"])
    a, b = (np.array(result.record.curves[name].train_loss) for name in ("adam", "momentum"))
    assert a.shape == (8, 4)
    assert a == pytest.approx(b, rel=2e-3)
    assert a[:, 0] == pytest.approx(b[:, 0], rel=1e-5), "rounding has not yet grown"
    assert result.record.verdict.pairs[0].verdict in (PairVerdict.TIES, PairVerdict.INCONCLUSIVE)


CURVATURE = (1.0, 10.0, 40.0)


class Bowl(nn.Module):
    """Half the sum of curvature times squared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(1 + torch.rand(len(CURVATURE), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (torch.tensor(CURVATURE, dtype=torch.float64) * self.w**2).sum() + 0 * x.sum(-1)


def mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


BOWL = tasks.Task(
    "bowl",
    Bowl,
    mean,
    tasks.Metric("loss", mean, higher_is_better=False, margin=0.1),
    0.0,
    lambda: tasks.Data(torch.zeros(10, 1, dtype=torch.float64), torch.zeros(10)),
    batch_size=10,
    epochs=1500,
    schedule="constant",
)


@pytest.mark.parametrize(("name", "beta"), [("minibatch", 0.0), ("momentum", 0.9), ("momentum", 0.5)])
def test_the_edge_of_stability_is_where_it_must_be(name: str, beta: float) -> None:
    edge = 2 * (1 + beta) / max(CURVATURE)  # Cohen et al. 2021, arXiv:2103.00065, section 2
    entry = gp.Entry("sgd", gp.rules.sgd, {"momentum": beta}) if beta else ENTRIES[name]
    trials = [
        Trial(entry.rule, entry.values(edge * factor), 1, 0, BOWL.epochs, "constant", False) for factor in (0.99, 1.01)
    ]
    below, above = train_stack(BOWL, trials)
    assert below.diverged is None
    assert below.valid_loss < 1e-6
    assert above.diverged is not None or above.valid_loss > 1e6
