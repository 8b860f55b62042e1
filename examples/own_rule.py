"""An optimizer of your own, as a rule of a few lines.  python examples/own_rule.py

The rule divides the momentum by the largest gradient of the last steps, so that no
step is longer than the learning rate.
"""

import matplotlib.pyplot as plt

import gradprix as gp
from gradprix.explain import LANDSCAPES, trace
from gradprix.rules import log, maximum, rule
from gradprix.show.palette import colour


@rule(
    "made up for this example",
    relation="Adamax with momentum that is not bias-corrected.",
    space={"lr": log(1e-4, 1e-1)},
    lr=1e-3,
    beta=0.9,
    decay=0.99,
    eps=1e-8,
    state={"m": "momentum", "u": "largest"},
)
def bounded(h, t, x, g, m, u):
    """Momentum in units of a decaying maximum of the gradient."""
    m = h.beta * m + (1 - h.beta) * g
    u = maximum(h.decay * u, abs(g) + h.eps)
    x = x - h.lr * m / u
    return x, m, u


def draw(file: str) -> None:
    """Draw the paths of the rule and of Adam in a ravine."""
    ravine = LANDSCAPES["ravine"](condition=30)
    x, y, loss = ravine.grid()
    figure, axis = plt.subplots(figsize=(7, 3))
    axis.contour(x, y, loss.sqrt(), 12, colors="grey", linewidths=0.5)
    for name, optimizer in (("bounded", bounded), ("adam", "adam")):
        path = trace(optimizer, ravine, 60, lr=0.1).x.points
        axis.plot(*path.T, ".-", color=colour(name), label=name)
    axis.legend(frameon=False)
    figure.savefig(file, bbox_inches="tight")


if __name__ == "__main__":
    print("\n".join(gp.rules.formula(bounded)))
    entries = [gp.Entry("bounded", bounded), "adam", "adamax"]
    few = {"trials": 13, "seeds": 8, "out": "runs/own-rule"}
    result = gp.race("digits", entries, **few)
    print(result)
    draw("own_rule.svg")
