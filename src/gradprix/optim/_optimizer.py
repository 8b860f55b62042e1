"""The one base class: `torch.optim.Optimizer` around any rule."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradprix.kernels import eager
from gradprix.rules import Rule, check

TORCH_ONLY = {"foreach": None, "capturable": False, "differentiable": False, "fused": None}
"""torch's choices between its own implementations. They are accepted; what runs here is the same either way."""


class Optimizer(torch.optim.Optimizer):
    """A drop-in for `torch.optim`, made from a rule.

    A subclass names its rule and the order of torch's arguments; defaults come from the rule. The parameter groups
    hold torch's names and values (`betas`, not `beta1`), so that schedulers and checkpoints fit.
    """

    rule: ClassVar[Rule]
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, rule: Rule, arguments: str) -> None:
        super().__init_subclass__()
        cls.rule = rule
        positional, _, keywords = arguments.partition("*")
        either, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter("params", either)]
        for kind, names in ((either, positional), (keyword, keywords)):
            parameters += [inspect.Parameter(name, kind, default=_default(rule, name)) for name in names.split()]
        cls.__signature__ = inspect.Signature(parameters)
        cls.__doc__ = f"{rule.summary}\n\n{rule.relation} Source: {rule.source}.\n\nThe arguments are those of torch."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            bound = self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}{self.__signature__}: {error}.") from None
        bound.apply_defaults()
        params = bound.arguments.pop("params")
        if bound.arguments["differentiable"]:
            raise NotImplementedError(
                "differentiable=True: gradients do not flow through a step. Use torch.optim for that."
            )
        super().__init__(params, dict(bound.arguments))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with its own values, checked against the rule's ranges."""
        super().add_param_group(param_group)
        try:
            self._values(self.param_groups[-1], checked=True)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: for a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            values = self._values(group)
            for x in group["params"]:
                if x.grad is not None:
                    self._step(x, values)
        return loss

    def _step(self, x: Tensor, values: dict[str, Any]) -> None:
        if x.grad.is_sparse:  # type: ignore[union-attr]
            raise RuntimeError(
                f"{type(self).__name__} does not step sparse gradients: make the layer with sparse=False."
            )
        kept = self.rule.kept(values)
        held = self.state[x]
        # torch's SGD counts no steps: a checkpoint of it that holds a buffer has taken one at least.
        t = int(held["step"]) + 1 if "step" in held else 1 + bool(held)
        before = {
            name: float(held[spec.key]) if spec.kind == "scalar" else held[spec.key]
            for name, spec in kept.items()
            if held.get(spec.key) is not None
        }
        moved, after = eager(self.rule, values, t, x, x.grad, before)  # type: ignore[arg-type]
        x.copy_(moved)
        held["step"] = torch.tensor(float(t))
        for name, spec in kept.items():
            # A number is kept in float64, whatever the weights are.
            held[spec.key] = after[name] if spec.kind == "element" else torch.tensor(after[name], dtype=torch.float64)

    def _values(self, group: dict[str, Any], checked: bool = False) -> dict[str, Any]:
        """A group's hyperparameters by the rule's names."""
        values: dict[str, Any] = {}
        for name, value in group.items():
            if name == "betas":
                values["beta1"], values["beta2"] = value
            elif name in self.rule.hyperparameters:
                values[name] = float(value) if isinstance(value, Tensor) else value
        if checked:
            for name, value in values.items():
                check(name, value)
        return {**self.rule.hyperparameters, **values}

    def state_dict(self) -> dict[str, Any]:
        """The state as torch keeps it: `torch.optim`'s class of the same name can load it."""
        return self._converted(super().state_dict(), "stored")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state of this class or of torch's class of the same name."""
        super().load_state_dict(self._converted(state_dict, "loaded"))

    def _converted(self, packed: dict[str, Any], way: str) -> dict[str, Any]:
        """A copy of a packed state with each key's converter applied that has one."""
        values = {p: self._values(group) for group in packed["param_groups"] for p in group["params"]}
        state = {p: dict(held) for p, held in packed["state"].items()}
        for p, held in state.items():
            names = {name: held.get(spec.key) for name, spec in self.rule.state.items()}
            for name, spec in self.rule.state.items():
                convert: Callable[..., Any] | None = getattr(spec, way)
                if convert is not None and names[name] is not None:
                    held[spec.key] = convert(SimpleNamespace(**values[p]), **names)
        return {**packed, "state": state}


def _default(rule: Rule, name: str) -> Any:
    if name == "betas":
        return (rule.hyperparameters["beta1"], rule.hyperparameters["beta2"])
    return TORCH_ONLY[name] if name in TORCH_ONLY else rule.hyperparameters[name]
