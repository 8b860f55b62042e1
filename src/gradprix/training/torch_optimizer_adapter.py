"""Adapter that lets a race use any class derived from `torch.optim.Optimizer`."""

import hashlib
import inspect
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import torch
from torch import nn

from gradprix import optim
from gradprix.rules import Axis, Log, Rule
from gradprix.spaces import USUAL
from gradprix.tasks.user_modules import text_of, title

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
    """An optimizer class with the interface that a race expects of a rule.

    Each model has its own instance, whose parameters alias the model's rows of the stacked parameters and have the
    shapes that they have in a single model. The gradients come from the backward pass of the whole stack.

    Args:
        make: the class, which is constructed by `make(params, lr=..., ...)`.

    Raises:
        ValueError: if the class cannot be raced; the message gives the reason.
    """

    make: type[torch.optim.Optimizer]

    def __post_init__(self) -> None:
        if "lr" not in self._signature:
            raise ValueError(
                f"{self.name} takes no lr, which is what a race tunes. Give a subclass whose __init__(self, params, "
                "lr=...) passes it on, for a class that wraps an optimizer to the one that it wraps."
            )
        closure = inspect.signature(self.make.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ValueError(
                f"{self.name} needs a closure that evaluates the model again within a step: a race shares one forward "
                "and backward pass a step between all optimizers, so that they see the same number of examples. Give a "
                "subclass whose step does without, if there is one."
            )

    @property
    def name(self) -> str:
        """The class's name."""
        return self.make.__name__

    @property
    def full_name(self) -> str:
        """The class's name, qualified by its module."""
        module = self.make.__module__
        return f"{module if '.' in module else title(module)}.{self.make.__qualname__}"

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.make) or "").strip().partition("\n")[0] or f"{self.full_name}."

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
        same name, or `ANY_RATE`. Other hyperparameters have the ranges of `USUAL`.
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
        return {"lr": lr_axis} | {name: axis for name, axis in USUAL.items() if name in self.defaults}

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
        if missing := [name for name in self._signature if name not in self.hyperparameters and name not in given]:
            raise ValueError(
                f"{self.name} needs {', '.join(missing)}, which has no default: give gp.Entry({self.name.lower()!r}, "
                f"{self.name}, {{{missing[0]!r}: ...}})."
            )
        return given

    def memory(self, values: Mapping[str, Any]) -> int | None:
        """Return the number of state elements per weight, measured by a step on a small matrix.

        The result is None if the step fails.
        """
        weight = nn.Parameter(torch.ones(4, 8))
        try:
            optimizer = self.make([weight], **values)
            switch_mode(optimizer, "train")
            (weight.grad,) = torch.autograd.grad(weight.square().sum(), weight, create_graph=True)
            optimizer.step()
        except Exception:  # the optimizer may need arguments that only a training loop gives
            return None
        state = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor)]
        return round(sum(value.numel() for value in state) / weight.numel())

    def describe(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the identity of the implementation: the class, a hash of its code, and its package's version."""
        package = self.make.__module__.partition(".")[0]
        code = ""
        for cls in self.make.__mro__:  # whole files, since a class may use other definitions of its module
            if cls.__module__.partition(".")[0] not in ("torch", "builtins", "typing"):
                with suppress(OSError, TypeError):
                    code += text_of(cls) or inspect.getsource(sys.modules.get(cls.__module__) or cls)
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            version = ""
        digest = hashlib.sha256(code.encode()).hexdigest()[:16]
        return {"class": self.full_name, "code": digest, "version": version}


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
