"""Descents on a landscape of your own.  python examples/landscape.py"""

import matplotlib.pyplot as plt
import torch

from gradprix.explain import Landscape, trace, tuned
from gradprix.show.palette import colour


def value(x: torch.Tensor) -> torch.Tensor:
    """Return a curved valley with small bumps along its floor."""
    across = x[..., 1] - 0.3 * x[..., 0] ** 2
    along = x[..., 0] - 2
    bumps = 0.15 * (1 - (3 * x[..., 0]).cos())
    return 8 * across**2 + 0.3 * along**2 + bumps


valley = Landscape("valley", value, box=((-3.2, 3), (-0.8, 3.2)), start=(-2.8, 2.9))

if __name__ == "__main__":
    x, y, loss = valley.grid()
    figure, axis = plt.subplots(figsize=(7, 4))
    axis.contour(x, y, loss.sqrt(), 14, colors="grey", linewidths=0.5)
    for name in ("gd", "momentum", "rmsprop", "adam"):
        lr = tuned(name, valley, 100)
        run = trace(name, valley, 100, lr=lr)
        print(f"{name:9} lr = {lr:<6g} loss after 100 steps: {run.losses[-1]:.3g}")
        axis.plot(*run.x.points.T, ".-", color=colour(name), label=name)
    axis.set(xlabel="first weight", ylabel="second weight")
    axis.legend(frameon=False)
    figure.savefig("landscape.svg", bbox_inches="tight")
