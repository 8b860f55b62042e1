"""Two-dimensional test functions for optimizers."""

from .surfaces import Surface, cos, exp, sin, surface, tanh


@surface(
    box=((-2.5, 2.5), (-2.5, 2.5)),
    start=(-2.0, 1.2),
    minima=((0.0, 0.0),),
    about="A round bowl: all directions have the same curvature.",
    curvature=1.0,
)
def bowl(h, x, y):
    """Isotropic bowl, ½ c (x² + y²): gradient descent converges for η < 2 / c and diverges above."""
    value = 0.5 * h.curvature * (x**2 + y**2)
    return value


# κ is the ratio of the largest to the smallest curvature, and the angle is in degrees: learning rates per coordinate
# help only if the ravine is parallel to an axis.
@surface(
    box=((-5.0, 2.5), (-2.5, 2.5)),
    start=(-4.2, 0.9),
    minima=((0.0, 0.0),),
    about="A ravine, {condition:g} times as steep across as along.",
    condition=30.0,
    angle=0.0,
)
def ravine(h, x, y):
    """Anisotropic quadratic, ½ (u² + κ v²): curvature differs by a factor κ between the axes u and v."""
    turn = h.angle * (3.141592653589793 / 180)
    u = cos(turn) * x + sin(turn) * y
    v = cos(turn) * y - sin(turn) * x
    value = 0.5 * (u**2 + h.condition * v**2)
    return value


@surface(
    box=((-2.0, 2.0), (-1.0, 3.0)),
    start=(-1.2, 1.0),
    minima=((1.0, 1.0),),
    about="A curved ravine with an almost flat floor: the direction of descent keeps changing.",
)
def rosenbrock(h, x, y):
    """Rosenbrock function, (1 − x)² + 100 (y − x²)² (Rosenbrock 1960, doi:10.1093/comjnl/3.3.175)."""
    value = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    return value


@surface(
    box=((-2.0, 4.5), (-2.0, 2.5)),
    start=(1.0, 1.5),
    minima=((3.0, 0.5),),
    about="Flat in the middle, very steep at the corners: gradients of very different sizes.",
)
def beale(h, x, y):
    """Beale function, (1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)² (Beale 1958)."""
    value = (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2
    return value


@surface(
    box=((-6.0, 6.0), (-6.0, 6.0)),
    start=(-0.3, -1.0),
    minima=((3.0, 2.0), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848126)),
    about="Four minima of equal depth: which one is reached depends on starting point and optimizer.",
)
def himmelblau(h, x, y):
    """Himmelblau function, (x² + y − 11)² + (x + y² − 7)² (Himmelblau 1972)."""
    value = (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2
    return value


@surface(
    box=((-2.0, 2.0), (-2.2, 2.2)),
    start=(-1.5, 0.01),
    minima=((0.0, 2**0.5), (0.0, -(2**0.5))),
    about="A saddle: descent leads to a point from which the way down is sideways and almost flat.",
)
def saddle(h, x, y):
    """Saddle at the origin, x² − y² + y⁴ / 4, with minima at y = ±√2."""
    value = x**2 - y**2 + 0.25 * (y**2) ** 2
    return value


@surface(
    box=((-5.0, 5.0), (-5.0, 5.0)),
    start=(-4.0, 2.5),
    minima=((0.0, 0.0),),
    about="A minimum in a plateau: far from it the gradient almost vanishes.",
)
def plateau(h, x, y):
    """Hole in a plateau, 1 − exp(−(x² + y²) / 2) plus a slight slope: gradients vanish far from the minimum."""
    r = x**2 + y**2
    value = 1 - exp(-0.5 * r) + 5e-4 * r
    return value


@surface(
    box=((-4.0, 5.0), (-3.0, 3.0)),
    start=(-3.0, 1.5),
    minima=((3.0, 0.0),),
    about="A cliff in a gentle slope: one gradient is many times as large as all others.",
)
def cliff(h, x, y):
    """Gentle slope that ends in a cliff, 3 / (1 + exp(12 (x + 1))): the gradient there is fifty times larger."""
    value = 0.05 * (x - 3) ** 2 + 0.2 * y**2 + 1.5 * (1 - tanh(6 * (x + 1)))
    return value


# The noise is that of each coordinate; a batch of b examples has 1 / √b of the noise of one example.
@surface(
    box=((-2.5, 2.5), (-2.0, 2.0)),
    start=(-2.0, 1.2),
    minima=((0.0, 0.0),),
    noise=0.5,
    about="A bowl with noisy gradients, as from small batches: which optimizers converge?",
)
def noisy(h, x, y):
    """Quadratic ½ (x² + 4 y²) with gradient noise, as from mini-batches."""
    value = 0.5 * (x**2 + 4 * y**2)
    return value


LANDSCAPES: dict[str, Surface] = {
    each.name: each for each in (bowl, ravine, rosenbrock, beale, himmelblau, saddle, plateau, cliff, noisy)
}
"""The landscapes by name, as functions of their parameters; `bowl`, `ravine` and `noisy` have some."""
