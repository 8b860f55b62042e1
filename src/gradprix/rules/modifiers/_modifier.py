"""Modifiers: functions from rule to rule, written like rules, in which `step` or `direction` stands for the base."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from gradprix.rules._form import check_form, location
from gradprix.rules._rule import PREPROCESSING, Rule, State, parse_evaluate
from gradprix.rules.ir import Assign, Call, Name, Tree, walk
from gradprix.rules.ops import Value
from gradprix.rules.parser import RuleError, parse

from ._composition import compose
from ._splicing import BASE, is_base_call

BASE_HYPERPARAMETERS = ("lr", "beta1")
"""Hyperparameters of the base that a modifier may use, besides those of the gradient preprocessing."""


@dataclass(frozen=True, eq=False)
class Modifier:
    """Function from rule to rule, `modifier(base, **hyperparameters) -> rule`.

    The result has the state and the hyperparameters of the base and of the modifier. Equal calls return the same rule.
    Use the decorator `modifier` to create a modifier.

    Args:
        name: name of the modifier.
        function: function that defines it.
        source: reference, with equation or algorithm number.
        summary: first line of the function's docstring.
        relation: sentence that relates the result to the base, which is written `{base}`.
        hyperparameters: default values of its own hyperparameters.
        state: its own state variables, by name.
        tree: the parsed function; None if the function takes the base and returns the tree of the result.
        prefix: prefix of its hyperparameters, which may be omitted in a call.
        needs: hyperparameters that the base must have, with the reason.
        disabled: hyperparameters of the base that are zero by default in the result.
        domains: half-open ranges of those hyperparameters whose range differs from the default one.
        evaluate: function that returns the evaluation point; None if it is that of the base.
        evaluation: the parsed `evaluate`, or None.
    """

    name: str
    function: Callable[..., Any]
    source: str
    summary: str
    relation: str
    hyperparameters: Mapping[str, float | bool]
    state: Mapping[str, State]
    tree: Tree | None
    prefix: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)
    disabled: tuple[str, ...] = ()
    domains: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    evaluate: Callable[..., Value] | None = None
    evaluation: Tree | None = None

    def __call__(self, base: Rule, **values: float | bool) -> Rule:
        """Return the modified rule.

        Args:
            base: the rule to modify.
            **values: defaults for hyperparameters of the result.

        Raises:
            TypeError: if the base is not a rule, or the result has no such hyperparameter.
            ValueError: if the modifier cannot be applied to this base, or a value is outside its range.
        """
        if not isinstance(base, Rule):
            raise TypeError(f"{self.name} modifies rules, such as gradprix.rules.adamw, not {base!r}.")
        given = ((name, float(v) if type(v) is int else v) for name, v in values.items())  # 1 and 1.0 are equal keys
        return compose(self, base, tuple(given))

    def __repr__(self) -> str:
        return f"<modifier {self.name}: {self.summary}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Pickled by name, as functions are, if it can be imported.
        module = self.function.__module__
        if module != "__main__" and getattr(sys.modules.get(module), self.name, None) is self:
            return _import_modifier, (module, self.name)
        return super().__reduce_ex__(protocol)

    def full_name(self, hyperparameter: str) -> str:
        """Return the name of a hyperparameter, given its name without or with the prefix."""
        prefixed = f"{self.prefix}_{hyperparameter}"
        return prefixed if prefixed in self.hyperparameters else hyperparameter


def _import_modifier(module: str, name: str) -> Modifier:
    imported: Modifier = getattr(import_module(module), name)
    return imported


def modifier(
    source: str,
    *,
    relation: str,
    state: Mapping[str, State] | None = None,
    prefix: str = "",
    needs: Mapping[str, str] | None = None,
    disabled: tuple[str, ...] = (),
    domains: Mapping[str, tuple[float, float]] | None = None,
    evaluate: Callable[..., Value] | None = None,
    **hyperparameters: float | bool,
) -> Callable[[Callable[..., Any]], Modifier]:
    """Create a modifier from a function `(h, t, x, g, *state) -> (x, *state)`; used as a decorator.

    The function is written like a rule. On one line, it calls the base: `x = step(x, g)` or `u = direction(x, g)`.

    Args:
        source: reference, with equation or algorithm number.
        relation: sentence that relates the result to the base, which is written `{base}`.
        state: state variables by name.
        prefix: prefix of its hyperparameters, which may be omitted in a call: with `"ema"`, `decay=0.9` is `ema_decay`.
        needs: hyperparameters that the base must have, with the reason.
        disabled: hyperparameters of the base that are zero by default in the result.
        domains: half-open ranges of those hyperparameters whose range differs from the default one.
        evaluate: function `(h, t, x, ...) -> point` that returns the evaluation point, as of a rule.
        **hyperparameters: default values by name; those with a bool as default are options.

    Raises:
        RuleError: if the function uses a construct that rules do not support, or does not call the base once.

    Example:
        >>> from gradprix.rules import formula, sgd
        >>> from gradprix.rules.modifiers import direction, modifier
        >>> @modifier("made up", relation="Equal to {base} if the scale is 1.", scale=0.5)
        ... def scaled(h, t, x, g):
        ...     u = direction(x, g)
        ...     x = x - h.lr * h.scale * u
        ...     return x
        >>> formula(scaled(sgd))
        ['x ← x − η scale g']
    """
    specs = dict(state or {})
    values = {**dict.fromkeys(BASE_HYPERPARAMETERS, 0.0), **PREPROCESSING, **hyperparameters}

    def make(function: Callable[..., Any]) -> Modifier:
        whole = list(inspect.signature(function).parameters) == ["base"]
        tree = None if whole else parse(function, values, more=BASE)
        if tree is not None:
            check_form(location(function, "modifier "), tree, specs)
            _check_calls(function, tree)
        return Modifier(
            name=function.__name__,
            function=function,
            source=source,
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
            relation=relation,
            hyperparameters=hyperparameters,
            state=specs,
            tree=tree,
            prefix=prefix,
            needs=dict(needs or {}),
            disabled=disabled,
            domains=dict(domains or {}),
            evaluate=evaluate,
            evaluation=None if evaluate is None else parse_evaluate(evaluate, values, "element", specs),
        )

    return make


def _check_calls(function: Callable[..., Any], tree: Tree) -> None:
    """Raise RuleError unless the base is called once, on a line of its own, with names as arguments."""
    calls = [node for assign in tree.assigns for node in walk(assign.value) if is_base_call(node)]
    if len(calls) != 1 or not any(map(_calls_base, tree.assigns)):
        raise RuleError(
            f"{location(function, 'modifier ')}call the base once, on a line of its own: x = step(x, g), or "
            "u = direction(x, g)."
        )


def _calls_base(assign: Assign) -> bool:
    match assign:
        case Assign("x", Call("step", (Name("x"), Name()))) | Assign(_, Call("direction", (Name(), Name()))):
            return True
    return False
