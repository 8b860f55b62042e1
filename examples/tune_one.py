"""Tune one optimizer: a learning rate, its tolerance, and what the default costs.

python examples/tune_one.py
"""

import matplotlib.pyplot as plt

import gradprix as gp
from gradprix.show.palette import colour


def draw(result: gp.TuneResult, file: str) -> None:
    """Draw the accuracy of each tuning run and the learning-rate tolerance."""
    runs = result.runs
    figure, axis = plt.subplots(figsize=(7, 3))
    axis.axvspan(*result.tolerance, color=colour("adamw"), alpha=0.15, linewidth=0)
    axis.semilogx(runs["lr"], 100 * runs["metric"], "o", color=colour("adamw"))
    axis.axvline(1e-3, color="grey", linestyle="--", label="default")
    axis.set(xlabel="learning rate", ylabel="accuracy (%)", ylim=(85, 100))
    axis.legend(frameon=False)
    figure.savefig(file, bbox_inches="tight")


if __name__ == "__main__":
    result = gp.tune("digits", "adamw", out="runs/tune/digits")
    print(result)
    print(result.best.code)
    low, high = result.tolerance
    print(f"The learning rate may be off by a factor of {(high / low) ** 0.5:.1f}.")
    draw(result, "tune_one.svg")
