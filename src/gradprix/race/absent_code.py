"""Stand-ins for tasks and optimizers whose code is not run: they have the interface, and cannot train.

With them a race is replayed from its runs, without the data and without running the code of others.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from gradprix.tasks import Metric, Task
from gradprix.tasks.loop import Loop
from gradprix.training.torch_optimizer_adapter import TorchOptimizerAdapter

from .setup import OptimizerInterface, TaskSetup, decode


def _absent(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the code of this task or optimizer is not loaded.")


def _absent_loop(make_optimizer: Any, seed: int) -> Any:
    return _absent(make_optimizer, seed)


def make_absent_task(description: Mapping[str, Any], setup: TaskSetup) -> Task | Loop:
    """Return a stand-in for the task of a race, with its name, metric, options and number of examples.

    Args:
        description: description of the plan; see `Plan.description`.
        setup: what else is known of the task.

    Raises:
        LookupError: if the description lacks a value.
        TypeError: if it has a value of another type.
        ValueError: if a value is out of range.
    """
    metric = Metric(score=_absent, **description["metric"])
    rest: dict[str, Any] = {"name": description["task"], "metric": metric, "about": setup.about}
    if description["loop"]:
        problem: Task | Loop = Loop(train=_absent_loop, baseline=description["trivial"], **rest)
    else:
        options = dict(description.get("options", {}))
        if "groups" in options:
            options["groups"] = _absent_groups(options["groups"])
        if "autocast" in options:
            options["autocast"] = getattr(torch, options["autocast"])
        problem = Task(
            model=_absent,
            loss=_absent,
            data=_absent,
            baseline=description["trivial"],
            **{name: description[name] for name in ("batch_size", "epochs", "schedule")},
            **rest,
            **options,
        )
        split = SimpleNamespace(train=range(int(setup.examples or 0)))
        vars(problem)["loaded"] = SimpleNamespace(split=lambda seed: split)
    vars(problem)["fingerprint"] = description["fingerprint"]
    return problem


def _absent_groups(name: str) -> Any:
    """Return the option `groups` of a task: a stand-in for a function with this name."""
    if name == "no_decay_norms":
        return name

    def groups(model: Any) -> Any:
        return _absent(model)

    groups.__name__ = name
    return groups


@dataclass(frozen=True)
class AbsentOptimizer(TorchOptimizerAdapter):
    """Stand-in for an optimizer class or function, made from its interface.

    Args:
        interface: interface of the class or function.
    """

    interface: OptimizerInterface = None  # type: ignore[assignment]  # required, but follows a default

    @classmethod
    def from_interface(cls, interface: OptimizerInterface) -> "AbsentOptimizer":
        """Return the stand-in for an optimizer with an interface."""

        def make(*_: Any, **__: Any) -> Any:
            return _absent()

        any_kind = inspect.Parameter.KEYWORD_ONLY
        first = inspect.Parameter("model" if interface.takes_model else "params", inspect.Parameter.POSITIONAL_ONLY)
        parameters = [first, *(inspect.Parameter(name, any_kind) for name in interface.required)]
        parameters += [
            inspect.Parameter(name, any_kind, default=decode(value)) for name, value in interface.defaults.items()
        ]
        if interface.takes_any:
            parameters.append(inspect.Parameter("rest", inspect.Parameter.VAR_KEYWORD))
        make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        make.__name__ = make.__qualname__ = interface.name
        make.__doc__ = interface.summary
        return cls(make, interface.closure, interface)

    @property
    def full_name(self) -> str:
        """The name of the class or function, qualified by its module."""
        return self.interface.full_name

    def memory(self, values: Mapping[str, Any]) -> int | None:
        """Return the number of state elements per weight, as it was measured."""
        return self.interface.memory

    def describe(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the identity of the implementation, as it was saved."""
        return dict(self.interface.identity)
