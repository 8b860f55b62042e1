"""A small figure for each optimizer: its path in a ravine or, for rules of matrices, its loss, as inline SVG."""

import html
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradprix import optim, rules, schedule
from gradprix.explain import LANDSCAPES
from gradprix.explain.descent import descend
from gradprix.rules import Rule
from gradprix.show.palette import colour
from gradprix.tuning.learning_rate_grid import grid_between

STYLE = Path(__file__).parents[1] / "gallery" / "matplotlibrc"
STEPS = 60
RATES = grid_between(1e-3, 100.0)[::2]
RAVINE = LANDSCAPES["ravine"](condition=30, angle=20)
MATRICES = ("muon", "shampoo", "soap")
"""Rules that step whole matrices, for which points with two coordinates are no problem to show."""


@dataclass(frozen=True)
class Descent:
    """A descent with the learning rate of the lowest mean loss.

    Args:
        label: name in the legend and the caption.
        colour: `#rrggbb`.
        rate: learning rate.
        losses: loss before each step and at the end.
        points: points of a path, `[steps + 1, 2]`; None on the matrix problem.
    """

    label: str
    colour: str
    rate: float
    losses: list[float]
    points: torch.Tensor | None = None


def path(rule: Rule) -> str:
    """Return the figure of a rule beside another, as Markdown, with a caption that states the numbers."""
    is_matrix = rule.name in MATRICES
    descend_ = on_matrices if is_matrix else in_ravine
    label, shade = optim.from_rule(rule).__name__, colour(rule.name)
    pair = [descend_(rule, label, shade), descend_(rules.sgd, "gradient descent", colour("gd"))]
    if rule.name == "sgd":
        pair = [
            in_ravine(rule, "SGD", shade),
            in_ravine(rule, "SGD with momentum 0.9", colour("momentum"), momentum=0.9),
        ]
    problem = "on a least-squares problem of matrices" if is_matrix else "in a ravine of condition number 30"
    first, second = (f"{each.label} (lr={each.rate:g}, final loss {each.losses[-1]:.2g})" for each in pair)
    caption = f"{first} and {second}: {STEPS} steps {problem}."
    with mpl.rc_context({"savefig.bbox": "standard", "figure.constrained_layout.use": False}, fname=STYLE):
        figure = Figure(figsize=(5.8, 2.5))
        place = (0.1, 0.18, 0.88, 0.8) if is_matrix else (0.0, 0.0, 1.0, 1.0)
        (draw_losses if is_matrix else draw_paths)(figure.add_axes(place), pair)
        svg = inline_svg(figure, caption)
    return f'```{{raw}} html\n<figure class="path">{svg}<figcaption>{html.escape(caption)}</figcaption></figure>\n```'


@cache
def in_ravine(rule: Rule, label: str, shade: str, **fixed: float) -> Descent:
    """Descend in the ravine."""
    rates = torch.tensor(RATES, dtype=torch.float64)
    starts = torch.tensor(RAVINE.start, dtype=torch.float64).repeat(len(rates), 1)
    values = {**rule.values(**fixed), "lr": rates[:, None]}
    points, losses = descend([(rule, values)], RAVINE, STEPS, starts)
    row = int(losses[:, 0].mean(0).nan_to_num(float("inf")).argmin())
    return Descent(label, shade, float(rates[row]), losses[:, 0, row].tolist(), points[:, 0, row])


@cache
def on_matrices(rule: Rule, label: str, shade: str) -> Descent:
    """Minimize ½ ‖A X B − C‖², with A and B of condition number 10, under cosine decay."""
    generator = torch.Generator().manual_seed(0)
    a, b = (_ill_conditioned(8, generator) for _ in range(2))
    c = torch.randn(8, 8, dtype=torch.float64, generator=generator)
    best = Descent(label, shade, 0.0, [float("inf")])
    for rate in RATES[4:-2]:
        x = torch.nn.Parameter(torch.zeros(8, 8, dtype=torch.float64))
        with warnings.catch_warnings(action="ignore"):  # Muon asks for the model, to find matrices
            optimizer, losses = optim.from_rule(rule)([x], lr=rate, weight_decay=0.0), []
        factor = schedule("cosine", STEPS)
        for step in range(STEPS + 1):
            optimizer.param_groups[0]["lr"] = rate * factor(step)
            optimizer.zero_grad()
            loss = 0.5 * (a @ x @ b - c).square().sum()
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
        best = Descent(label, shade, rate, losses) if sum(losses) < sum(best.losses) else best
    return best


def _ill_conditioned(size: int, generator: torch.Generator) -> torch.Tensor:
    """Return a random matrix with singular values from 1 to 0.1."""
    u, v = (torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0] for _ in range(2))
    return u @ torch.diag(torch.logspace(0, -1, size, dtype=torch.float64)) @ v


def draw_paths(axes: Axes, descents: Sequence[Descent]) -> None:
    """Draw paths on the contours of the ravine, the last one below the others."""
    x, y, loss = RAVINE.grid(41)
    axes.contour(x, y, loss.sqrt(), 9, colors="#9a9a9a", linewidths=0.8, alpha=0.8)
    for descent in reversed(descents):
        axes.plot(*descent.points.T, ".-", color=descent.colour, label=descent.label, linewidth=1.4, markersize=4)
    axes.plot(0, 0, "+", color="#767676", markersize=9)
    axes.set(xlim=RAVINE.box[0], ylim=(-2.7, 1.3), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.legend(loc="upper right", fontsize=9)


def draw_losses(axes: Axes, descents: Sequence[Descent]) -> None:
    """Draw losses against steps."""
    for descent in reversed(descents):
        axes.semilogy(descent.losses, color=descent.colour, label=descent.label)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(loc="upper right", fontsize=9)


def inline_svg(figure: Figure, alt: str) -> str:
    """Return a figure as an SVG element for a page, with a description for screen readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", re.sub(r"\s+", " ", text[text.index("<svg") :]))
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)
