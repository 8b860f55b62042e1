"""Adapter that lets a race use any optimizer class, and functions that make optimizers."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from gradprix import optim
from gradprix.rules import Axis, Log, Rule
from gradprix.spaces import USUAL
from gradprix.tasks.user_modules import title

from .optimizer_factories import MakeOptimizer, call_maker, name_of, required_steps, takes_model
from .optimizer_identity import describe_implementation

CLASSES = {
    cls.rule: name
    for name in optim.__all__
    if hasattr(cls := getattr(optim, name), "rule") and optim.from_rule(cls.rule) is cls
}
"""Names of the classes of `gradprix.optim` by rule."""
ANY_RATE = Log(1e-5, 1)
"""Search range of the learning rate for a class without a default."""


def switch_mode(optimizer: torch.optim.Optimizer, mode: str) -> None:
    """Call `train` or `eval` of optimizers that have these methods, such as Schedule-Free ones."""
    method = getattr(optimizer, mode, None)
    if callable(method):
        method()


@dataclass(frozen=True)
class TorchOptimizerAdapter:
    """An optimizer class, or a function that makes optimizers, with the interface that a race expects of a rule.

    Each model has its own instance, whose parameters alias the model's rows of the stacked parameters and have the
    shapes that they have in a single model. The gradients come from the backward pass of the whole stack.

    Args:
        make: class or function, called as `make(params, lr=..., ...)`, or with a model if `takes_model(make)`.
        closure: pass a closure to `step`, which computes the gradient of the batch again. A class whose `step` has a
            closure without a default always gets one.

    Raises:
        ValueError: for a function whose first argument is neither `model` nor `params`.
    """

    make: MakeOptimizer
    closure: bool = False

    def __post_init__(self) -> None:
        takes_model(self.make)  # raises for a function with other arguments
        step = getattr(self.make, "step", None)
        closure = None if step is None else inspect.signature(step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            object.__setattr__(self, "closure", True)

    @property
    def name(self) -> str:
        """The name of the class or function."""
        return name_of(self.make)

    @property
    def full_name(self) -> str:
        """The name of the class or function, qualified by its module."""
        module, name = self._code.__module__, getattr(self._code, "__qualname__", self.name)
        return f"{module if '.' in module else title(module)}.{name}"

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self._code) or "").strip().partition("\n")[0] or f"{self.full_name}."

    @property
    def _code(self) -> Any:
        """The class or function; for a `functools.partial`, what it calls."""
        return self.make.func if isinstance(self.make, partial) else self.make

    @cached_property
    def _signature(self) -> dict[str, Any]:
        return {
            name: parameter.default
            for name, parameter in list(inspect.signature(self.make).parameters.items())[1:]
            if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        }

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor's arguments that have defaults, with the defaults."""
        return {name: value for name, value in self._signature.items() if value is not inspect.Parameter.empty}

    @property
    def axes(self) -> dict[str, Axis]:
        """Search ranges of the hyperparameters.

        A class that is made from a rule has the ranges of the rule. For other classes, the range of the learning rate
        spans two decades on both sides of its default. Without a default, it is the range of gradprix's class of the
        same name, or `ANY_RATE`. Other hyperparameters have the ranges of `USUAL`. Without an argument `lr`, there
        is no range of it.
        """
        rule = getattr(self.make, "rule", None)
        if rule is not None:
            return dict(rule.axes)
        lr = self.hyperparameters.get("lr")
        if isinstance(lr, int | float) and lr > 0:
            lr_axis: Axis = Log(lr / 100, lr * 100)
        else:
            same_name_rule = getattr(getattr(optim, self.name, None), "rule", None)
            lr_axis = same_name_rule.axes["lr"] if same_name_rule is not None else ANY_RATE
        own_lr = {"lr": lr_axis} if "lr" in self._signature else {}
        return own_lr | {name: axis for name, axis in USUAL.items() if name in self.defaults}

    @property
    def tuned(self) -> tuple[str, ...]:
        """The hyperparameters that are worth tuning besides the learning rate.

        Those of its rule or, in a class of torch, of the rule of the same name, so that equal optimizers are tuned
        alike; otherwise weight decay, if it is on by default.
        """
        namesake = getattr(optim, self.name, None) if self.make.__module__.startswith("torch.") else None
        rule = getattr(self.make, "rule", None) or getattr(namesake, "rule", None)
        if rule is not None:
            return tuple(name for name in rule.tuned if name in self.axes)
        return ("weight_decay",) if self.hyperparameters.get("weight_decay") else ()

    @property
    def _betas(self) -> dict[str, float]:
        """The elements of the argument `betas` by name."""
        betas = self.hyperparameters.get("betas")
        return {f"beta{i}": beta for i, beta in enumerate(betas, start=1)} if isinstance(betas, tuple) else {}

    @property
    def defaults(self) -> dict[str, Any]:
        """Default values of the hyperparameters; the elements of `betas` are also available as `beta1` and `beta2`."""
        return {**self.hyperparameters, **self._betas}

    def values(self, **given: Any) -> dict[str, Any]:
        """Return the keyword arguments for the class's constructor, with single betas combined into `betas`.

        Raises:
            ValueError: for an unknown argument, or if a required one is missing.
        """
        if betas_given := given.keys() & self._betas.keys() - self._signature.keys():
            betas = tuple({**self._betas, **given}[name] for name in self._betas)
            given = {name: value for name, value in given.items() if name not in betas_given} | {"betas": betas}
        takes_kwargs = any(
            p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(self.make).parameters.values()
        )
        if not takes_kwargs and (unknown := given.keys() - self._signature.keys()):
            known = ", ".join(self._signature)
            raise ValueError(f"{self.name} takes no {', '.join(sorted(unknown))}. It takes: {known}.")
        known_later = {*self.hyperparameters, *required_steps(self.make)}
        if missing := [name for name in self._signature if name not in known_later and name not in given]:
            raise ValueError(
                f"{self.name} needs {', '.join(missing)}, which has no default: give gp.Entry({self.name.lower()!r}, "
                f"{self.name}, {{{missing[0]!r}: ...}}), or a function that calls it with this argument, such as "
                f"lambda params, lr: {self.name}(params, ..., lr=lr)."
            )
        return given

    def memory(self, values: Mapping[str, Any]) -> int | None:
        """Return the number of state elements per weight, measured by a step on a small matrix.

        The result is None if the step fails.
        """
        model = nn.Linear(8, 4, bias=False)
        weight = model.weight

        def closure() -> torch.Tensor:
            with torch.enable_grad():
                loss = weight.square().sum()
                (weight.grad,) = torch.autograd.grad(loss, weight, create_graph=True)
            return loss

        try:
            optimizer = call_maker(self.make, model if takes_model(self.make) else [weight], values, total_steps=1)
            switch_mode(optimizer, "train")
            closure()
            if self.closure:
                optimizer.step(closure)  # type: ignore[arg-type]  # a tensor, as in torch's documentation
            else:
                optimizer.step()
        except Exception:  # the optimizer may need arguments that only a training loop gives
            return None
        state = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor)]
        return round(sum(value.numel() for value in state) / weight.numel())

    def describe(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the identity of the implementation: its name, a hash of its code, and its package's version."""
        return {"class": self.full_name, **self._implementation, **({"closure": True} if self.closure else {})}

    @cached_property
    def _implementation(self) -> dict[str, str]:
        return describe_implementation(self.make)


def needs_closure(rule: Rule | TorchOptimizerAdapter) -> bool:
    """Return True if an optimizer computes gradients by a closure within its step."""
    return isinstance(rule, TorchOptimizerAdapter) and rule.closure


def constructor_arguments(rule: Rule | TorchOptimizerAdapter, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters as keyword arguments for the constructor of the optimizer class.

    Single betas are combined into the tuple `betas` if the class takes it, and likewise for other tuples.
    """
    arguments = dict(given)
    if isinstance(rule, Rule):
        known = inspect.signature(optim.from_rule(rule)).parameters
        for argument, names in rule.tuple_arguments.items():
            if argument in known and given.keys() & set(names):
                values = {**rule.hyperparameters, **given}
                arguments = {name: value for name, value in arguments.items() if name not in names}
                arguments[argument] = tuple(values[name] for name in names)
    return arguments
