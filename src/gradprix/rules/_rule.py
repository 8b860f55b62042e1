"""The `@rule` decorator: update function, source, defaults, state and search space of an optimizer."""

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from numbers import Real
from typing import Any, Literal

from gradprix.spaces import OWN_DECAY, USUAL, Axis

from ._form import check_form, location
from .ir import Call, Hyper, Reduction, Tree, walk
from .matrix_ops import MATRIX, PRODUCTS
from .ops import Value
from .parser import RuleError, Scope, parse

PREPROCESSING: dict[str, float | bool] = {"weight_decay": 0.0, "maximize": False, "decoupled_weight_decay": False}
"""Hyperparameters of the gradient preprocessing, with defaults. For rules that themselves use `weight_decay`, the
preprocessing applies no weight decay."""

DOMAINS: dict[str, tuple[float, float]] = dict.fromkeys(("beta1", "beta2", "alpha", "rho", "momentum"), (0.0, 1.0))
"""Half-open ranges [low, high) of hyperparameters; all others are non-negative."""
ANY = (0.0, float("inf"))


@dataclass(frozen=True)
class State:
    """State variable of a rule.

    Args:
        key: key in torch's state dict.
        kind: `"element"` for a tensor of the shape of the parameter, `"scalar"` for one number per parameter. State of
            other kinds exists for some parameters only, and is None in the rule's function for all others (see
            `exists`): `"vector"` for parameters with fewer than two dimensions, in their shape; `"rows"` and
            `"columns"` for all others, with the last or the second last dimension of size 1; `"rows×rows"` and
            `"columns×columns"`, square matrices for parameters as matrices with one row per index of their first
            dimension.
        limit: hyperparameter with the largest number of rows or columns of a square matrix; it does not exist for
            larger parameters.
        init: initial value: a number, `"x"` (the parameter), `"g"` (its first gradient), or a hyperparameter's name.
        when: hyperparameter that enables the state; the state does not exist if its value is false or zero.
        shared: True for a scalar that the tensors of a parameter group have in common. It is stored in the group under
            `key`, and may depend on hyperparameters, reductions over the group, and other shared state.
        stored: function `stored(h, **state)` that converts the state to torch's form, if torch stores another quantity.
        loaded: function `loaded(h, **state)` that converts the state back from torch's form.
    """

    key: str
    kind: Literal["element", "scalar", "vector", "rows", "columns", "rows×rows", "columns×columns"] = "element"
    init: float | str = 0.0
    when: str | None = None
    shared: bool = False
    stored: Callable[..., Value] | None = None
    loaded: Callable[..., Value] | None = None
    limit: str | None = None

    def shape(self, of: tuple[int, ...], values: Mapping[str, Any]) -> tuple[int, ...] | None:
        """Return the shape of this state for a parameter, or None if the parameter has no such state.

        Args:
            of: shape of the parameter.
            values: all hyperparameters.
        """
        if self.kind in ("element", "scalar", "vector"):
            return () if self.kind == "scalar" else None if self.kind == "vector" and len(of) > 1 else of
        if len(of) < 2:
            return None
        if self.kind in ("rows", "columns"):
            return (*of[:-1], 1) if self.kind == "rows" else (*of[:-2], 1, of[-1])
        side = of[0] if self.kind == "rows×rows" else math.prod(of[1:])
        return None if self.limit and side > values[self.limit] else (side, side)


@dataclass(frozen=True, eq=False)
class Rule:
    """Update rule of an optimizer, `rule(h, t, x, g, *state) -> (x, *state)`, with its metadata.

    `h` holds the hyperparameters, `t` is the step number from 1, `x` the parameter and `g` its gradient.
    All implementations are derived from `tree`, which is parsed from the source code of the function. Use the decorator
    `rule` to create a rule.

    Args:
        name: name of the rule, which is that of its function.
        function: the function.
        source: reference, with equation or algorithm number.
        summary: first line of the function's docstring.
        relation: sentence that relates the rule to another rule.
        hyperparameters: default values of all hyperparameters, including those of the gradient preprocessing.
        state: state variables, by name.
        space: search spaces for tuning that the rule defines, by hyperparameter; `axes` adds default search spaces.
        tree: the parsed function.
        scope: `"element"` for an elementwise rule, `"tensor"` for a rule on whole tensors.
        domains: half-open ranges of those hyperparameters whose range differs from the default one.
        evaluate: function that returns the evaluation point; None if it is the training point.
        evaluation: the parsed `evaluate`, or None.
        counts_steps: True if the number of steps is stored for each parameter.
        tuples: names of the hyperparameters that torch combines into one argument, by the name of that argument. The
            betas are combined without being listed.
        tuned: hyperparameters that are worth tuning besides the learning rate, the most important first.
        composition: function, rule and keyword arguments from which a modified rule or a variant was made, or None.
    """

    name: str
    function: Callable[..., tuple[Value, ...]]
    source: str
    summary: str
    relation: str
    hyperparameters: Mapping[str, float | bool]
    state: Mapping[str, State]
    space: Mapping[str, Axis]
    tree: Tree
    scope: Scope = "element"
    domains: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    evaluate: Callable[..., Value] | None = None
    evaluation: Tree | None = None
    counts_steps: bool = True
    tuned: tuple[str, ...] = ()
    tuples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    composition: "tuple[Callable[..., Rule], Rule, tuple[tuple[str, Any], ...]] | None" = None

    def __call__(self, h: Any, t: int, x: Value, g: Value, *state: Value) -> tuple[Value, ...]:
        """Perform one step by calling the rule's function.

        Args:
            h: namespace with the hyperparameters as attributes.
            t: number of the step, from 1.
            x: the parameter.
            g: its gradient.
            *state: all state variables in order; None for those that these hyperparameters disable.

        Returns:
            A tuple of the new parameter and the new state.
        """
        after = self.function(h, t, x, g, *state)
        return after if isinstance(after, tuple) else (after,)

    def __repr__(self) -> str:
        return f"<rule {self.name}: {self.summary}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.composition is not None:
            return _compose, self.composition
        # Pickled by name, as functions are, if it can be imported; rules of scripts and notebooks are pickled by value.
        module = self.function.__module__
        if module != "__main__" and getattr(sys.modules.get(module), self.name, None) is self:
            return _import_rule, (module, self.name)
        return super().__reduce_ex__(protocol)

    @cached_property
    def owns_weight_decay(self) -> bool:
        """True if the rule itself applies weight decay, as AdamW does."""
        return any(Hyper("weight_decay") in walk(assign.value) for assign in self.tree.assigns)

    @cached_property
    def is_matrix_rule(self) -> bool:
        """True if the rule applies to matrices only, as Muon does."""
        return not self._functions.isdisjoint(MATRIX)

    @cached_property
    def has_products(self) -> bool:
        """True if the rule multiplies or decomposes matrices in the precision of the parameter."""
        return not self._functions.isdisjoint(PRODUCTS)

    @cached_property
    def _functions(self) -> frozenset[str]:
        """Operators and names of the functions that the rule calls."""
        nodes = (node for assign in self.tree.assigns for node in walk(assign.value))
        return frozenset(node.function for node in nodes if isinstance(node, Call))

    @cached_property
    def reductions(self) -> frozenset[Reduction]:
        """All reductions of the rule. Without any, an elementwise rule updates each element on its own."""
        nodes = (node for assign in self.tree.assigns for node in walk(assign.value))
        return frozenset(node for node in nodes if isinstance(node, Reduction))

    @property
    def is_separable(self) -> bool:
        """True if the update of an element depends on no other element."""
        return self.scope == "element" and not self.reductions

    @cached_property
    def uses_group(self) -> bool:
        """True if the tensors of a parameter group are stepped together: by reductions over it, or shared state."""
        return any(r.over == "group" for r in self.reductions) or any(state.shared for state in self.state.values())

    @cached_property
    def takes_vectors(self) -> bool:
        """True if a rule on matrices has a form for vectors as well, for which its matrix state does not exist."""
        return any(state.kind not in ("element", "scalar") for state in self.state.values())

    @property
    def axes(self) -> dict[str, Axis]:
        """Search space of each tunable hyperparameter, by name; the learning rate comes first."""
        usual = {name: axis for name, axis in USUAL.items() if name in self.hyperparameters}
        own = {"weight_decay": OWN_DECAY} if self.owns_weight_decay else {}
        return {"lr": self.space["lr"], **usual, **own, **self.space}

    @cached_property
    def betas(self) -> tuple[str, ...]:
        """Names of the hyperparameters that form torch's `betas`."""
        return tuple(name for name in self.hyperparameters if name[:4] == "beta" and name[4:].isdigit())

    @cached_property
    def tuple_arguments(self) -> dict[str, tuple[str, ...]]:
        """Names of the hyperparameters in each of torch's arguments that are tuples, such as `betas`."""
        return {**({"betas": self.betas} if self.betas else {}), **self.tuples}

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the boolean options of the rule, without those of the gradient preprocessing."""
        return tuple(
            name for name, v in self.hyperparameters.items() if isinstance(v, bool) and name not in PREPROCESSING
        )

    def values(self, **given: float | bool) -> dict[str, float | bool]:
        """Return the values of all hyperparameters: `given` ones after validation, and defaults of all others.

        Raises:
            TypeError: if the rule has no such hyperparameter.
            ValueError: if a value is outside its range.
        """
        for name, value in given.items():
            if name not in self.hyperparameters:
                raise TypeError(f"{self.name} has no {name!r}. It has: {', '.join(self.hyperparameters)}.")
            self.check(name, value)
        return {**self.hyperparameters, **given}

    def check(self, name: str, value: float | bool) -> None:
        """Raise ValueError if a value is outside the range of a hyperparameter, TypeError if it is not a number."""
        check(name, value, self.domains.get(name))

    def memory(self, values: Mapping[str, object]) -> int:
        """Return the number of state values per weight under these hyperparameters."""
        return sum(state.kind == "element" for state in self.active_state(values).values())

    def active_state(self, values: Mapping[str, object]) -> dict[str, State]:
        """Return the state variables that exist under these hyperparameters."""
        return {name: state for name, state in self.state.items() if state.when is None or values[state.when]}

    def specialize(self, values: Mapping[str, object]) -> Tree:
        """Return the rule's tree specialized to these hyperparameters: disabled terms and state are removed."""
        return self.tree.fold(values, tuple(self.active_state(values)))


def _import_rule(module: str, name: str) -> Rule:
    imported: Rule = getattr(import_module(module), name)
    return imported


def _compose(make: Callable[..., Rule], base: Rule, given: tuple[tuple[str, Any], ...]) -> Rule:
    return make(base, **dict(given))


def check(name: str, value: float | bool, domain: tuple[float, float] | None = None) -> None:
    """Check the value of a hyperparameter.

    Args:
        name: name of the hyperparameter.
        value: the value to check.
        domain: half-open range of valid values; None for the default range of this name.

    Raises:
        TypeError: if the value is not a number.
        ValueError: if it is outside the range.
    """
    if not isinstance(value, Real):
        raise TypeError(f"{name} = {value!r}: it must be a number.")
    low, high = domain or DOMAINS.get(name, ANY)
    if not low <= value < high:
        allowed = f"in [{low:g}, {high:g})" if high < float("inf") else f"a finite number from {low:g} up"
        raise ValueError(f"{name} = {value!r}: it must be {allowed}.")


def rule(
    source: str,
    *,
    relation: str,
    space: Mapping[str, Axis],
    state: Mapping[str, str | State] | None = None,
    scope: Scope = "element",
    domains: Mapping[str, tuple[float, float]] | None = None,
    evaluate: Callable[..., Value] | None = None,
    counts_steps: bool = True,
    tuned: tuple[str, ...] = (),
    tuples: Mapping[str, tuple[str, ...]] | None = None,
    **hyperparameters: float | bool,
) -> Callable[[Callable[..., tuple[Value, ...]]], Rule]:
    """Create a rule from a function `(h, t, x, g, *state) -> (x, *state)`; used as a decorator.

    Args:
        source: reference, with equation or algorithm number.
        relation: sentence that relates the rule to another rule.
        space: search spaces for tuning, by hyperparameter; `"lr"` is required, all others are optional.
        state: state variables by name; a string stands for a tensor that is initialized with zeros and has this key in
            torch's state dict.
        scope: `"element"` for elementwise rules. `"tensor"` for rules on whole tensors in their true shape; these may
            also call `norm`, `mean`, `matmul`, `transpose`, `rows` and `columns`, and repeat lines with
            `for _ in range(5):`.
        domains: half-open ranges of those hyperparameters whose range differs from the default one.
        evaluate: function `(h, t, x, ...) -> point` that returns the evaluation point, if that differs from the
            training point. It is written like a rule, and its further arguments are names of state variables.
        counts_steps: False if the number of steps need not be stored. This is possible for rules that distinguish only
            the first step from all others: before the first step, the state is empty.
        tuned: hyperparameters that are worth tuning besides the learning rate, the most important first.
        tuples: hyperparameters that torch combines into one argument, by the name of that argument. The betas are
            combined without being listed.
        **hyperparameters: default values by name; those with a bool as default are options.

    Raises:
        RuleError: if the function uses a construct that rules do not support, or `tuned` names no hyperparameter.
    """
    specs = {name: State(spec) if isinstance(spec, str) else spec for name, spec in (state or {}).items()}
    values = {**hyperparameters, **{name: v for name, v in PREPROCESSING.items() if name not in hyperparameters}}
    if isinstance(tuned, str) or not set(tuned) <= set(values) - {"lr"}:
        raise RuleError(
            f"tuned = {tuned!r}: it must be a tuple of hyperparameters of the rule other than lr. There are: "
            f"{', '.join(name for name in values if name != 'lr') or 'none'}."
        )

    def make(function: Callable[..., tuple[Value, ...]]) -> Rule:
        tree = parse(function, values, scope)
        check_form(location(function, "rule "), tree, specs)
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        return Rule(
            function.__name__,
            function,
            source,
            summary,
            relation,
            values,
            specs,
            dict(space),
            tree,
            scope,
            dict(domains or {}),
            evaluate,
            None if evaluate is None else parse_evaluate(evaluate, values, scope, specs),
            counts_steps,
            tuple(tuned),
            dict(tuples or {}),
        )

    return make


def parse_evaluate(
    function: Callable[..., Value], values: Mapping[str, float | bool], scope: Scope, state: Any
) -> Tree:
    """Parse an `evaluate` function and return its tree.

    Raises:
        RuleError: if it uses a reduction, or state that the rule does not have, or does not return exactly one point.
    """
    tree = parse(function, values, scope, ("h", "t", "x"))
    where = location(function)
    if unknown := [name for name in tree.state if name not in state]:
        raise RuleError(f"{where}{', '.join(unknown)} is no state of the rule. It has: {', '.join(state)}.")
    if len(tree.returns) != 1:
        raise RuleError(f"{where}it returns {tree.returns}. Return one point.")
    if any(isinstance(node, Reduction) for assign in tree.assigns for node in walk(assign.value)):
        raise RuleError(f"{where}the evaluation point is elementwise. Store the result of the reduction as state.")
    return tree
