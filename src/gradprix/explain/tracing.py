"""Step-by-step traces of an optimizer: every variable of its rule, on a landscape or on a real network."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from gradprix import optim
from gradprix.kernels import compute_terms, init_state, rule_view, step_group
from gradprix.rules import Rule
from gradprix.tasks import Task, built_in, schedule
from gradprix.tasks.parameter_groups import parameter_groups
from gradprix.tasks.rng import RngState, stream
from gradprix.tasks.schedules import count_steps, examples_a_pass
from gradprix.training.optimizer_factories import takes_model
from gradprix.training.param_groups import build_optimizer, group_hyperparameters
from gradprix.training.plain_step import compute_plain_gradients, read_micro_batches

from .gradient_noise import draw_noise
from .landscape import Landscape
from .landscapes import LANDSCAPES
from .resolve import resolve_optimizer
from .tensor_history import TensorHistory, TensorRecorder

DIVERGED = 1e30
"""Absolute value of a coordinate above which a descent counts as diverged."""


@dataclass(frozen=True)
class Trace:
    """The record of a descent.

    Args:
        rule: the rule.
        values: all of its hyperparameters.
        losses: loss before each step, `[steps]`, or `[steps, rows]` for several starting points on a landscape. On a
            network it is the loss of the batch, on a landscape the loss without noise.
        layers: history of each parameter tensor by name. A landscape has a single one, called `x`.
    """

    rule: Rule
    values: Mapping[str, Any]
    losses: Tensor
    layers: Mapping[str, TensorHistory] = field(default_factory=dict)

    @property
    def x(self) -> TensorHistory:
        """History of the points on a landscape."""
        return self.layers["x"]


class Problem(Protocol):
    """Problem on which an optimizer is traced: parameters, and a loss with gradients at each step."""

    parameters: dict[str, Tensor]

    def losses(self) -> Iterator[tuple[Tensor, list[Tensor | None], float]]:
        """Yield the loss, the gradients and the schedule's factor before each step, at the current parameters."""
        ...


def trace(
    rule: Rule | str,
    where: Landscape | Task | str,
    steps: int,
    *,
    start: Any = None,
    seed: int = 0,
    values: Mapping[str, Any] | None = None,
    **more: Any,
) -> Trace:
    """Run an optimizer and record every variable of its rule at every step.

    The variables are computed from the rule's syntax tree, with the same arithmetic as in training; there is no code
    for individual rules.

    Args:
        rule: a rule, or the name of an optimizer, as in `gradprix list optimizers`.
        where: a landscape or its name, or a task or the name of a built-in task. On a landscape, all numbers are
            float64. On a task, the network is trained with the initial weights, batches, noise and schedule that a race
            would use for the seed.
        steps: number of steps.
        start: starting point on a landscape, `[2]`, or `[rows, 2]` for several parallel descents; the landscape's
            default if None.
        seed: seed of the gradient noise on a landscape, or of the training run on a task.
        values: hyperparameters and options; on a landscape each may be a tensor `[rows, 1]`.
        **more: further hyperparameters whose names do not collide with the arguments above.

    Raises:
        ValueError: if the rule updates matrices and `where` is a landscape, or if `steps` is below 1.
        UnknownNameError: if the optimizer is unknown.
    """
    resolved = resolve_optimizer(rule)
    rule = resolved.rule
    if isinstance(where, str):
        where = LANDSCAPES[where]() if where in LANDSCAPES else built_in(where)
    if steps < 1:
        raise ValueError(f"steps = {steps}: it must be at least 1.")
    problem: Problem = (
        _LandscapeProblem(rule, where, start, seed) if isinstance(where, Landscape) else TaskProblem(where, seed)
    )
    on_landscape = isinstance(where, Landscape)
    given = {**(values or {}), **more}
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    settings = {
        **rule.values(**{**resolved.fixed, **{n: v for n, v in given.items() if n not in tensors}}),
        **tensors,
    }
    rule_by_name = dict.fromkeys(problem.parameters, (rule, settings))
    if isinstance(problem, TaskProblem):
        rule_by_name = problem.with_groups(_assign_rules(rule, settings, problem))
    records = {name: TensorRecorder(x, on_landscape) for name, x in problem.parameters.items()}
    state: dict[str, dict[str, Any]] = {name: {} for name in problem.parameters}
    losses = []
    for t, (loss, gradients, factor) in zip(range(1, steps + 1), problem.losses(), strict=False):
        losses.append(loss)
        given_gradients = {n: g for n, g in zip(problem.parameters, gradients, strict=True) if g is not None}

        def step_tensor(
            name: str, t: int = t, factor: float = factor, gradients: Mapping[str, Tensor] = given_gradients
        ) -> None:
            (stepping_rule, hyper), x, g = rule_by_name[name], problem.parameters[name], gradients[name]
            moved = step(stepping_rule, {**hyper, "lr": hyper["lr"] * factor}, t, x, g, state[name])
            records[name].add(x, g, moved)
            x.copy_(moved["x"])

        if rule.uses_group:
            step_group(list(given_gradients), step_tensor)
        else:
            for name in given_gradients:
                step_tensor(name)
    for name, x in problem.parameters.items():
        records[name].end(x)
    layers = {name: record.layer() for name, record in records.items() if record.gradients}
    return Trace(rule, settings, torch.stack(losses), layers)


def step(rule: Rule, values: Mapping[str, Any], t: int, x: Tensor, g: Tensor, state: dict[str, Any]) -> dict[str, Any]:
    """Perform one step of a rule, and update its state in place.

    Args:
        rule: the rule.
        values: all of its hyperparameters.
        t: step number, from 1.
        x: point before the step.
        g: gradient at `x`.
        state: state of the rule by name; it is initialized at step 1.

    Returns:
        The value of each variable of the rule by name; `x` is the point after the step.
    """
    specs = rule.active_state(values)
    rule_x, rule_g = rule_view(rule, x), rule_view(rule, g)
    if t == 1:
        state |= {name: init_state(spec, values, rule_x, rule_g) for name, spec in specs.items()}
    moved = compute_terms(rule, values, t, rule_x, rule_g, state)
    state |= {name: moved.get(name, state[name]) for name in specs}
    return {**moved, "x": moved["x"].reshape(x.shape)}


def _assign_rules(rule: Rule, values: Mapping[str, Any], problem: "TaskProblem") -> dict[str, tuple[Rule, Any]]:
    """Return the rule and hyperparameters of each parameter of a network.

    All parameters have the given rule, unless its class takes a model, like that of Muon, and leaves some to AdamW.
    """
    if not takes_model(optim.from_rule(rule)):
        return dict.fromkeys(problem.parameters, (rule, values))
    given = {name: value for name, value in values.items() if name in ("lr", "momentum", "weight_decay", "nesterov")}
    given["adjust_lr_fn"] = "match_rms_adamw" if values["match_rms_adamw"] else "original"
    router: Any = build_optimizer(optim.from_rule(rule), problem.model, given)
    names = {id(x): name for name, x in problem.own.items()}
    return {
        names[id(x)]: (router.rule_of(group), router.values(group))
        for group in router.param_groups
        for x in group["params"]
    }


class _LandscapeProblem:
    """One or several points on a landscape, which descend in parallel."""

    def __init__(self, rule: Rule, landscape: Landscape, start: Any, seed: int) -> None:
        self.landscape = landscape
        x = torch.tensor(landscape.start if start is None else start, dtype=torch.float64)
        if rule.is_matrix_rule:
            raise ValueError(f"{rule.name} updates matrices, and points on landscapes are vectors: trace it on a task.")
        self.parameters = {"x": x}
        self.seed = seed

    def losses(self) -> Iterator[tuple[Tensor, list[Tensor | None], float]]:
        for t in count(1):
            loss, gradient = self.landscape.gradient(self.parameters["x"], draw_noise(self.seed, t))
            yield loss, [gradient], 1.0


class TaskProblem:
    """A network that is trained as in a race.

    Args:
        task: the problem.
        seed: seed of the run.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.model = task.network(seed)
        self.own = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.parameters = {name: p.data for name, p in self.own.items()}

    def with_groups(self, rules: Mapping[str, tuple[Rule, Any]]) -> dict[str, tuple[Rule, Any]]:
        """Return the rule and hyperparameters of each parameter, changed as the task's parameter groups require."""
        groups = parameter_groups(self.task.groups, self.model)
        settings = {name: group.settings for group in groups for name in group.names}
        return {name: (rule, group_hyperparameters(settings[name], values)) for name, (rule, values) in rules.items()}

    def losses(self) -> Iterator[tuple[Tensor, list[Tensor | None], float]]:
        """Yield the loss, the gradients and the schedule's factor before each step."""
        task, data = self.task, self.task.loaded
        train, order = data.split(self.seed).train, stream(self.seed, "order")
        noise, examples = RngState(stream(self.seed, "noise")), [RngState(stream(self.seed, "examples"))]
        examples_per_epoch = examples_a_pass(len(train), task.epochs)
        per_epoch = -(-examples_per_epoch // task.batch_size)
        total = count_steps(len(train), task.batch_size, task.epochs)
        factor = schedule(task.schedule, total)
        self.model.train()
        for t in range(total):
            if t % per_epoch == 0:
                shuffled = train[data.shuffle(train, order)][:examples_per_epoch]
            index = shuffled[t % per_epoch * task.batch_size :][: task.batch_size]
            batches = read_micro_batches(
                task, index, lambda part: tree_map(itemgetter(0), data.take(part[None], examples))
            )
            with noise, torch.enable_grad():
                loss = compute_plain_gradients(task, self.model, batches, task.clip_norm)
            yield loss, [p.grad for p in self.own.values()], factor(t)
