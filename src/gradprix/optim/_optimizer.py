"""Base class of all optimizers: a `torch.optim.Optimizer` that applies a rule."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import optimizer as every_optimizer

from gradprix.rules import Rule

from ._checkpoint import by_name, copy_state, from_torch, to_torch
from ._compat import preset
from ._dispatch import StepPlan
from ._eager_step import prepare, step_dtype
from ._eval_mode import is_training, to_evaluate, to_train
from ._scalars import make_contiguous
from .variants import option_defaults, with_options

TORCH_ONLY = {"foreach": None, "capturable": False, "differentiable": False, "fused": None}
"""Arguments that select an implementation in torch, with torch's defaults. By default, each tensor is stepped by the
fastest implementation that supports it: a kernel, foreach calls, or the eager step. Here `fused=False` excludes kernels
and, without `foreach=True`, foreach calls; `foreach=False` excludes foreach calls."""
_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
"""Torch's method without its decorator, which would import torch's compiler: that takes longer than importing torch."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


class RuleOptimizer(torch.optim.Optimizer):
    """Drop-in replacement for a `torch.optim` class, defined by a rule.

    Subclasses declare their rule and the order of torch's arguments; defaults come from the rule. Parameter groups have
    torch's names and values (`betas`, not `beta1`), so that schedulers and checkpoints are compatible. Classes that
    exist in torch have torch's class as second base, for `isinstance` and for `__setstate__`, which completes old
    checkpoints; neither the constructor nor the step of torch's class runs.

    Every class takes `like="torch"`, `"keras"`, `"optax"` or `"paper"`: the defaults and arithmetic of that library or
    of the paper. Explicit arguments take precedence. The options that `like` selects can also be given individually.
    """

    rule: ClassVar[Rule]
    __signature__: ClassVar[inspect.Signature]
    _options: ClassVar[tuple[str, ...]]
    _fixed: ClassVar[Mapping[str, Any]] = NOTHING

    def __init_subclass__(
        cls, rule: Rule | None = None, arguments: str = "", fixed: Mapping[str, Any] = NOTHING
    ) -> None:
        super().__init_subclass__()
        if rule is None:
            return  # user-defined subclass of an optimizer
        cls.rule, cls._fixed = rule, fixed
        positional, _, keywords = arguments.partition("*")
        either, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        cls._options = _options(rule, {*positional.split(), *keywords.split()})
        parameters = [inspect.Parameter("params", either)]
        for kind, names in ((either, positional.split()), (keyword, [*keywords.split(), *cls._options])):
            parameters += [inspect.Parameter(name, kind, default=_default(rule, name)) for name in names]
        cls.__signature__ = inspect.Signature([*parameters, inspect.Parameter("like", keyword, default=None)])
        doc = f"{rule.summary}\n\n{rule.relation} Source: {rule.source}.\n\nArguments have torch's names."
        cls.__doc__ = cls.__dict__.get("__doc__") or doc

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            bound = self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}{self.__signature__}: {error}.") from None
        given = bound.arguments
        params, like = given.pop("params"), given.pop("like", None)
        if given.get("differentiable"):
            raise NotImplementedError(
                "differentiable=True: gradients do not flow through a step. Use torch.optim for that."
            )
        if given.get("fused") and given.get("foreach"):
            raise RuntimeError("`fused` and `foreach` cannot be `True` together. Leave out one: both step alike here.")
        self._plan: StepPlan | None = None
        self._step_supports_amp_scaling = bool(given.get("fused"))  # as in torch: `step` then unscales gradients
        defaults = {
            name: p.default for name, p in self.__signature__.parameters.items() if name not in ("params", "like")
        }
        form = {} if like is None else preset(self.rule, like, given)
        form = {name: value for name, value in form.items() if name in defaults}  # two classes may share a rule
        chosen = {**defaults, **self._fixed, **form, **given}
        # Options unknown to torch are stored only if they differ from the default, so that torch can load the others.
        plain = {name for name in self._options if chosen[name] == defaults[name]}
        held = {name: value for name, value in chosen.items() if name not in plain}
        torch.optim.Optimizer.__init__(self, params, held)  # not `__init__` of torch's class, whose arguments differ

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, after checking its hyperparameters against the ranges that the rule allows.

        Raises:
            TypeError: if a key looks like a misspelt argument.
            ValueError: if a value is outside its range.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        if "like" in param_group:
            raise TypeError(
                f"{type(self).__name__}: like is for all groups. Give it to the class, or options to a group."
            )
        known = list(self.__signature__.parameters)
        for key in param_group.keys() - {*known, *self._fixed, "initial_lr"}:
            # The cutoff must not match `max_momentum`, which schedulers add.
            matches = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
            if matches:
                raise TypeError(f"{type(self).__name__}: a parameter group has {key!r}. Did you mean {matches[0]!r}?")
        if "lr" in param_group and self.defaults.get("full_lr") == self.defaults["lr"]:
            param_group.setdefault("full_lr", float(param_group["lr"]))  # initial learning rate of the group
        add = super().add_param_group if torch.compiler.is_compiling() else partial(_add_param_group, self)
        add(param_group)
        try:
            for name, value in self.values(self.param_groups[-1]).items():
                number = float(value) if isinstance(value, Tensor) else value
                self.rule_of(self.param_groups[-1]).check(name, number)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise
        self._plan = None

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Perform one step on every parameter that has a gradient: `step(closure=None)`.

        Args:
            *args: at most one argument, a closure that re-evaluates the model and returns the loss.
            **kwargs: `closure`, if it is passed by name. Hooks receive `args` and `kwargs` unchanged, as in torch.

        Returns:
            The value returned by the closure, or None without a closure.

        Raises:
            RuntimeError: if the rule does not support a gradient, such as a sparse one, or if `eval` was called and
                `train` has not been called since.
        """
        if torch.compiler.is_compiling():
            return _outside_graphs(self, *args, **kwargs)
        if type(self).step is RuleOptimizer.step and self._has_hooks():
            return _hooked_step(self, *args, **kwargs)
        return self._step(*args, **kwargs)

    step.hooked = True  # type: ignore[attr-defined]  # prevents torch from wrapping it; `_hooked_step` does so when needed
    step.__signature__ = inspect.signature(torch.optim.Optimizer.step)  # type: ignore[attr-defined]

    def _has_hooks(self) -> bool:
        """Return True if hooks or a profiler are active.

        Only then `step` runs in torch's wrapper, which takes longer than a step of a small model.
        """
        return (
            bool(self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks)
            or bool(every_optimizer._global_optimizer_pre_hooks or every_optimizer._global_optimizer_post_hooks)
            or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
        )

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        if not all(map(is_training, self.param_groups)):
            raise RuntimeError(
                f"{type(self).__name__} is in eval mode: its parameters hold the point to evaluate at, not the one "
                "being trained. Call optimizer.train() before training goes on."
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        values = [self.values(group) for group in self.param_groups]
        scale, overflow = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if not (scale is None and overflow is None) and not self._unscale(values, scale, overflow):
            return loss
        rules = [self.rule_of(group) for group in self.param_groups]
        plan = self._plan
        if plan is None or plan.rules != rules or not plan.is_valid(self.param_groups, self.state, values):
            plan = self._plan = StepPlan(rules, self.param_groups, self.state, values)
        plan.step(values)
        return loss

    @torch.no_grad()
    def _unscale(self, values: list[dict[str, Any]], scale: Tensor | None, overflow: Tensor | None) -> bool:
        """Divide the gradients by the loss scale in place; return False if the step must be skipped.

        As for torch's fused classes, `torch.amp.GradScaler` sets `scale` and `overflow` as the optimizer's attributes
        `grad_scale` and `found_inf`.

        Args:
            values: hyperparameters of each group.
            scale: the loss scale; None if the gradients are not scaled.
            overflow: nonzero if a gradient is infinite or NaN; None if that was not checked.
        """
        active = [(x, n) for n, group in enumerate(self.param_groups) for x in group["params"] if x.grad is not None]
        if overflow is not None and float(overflow):
            for x, n in active:
                rule, group = self.rule_of(self.param_groups[n]), self.param_groups[n]
                if rule.counts_steps:  # as in torch, state is created by the first attempted step
                    prepare(rule, values[n], x, self.state[x], step_dtype(group))
            return False
        if scale is not None:
            for g in {id(x.grad): x.grad for x, _ in active}.values():
                g.div_(float(scale))
        return True

    def eval(self) -> None:
        """Replace the parameters by the values to evaluate the model at, until `train` is called.

        For Schedule-Free rules, these values are the average of the iterates. For all other rules, the parameters do
        not change.
        """
        for group in self.param_groups:
            to_evaluate(self.rule_of(group), self.values(group), group, self.state)

    def train(self) -> None:
        """Restore the parameter values that `eval` has replaced, so that training can continue."""
        for group in self.param_groups:
            to_train(group, self.state)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """Return the rule that steps a parameter group: the rule of the class, or the variant that options select."""
        return with_options(self.rule, group)

    def values(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters of a parameter group under the rule's names, such as `beta1` and `beta2`.

        Hyperparameters that the group does not contain have the defaults of the rule. Tensors become numbers, except
        those on a device in a group with `capturable=True`: a captured step reads them whenever it is repeated.
        """
        rule = self.rule_of(group)
        values: dict[str, Any] = dict(rule.hyperparameters)
        for name, value in group.items():
            if names := rule.tuple_arguments.get(name):
                if not isinstance(value, tuple | list) or len(value) != len(names):
                    raise ValueError(f"{name} = {value}: {rule.name} has {len(names)}. Give as many.")
                values.update(zip(names, map(float, value), strict=True))
            elif name in values:
                stays = not isinstance(value, Tensor) or (group.get("capturable") and value.device.type != "cpu")
                values[name] = value if stays else _number(name, value)
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the format of the `torch.optim` class of the same name."""

        def convert(_: Any, packed: dict[str, Any]) -> dict[str, Any]:
            return to_torch(packed, self.rule, self.values)

        with self.register_state_dict_post_hook(convert, prepend=True):
            return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of this class or of the `torch.optim` class of the same name.

        Tensors are copied, never shared with `state_dict`. Parameters are matched by name if both the optimizer and
        `state_dict` have parameter names. If their names differ, parameters are matched by position, with a warning.

        Raises:
            ValueError: if the numbers of parameters do not match.
        """
        loaded: dict[str, Any] = {}

        # Runs after the user's pre-hooks, which see the state as stored. The user's post-hooks see the converted state.
        def convert(_: Any, packed: dict[str, Any]) -> dict[str, Any]:
            loaded.update(from_torch(by_name(packed, self.param_groups), self.rule, self.values))
            return loaded

        def copy(_: Any) -> None:
            copy_state(loaded, self.rule, self.param_groups, self.state)
            make_contiguous(self.state.values(), "step")

        self._plan = None
        with (
            self.register_load_state_dict_pre_hook(convert),
            self.register_load_state_dict_post_hook(copy, prepend=True),
        ):
            super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_plan": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"_plan": None, **state})
        parameters = self.__signature__.parameters
        for group in self.param_groups:
            for name in self._options:
                if name in group and group[name] == parameters[name].default:
                    del group[name]  # written by older versions
            if not self.rule_of(group).counts_steps:
                for x in group["params"]:
                    self.state.get(x, {}).pop("step", None)  # written by older versions


_hooked_step = torch.optim.Optimizer.profile_hook_step(RuleOptimizer._step)
# torch's public decorator, `torch.compiler.disable`, would import the compiler immediately.
_outside_graphs = torch._disable_dynamo(RuleOptimizer.step)  # type: ignore[attr-defined]


def _number(name: str, value: Tensor) -> float:
    if value.numel() != 1:
        raise ValueError(f"{name} is a tensor of shape {tuple(value.shape)}: give a number, or a tensor of one.")
    return float(value)


def _options(rule: Rule, named: set[str]) -> tuple[str, ...]:
    """Return the keyword arguments that torch's class lacks: other hyperparameters, and choices of implementation.

    Args:
        rule: rule of the class.
        named: arguments of torch's class.
    """
    known = named | {part for name, parts in rule.tuple_arguments.items() if name in named for part in parts}
    known |= {"decoupled_weight_decay"} if rule.owns_weight_decay else set()
    own = (*rule.hyperparameters, *option_defaults(rule), "foreach", "capturable", "fused")
    return tuple(name for name in own if name not in known)


def _default(rule: Rule, name: str) -> Any:
    if name in rule.tuple_arguments:
        return tuple(rule.hyperparameters[part] for part in rule.tuple_arguments[name])
    return {**TORCH_ONLY, **rule.hyperparameters, **option_defaults(rule)}[name]
