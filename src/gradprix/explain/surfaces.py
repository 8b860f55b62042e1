"""Families of landscapes that are written as formulas, like rules, from which Python and JavaScript are generated."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradprix.rules.codegen import compile_function, to_source
from gradprix.rules.ir import Tree
from gradprix.rules.javascript import Names, assignments
from gradprix.rules.ops import is_number
from gradprix.rules.parser import parse

from .differentiation import with_derivatives
from .landscape import Box, Landscape

VARIABLES = ("x", "y")


def exp(a: Any) -> Any:
    """Return the exponential function."""
    return math.exp(a) if is_number(a) else a.exp()


def tanh(a: Any) -> Any:
    """Return the hyperbolic tangent."""
    return math.tanh(a) if is_number(a) else a.tanh()


def sin(a: float) -> float:
    """Return the sine of a number."""
    return math.sin(a)


def cos(a: float) -> float:
    """Return the cosine of a number."""
    return math.cos(a)


FUNCTIONS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (exp, tanh, sin, cos)}


@dataclass(frozen=True)
class Formula:
    """Loss as a formula, with the values of its parameters: a function of points `[..., 2]` with a `gradient`.

    Args:
        surface: the family.
        parameters: values of the parameters of the formula.
    """

    surface: "Surface"
    parameters: tuple[tuple[str, float], ...]

    def __call__(self, points: Tensor) -> Tensor:
        """Return the loss at some points, `[..., 2] -> [...]`."""
        value: Tensor = self._evaluate(self.surface.value, points)[0]
        return value

    def gradient(self, points: Tensor) -> Tensor:
        """Return the gradient at some points, `[..., 2] -> [..., 2]`."""
        return torch.stack(self._evaluate(self.surface.gradient, points), -1)

    def _evaluate(self, function: Callable[..., Any], points: Tensor) -> Any:
        return function(SimpleNamespace(**dict(self.parameters)), *points.unbind(-1))


@dataclass(frozen=True, eq=False)
class Surface:
    """Family of landscapes, with one for each choice of its parameters.

    Args:
        name: short identifier.
        tree: parsed formula.
        parameters: default values of its parameters.
        box: region to show.
        start: default starting point.
        minima: known global minima.
        noise: default standard deviation of the gradient noise; None if it is not a parameter and the gradient exact.
        about: description in one sentence, in which `{condition:g}` stands for a parameter.
    """

    name: str
    tree: Tree = field(repr=False)
    parameters: Mapping[str, float]
    box: Box
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    noise: float | None
    about: str
    known: dict[tuple[float, ...], Landscape] = field(default_factory=dict, repr=False)

    def __call__(self, *given: float, **named: float) -> Landscape:
        """Return the landscape for some values of the parameters; equal calls return the same object."""
        bound = self.__signature__.bind(*given, **named)
        bound.apply_defaults()
        values = {name: float(value) for name, value in bound.arguments.items()}
        key = tuple(values.values())
        if key not in self.known:
            about, noise = self.about.format(**values), values.pop("noise", 0.0)
            formula = Formula(self, tuple(values.items()))
            self.known[key] = Landscape(self.name, formula, self.box, self.start, self.minima, noise, about)
        return self.known[key]

    @cached_property
    def __signature__(self) -> inspect.Signature:
        defaults = {**self.parameters, **({} if self.noise is None else {"noise": self.noise})}
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([inspect.Parameter(name, kind, default=value) for name, value in defaults.items()])

    @cached_property
    def derivatives(self) -> Tree:
        """Tree of the partial derivatives."""
        return with_derivatives(self.tree, VARIABLES)

    @cached_property
    def value(self) -> Callable[..., Any]:
        """Function `value(h, x, y)` that returns a tuple with the loss."""
        return self._compile(self.tree)

    @cached_property
    def gradient(self) -> Callable[..., Any]:
        """Function `gradient(h, x, y)` that returns both partial derivatives."""
        return self._compile(self.derivatives)

    def _compile(self, tree: Tree) -> Callable[..., Any]:
        lines = [f"{assign.name} = {to_source(assign.value)}" for assign in tree.assigns]
        lines.append(f"return ({''.join(f'{name}, ' for name in tree.returns)})")
        return compile_function(self.name, ("h", *VARIABLES), lines, FUNCTIONS)

    def javascript(self) -> dict[str, str]:
        """Return the source of JavaScript functions, `value(h, x, y)` and `gradient(h, x, y)`, which returns a pair."""
        return {"value": _function(self.tree), "gradient": _function(self.derivatives)}


def _function(tree: Tree) -> str:
    known = Names(1, set())
    lines = ["const x$0 = x, y$0 = y;", *assignments(tree, known)]
    results = [known.constants(name)[0] for name in tree.returns]
    returned = results[0] if len(results) == 1 else f"[{', '.join(results)}]"
    lines.append(f"return {returned};")
    return "\n".join(["function (h, x, y) {", *(f"  {line}" for line in lines), "}"])


def surface(
    box: Box,
    start: tuple[float, float],
    minima: tuple[tuple[float, float], ...] = (),
    noise: float | None = None,
    about: str = "",
    **parameters: float,
) -> Callable[[Callable[..., Any]], Surface]:
    """Create a family of landscapes from a function `(h, x, y) -> value`; used as a decorator.

    The function is written like a rule: assignments in the closed vocabulary, to which `exp`, `tanh`, and `sin` and
    `cos` of parameters are added. `h` holds the parameters.

    Args:
        box: region to show, `((x low, x high), (y low, y high))`.
        start: default starting point.
        minima: known global minima.
        noise: default standard deviation of the gradient noise; None for exact gradients.
        about: description in one sentence, in which `{condition:g}` stands for a parameter.
        **parameters: default values of the parameters.

    Raises:
        RuleError: if the function uses a construct that rules do not support.
    """

    def make(function: Callable[..., Any]) -> Surface:
        tree = parse(function, parameters, given=("h", *VARIABLES), more=dict.fromkeys(FUNCTIONS, 1))
        made = Surface(function.__name__, tree, parameters, box, start, minima, noise, about)
        made.__dict__["__doc__"] = inspect.getdoc(function)
        return made

    return make
