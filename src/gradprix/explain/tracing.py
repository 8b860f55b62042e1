"""What an optimizer did, step by step: every named term of its rule, on a landscape or on a real network."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradprix import optim
from gradprix.kernels import start, terms
from gradprix.rules import Rule
from gradprix.tasks import Task, built_in, schedule
from gradprix.tasks.rng import Luck, stream
from gradprix.tasks.schedules import count_steps, examples_a_pass
from gradprix.tasks.task import called_with

from .landscapes import LANDSCAPES, Landscape
from .resolve import subject
from .tensor_history import Layer, Record

DIVERGED = 1e30
"""A loss beyond which a descent is over: what comes after is not worth a number."""


@dataclass(frozen=True)
class Trace:
    """A descent, laid open.

    Args:
        rule: the rule.
        values: its hyperparameters.
        losses: before each step, `[steps]` or `[steps, rows]`: of the batch on a network, without noise on a landscape.
        layers: each tensor's, by its name; a landscape's one is called `x`.
    """

    rule: Rule
    values: Mapping[str, Any]
    losses: Tensor
    layers: Mapping[str, Layer] = field(default_factory=dict)

    @property
    def x(self) -> Layer:
        """The one tensor of a landscape."""
        return self.layers["x"]


class Problem(Protocol):
    """Where an optimizer can be traced: parameters, and a loss with gradients at each step."""

    parameters: dict[str, Tensor]

    def losses(self) -> Iterator[tuple[Tensor, list[Tensor | None], float]]:
        """Loss, gradients and the factor on the learning rate at each step, for the parameters as they then are."""
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
    """Descend with a rule, and record every term of every step.

    The terms are computed from the rule's own tree, by the arithmetic that trains; nothing is said of any one rule.

    Args:
        rule: a rule, or the name of an optimizer, as in `gradprix list optimizers`.
        where: a landscape, in float64, or its name; or a task, or the name of one that is built in, whose network under
            this seed is trained with the batches, the noise and the schedule of a race.
        steps: how many.
        start: where on a landscape, `[2]` or `[rows, 2]`: many descents at once; its own start when None.
        seed: of the noise in gradients, or of the network.
        values: hyperparameters and options; on a landscape each may be a tensor `[rows, 1]`.
        **more: likewise, where their names are not those above.

    Raises:
        ValueError: for a rule of matrices on a landscape, or for no steps.
        UnknownNameError: for a name that no optimizer has.
    """
    its = subject(rule)
    rule = its.rule
    if isinstance(where, str):
        where = LANDSCAPES[where]() if where in LANDSCAPES else built_in(where)
    if steps < 1:
        raise ValueError(f"steps = {steps}: there must be 1 or more.")
    problem: Problem = _OnLandscape(rule, where, start, seed) if isinstance(where, Landscape) else OnTask(where, seed)
    whole = isinstance(where, Landscape)
    given = {**(values or {}), **more}
    many = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    own = {**rule.values(**{**its.fixed, **{n: v for n, v in given.items() if n not in many}}), **many}
    of_each = _rules(rule, own, problem.parameters)
    records = {name: Record(x, whole) for name, x in problem.parameters.items()}
    state: dict[str, dict[str, Any]] = {name: {} for name in problem.parameters}
    found = []
    for t, (loss, gradients, factor) in zip(range(1, steps + 1), problem.losses(), strict=False):
        found.append(loss)
        for (name, x), g in zip(problem.parameters.items(), gradients, strict=True):
            if g is not None:
                stepsit, hyper = of_each[name]
                moved = step(stepsit, {**hyper, "lr": hyper["lr"] * factor}, t, x, g, state[name])
                records[name].add(x, g, moved)
                x.copy_(moved["x"])
    for name, x in problem.parameters.items():
        records[name].end(x)
    layers = {name: record.layer() for name, record in records.items() if record.gradients}
    return Trace(rule, own, torch.stack(found), layers)


def step(rule: Rule, values: Mapping[str, Any], t: int, x: Tensor, g: Tensor, state: dict[str, Any]) -> dict[str, Any]:
    """One step of a rule with its terms; `state` goes on."""
    kept = rule.kept(values)
    if t == 1:
        state |= {name: start(spec, values, x, g) for name, spec in kept.items()}
    seen_x, seen_g = (y.flatten(1) if rule.of_matrices else y for y in (x, g))
    moved = terms(rule, values, t, seen_x, seen_g, state)
    state |= {name: moved.get(name, state[name]) for name in kept}
    return {**moved, "x": moved["x"].reshape(x.shape)}


def _rules(rule: Rule, values: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, tuple[Rule, Any]]:
    """Which rule steps each parameter, with which values: Muon leaves what is no matrix to AdamW."""
    if not rule.of_matrices:
        return dict.fromkeys(parameters, (rule, values))
    given = {name: value for name, value in values.items() if name in ("lr", "momentum", "weight_decay", "nesterov")}
    router = optim.of(rule)([nn.Parameter(x, requires_grad=True) for x in parameters.values()], **given)
    names = {x.data_ptr(): name for name, x in parameters.items()}
    return {
        names[x.data_ptr()]: (router.rule_of(group), router.values(group))
        for group in router.param_groups
        for x in group["params"]
    }


class _OnLandscape:
    """Points of a landscape, descending side by side."""

    def __init__(self, rule: Rule, landscape: Landscape, start: Any, seed: int) -> None:
        self.landscape = landscape
        x = torch.tensor(landscape.start if start is None else start, dtype=torch.float64)
        if rule.of_matrices:
            raise ValueError(f"{rule.name} steps matrices, and a point of a landscape is none: trace it on a task.")
        self.parameters = {"x": x}
        self.generator = stream(seed, "noise")

    def losses(self) -> Iterator[tuple[Tensor, list[Tensor | None], float]]:
        while True:
            loss, gradient = self.landscape.gradient(self.parameters["x"], self.generator)
            yield loss, [gradient], 1.0


class OnTask:
    """A network, trained as a race trains it.

    Args:
        task: the problem.
        seed: of the run.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.model = task.network(seed)
        self.own = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.parameters = {name: p.data for name, p in self.own.items()}

    def losses(self) -> Iterator[tuple[Tensor, list[Tensor | None], float]]:
        """Loss, gradients and the factor on the learning rate at each step."""
        task, data = self.task, self.task.loaded
        train, order = data.split(self.seed).train, stream(self.seed, "order")
        noise, examples = Luck(stream(self.seed, "noise")), [Luck(stream(self.seed, "examples"))]
        seen = examples_a_pass(len(train), task.epochs)
        per_epoch = -(-seen // task.batch_size)
        total = count_steps(len(train), task.batch_size, task.epochs)
        factor = schedule(task.schedule, total)
        self.model.train()
        for t in range(total):
            if t % per_epoch == 0:
                shuffled = train[torch.randperm(len(train), generator=order)][:seen]
            index = shuffled[t % per_epoch * task.batch_size :][: task.batch_size]
            inputs, targets = tree_map(itemgetter(0), data.take(index[None], examples))
            args, kwargs = called_with(inputs)
            self.model.zero_grad()
            with noise, torch.enable_grad():
                loss = task.loss(self.model(*args, **kwargs), targets)
                loss.backward()  # type: ignore[no-untyped-call]
            yield loss.detach(), [p.grad for p in self.own.values()], factor(t)
