"""Steps to a target as a function of the batch size, and the critical batch size.

With S steps and E = B S examples at batch size B, (S / Smin − 1)(E / Emin − 1) = 1, so that S = Smin (1 + Bcrit / B)
with Bcrit = Emin / Smin (McCandlish et al. 2018, arXiv:1812.06162).
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares


def fit_critical_batch(sizes: Sequence[float], steps: Sequence[float]) -> tuple[float, float]:
    """Fit S = Smin (1 + Bcrit / B) by least squares in the logarithm, and return Smin and Bcrit.

    Args:
        sizes: batch sizes.
        steps: number of steps to the target at each.

    Example:
        >>> smin, critical = fit_critical_batch([1, 10, 100], [1010, 110, 20])
        >>> round(smin, 3), round(critical, 3)
        (10.0, 100.0)
    """
    size, target = np.asarray(sizes, dtype=np.float64), np.log(steps)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        return parameters[0] + np.logaddexp(0, parameters[1] - np.log(size)) - target

    start = np.array([target.min(), np.median(np.log(size))])
    log_steps, log_critical = least_squares(residuals, start).x
    return float(np.exp(log_steps)), float(np.exp(log_critical))


def interpolate_optimum(log_rates: np.ndarray, log_steps: np.ndarray) -> tuple[float, float]:
    """Return the log learning rate with the fewest steps and the log number of steps there, from a parabola.

    The parabola passes through the best grid point and its neighbours, which are equally spaced; where a neighbour has
    not reached the target, the grid point is returned.
    """
    i = int(np.argmin(log_steps))
    if not 0 < i < len(log_steps) - 1 or not np.isfinite(log_steps[i - 1 : i + 2]).all():
        return float(log_rates[i]), float(log_steps[i])
    below, best, above = log_steps[i - 1 : i + 2]
    curvature = below - 2 * best + above
    shift = 0.0 if curvature <= 0 else 0.5 * (below - above) / curvature
    return float(log_rates[i] + shift * (log_rates[i + 1] - log_rates[i])), float(best - 0.25 * (below - above) * shift)
