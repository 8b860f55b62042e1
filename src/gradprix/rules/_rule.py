"""`@rule`: what one optimizer does, with its paper, defaults, state and search space."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from numbers import Real
from typing import Any, Literal, NoReturn

from gradprix.spaces import OWN_DECAY, USUAL, Axis

from .ir import Call, Hyper, Tree, flow, names, walk
from .ops import MATRIX, Value
from .parser import RuleError, Scope, parse

AROUND: dict[str, float | bool] = {"weight_decay": 0.0, "maximize": False, "decoupled_weight_decay": False}
"""What torch offers around every rule, with its defaults. A rule that names `weight_decay` itself owns it."""

DOMAINS: dict[str, tuple[float, float]] = dict.fromkeys(("beta1", "beta2", "alpha", "rho", "momentum"), (0.0, 1.0))
"""Half-open ranges [low, high) of hyperparameters; all others are any number from zero up."""
ANY = (0.0, float("inf"))


@dataclass(frozen=True)
class State:
    """One thing that a rule remembers from step to step.

    Args:
        key: torch's name for it in a state dict.
        kind: `"element"` for a tensor like the parameter, `"scalar"` for one number a parameter.
        init: the value before the first step: a number, `"x"`, `"g"`, or a hyperparameter's name.
        when: the option (or number) without which (at zero) it does not exist.
        stored: `stored(h, **state)` gives what torch keeps under the key, where that is something else.
        loaded: the way back, `loaded(h, **state)`.
    """

    key: str
    kind: Literal["element", "scalar"] = "element"
    init: float | str = 0.0
    when: str | None = None
    stored: Callable[..., Value] | None = None
    loaded: Callable[..., Value] | None = None


@dataclass(frozen=True, eq=False)
class Rule:
    """An optimizer's update, `rule(h, t, x, g, *state) -> (x, *state)`, and all that is known about it.

    `h` holds the hyperparameters, `t` counts steps from 1, `x` is the parameter and `g` its gradient.
    Everything derived from the rule comes from `tree`, which was read from the function's own source.
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

    def __call__(self, h: Any, t: int, x: Value, g: Value, *state: Value) -> tuple[Value, ...]:
        """One step: the function itself. State that does not exist under these options is given as None."""
        after = self.function(h, t, x, g, *state)
        return after if isinstance(after, tuple) else (after,)

    def __repr__(self) -> str:
        return f"<rule {self.name}: {self.summary}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Pickled by name, as functions are, where the name leads here; a rule of a script or notebook goes by value.
        home = self.function.__module__
        if home != "__main__" and getattr(sys.modules.get(home), self.name, None) is self:
            return _named, (home, self.name)
        return super().__reduce_ex__(protocol)

    @cached_property
    def owns_weight_decay(self) -> bool:
        """Whether the rule itself says what weight decay does (AdamW)."""
        return any(Hyper("weight_decay") in walk(assign.value) for assign in self.tree.assigns)

    @cached_property
    def of_matrices(self) -> bool:
        """Whether it steps matrices, not tensors of any shape (Muon)."""
        nodes = (node for assign in self.tree.assigns for node in walk(assign.value))
        return any(isinstance(node, Call) and node.function in MATRIX for node in nodes)

    @property
    def axes(self) -> dict[str, Axis]:
        """Where each hyperparameter that can be tuned is searched, the learning rate first."""
        usual = {name: axis for name, axis in USUAL.items() if name in self.hyperparameters}
        own = {"weight_decay": OWN_DECAY} if self.owns_weight_decay else {}
        return {"lr": self.space["lr"], **usual, **own, **self.space}

    @property
    def betas(self) -> tuple[str, ...]:
        """The names of what torch takes together as `betas`."""
        return tuple(name for name in self.hyperparameters if name[:4] == "beta" and name[4:].isdigit())

    @property
    def options(self) -> tuple[str, ...]:
        """The rule's own switches."""
        return tuple(name for name, v in self.hyperparameters.items() if isinstance(v, bool) and name not in AROUND)

    def values(self, **given: float | bool) -> dict[str, float | bool]:
        """The defaults with `given` in their place, checked.

        Raises:
            TypeError: for a name the rule does not have.
            ValueError: for a value outside its range.
        """
        for name, value in given.items():
            if name not in self.hyperparameters:
                raise TypeError(f"{self.name} has no {name!r}. It has: {', '.join(self.hyperparameters)}.")
            self.check(name, value)
        return {**self.hyperparameters, **given}

    def check(self, name: str, value: float | bool) -> None:
        """Raise ValueError, saying what is allowed, when a hyperparameter is outside its range."""
        check(name, value, self.domains.get(name))

    def memory(self, values: Mapping[str, object]) -> int:
        """How many numbers per weight it remembers under these hyperparameters."""
        return sum(state.kind == "element" for state in self.kept(values).values())

    def kept(self, values: Mapping[str, object]) -> dict[str, State]:
        """The state that exists under these hyperparameters."""
        return {name: state for name, state in self.state.items() if state.when is None or values[state.when]}

    def folded(self, values: Mapping[str, object]) -> Tree:
        """The tree under these hyperparameters' options."""
        return self.tree.fold(values, tuple(self.kept(values)))


def _named(module: str, name: str) -> Rule:
    found: Rule = getattr(import_module(module), name)
    return found


def check(name: str, value: float | bool, domain: tuple[float, float] | None = None) -> None:
    """Raise ValueError, saying what is allowed, when a hyperparameter is outside its range; TypeError for no number."""
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
    **hyperparameters: float | bool,
) -> Callable[[Callable[..., tuple[Value, ...]]], Rule]:
    """Make a rule of a function `(h, t, x, g, *state) -> (x, *state)`.

    Args:
        source: the paper, with its equation or algorithm number.
        relation: one sentence that ties it to a neighbour.
        space: where its hyperparameters are searched in a race.
        state: what it remembers; a string stands for a tensor that starts at zero, under torch's key.
        scope: `"element"` when each element is stepped by itself; `"tensor"` when a tensor is stepped as a whole, in
            its true shape, and the rule may also call `norm`, `mean`, `matmul`, `transpose`, `rows` and `columns`, and
            repeat lines with `for _ in range(5):`.
        domains: half-open ranges of hyperparameters whose usual range is another.
        evaluate: `(h, t, x, ...) -> point`, a function of the same form that takes what it needs of the state by name:
            where to evaluate the model, when that is not at the point being trained.
        counts_steps: False when the number of steps is not kept, because the rule only has to know the first step,
            before which its state is empty. Later steps are all the same to it.
        **hyperparameters: numbers with their defaults, and options, whose defaults are bools.

    Raises:
        RuleError: when the function says what a rule may not say.
    """
    specs = {name: State(spec) if isinstance(spec, str) else spec for name, spec in (state or {}).items()}
    values = {**hyperparameters, **{name: v for name, v in AROUND.items() if name not in hyperparameters}}

    def make(function: Callable[..., tuple[Value, ...]]) -> Rule:
        tree = parse(function, values, scope)
        _check_form(function, tree, specs)
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
            None if evaluate is None else _point(evaluate, values, scope, specs),
            counts_steps,
        )

    return make


def _point(function: Callable[..., Value], values: Mapping[str, float | bool], scope: Scope, state: Any) -> Tree:
    """The tree of an `evaluate` function."""
    tree = parse(function, values, scope, ("h", "t", "x"))
    where = f"{inspect.getsourcefile(function)}:{function.__code__.co_firstlineno}: in {function.__name__}: "
    if unknown := [name for name in tree.state if name not in state]:
        raise RuleError(f"{where}{', '.join(unknown)} is no state of the rule. It has: {', '.join(state)}.")
    if len(tree.returns) != 1:
        raise RuleError(f"{where}it returns {tree.returns}. Return one point.")
    return tree


def _check_form(function: Callable[..., Any], tree: Tree, state: Mapping[str, State]) -> None:
    """Refuse state that does not match the arguments and results, and numbers that depend on elements."""
    where = f"{inspect.getsourcefile(function)}:{function.__code__.co_firstlineno}: in rule {function.__name__}: "
    if tree.state != tuple(state):
        raise RuleError(f"{where}the arguments {tree.state} are not the declared state {tuple(state)}.")
    if tree.returns != ("x", *tree.state):
        raise RuleError(f"{where}it returns {tree.returns}. Return x and then the state, in order.")
    numbers = {name for name, spec in state.items() if spec.kind == "scalar"}
    for assign, elements in flow(tree, {"x", "g", *state} - numbers):

        def refuse(what: str, line: int = assign.line) -> NoReturn:
            raise RuleError(f"{where}line {line}: {what}")

        if assign.name in numbers and names(assign.value) & elements:
            refuse(f"scalar state {assign.name!r} is given one value an element.")
        for node in walk(assign.value):
            match node:
                case Call("where", (condition, yes, no)) if names(condition) & elements:
                    if not (names(yes) | names(no)) & elements:
                        refuse(
                            "where() chooses between two numbers for each element, and numbers have no dtype. "
                            "Multiply each by a tensor, as in where(c, 1.2 * a, 0.5 * a)."
                        )
                case Call("/", (number, tensor)) if names(tensor) & elements and not names(number) & elements:
                    refuse(
                        "torch divides a number by a tensor in two roundings (a reciprocal first). "
                        "Put a tensor above the line, as in c * a / b."
                    )
