"""Other packages' optimizers, by stand-ins for each kind: how they race, and why some do not.

`test_optimizer_entries.py` has those that need more than parameters.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradprix as gp
from gradprix.race import TaskError, make_plan
from gradprix.rules import log, one_minus

FEW: dict[str, Any] = {"trials": 2, "seeds": 6, "processes": 2}


def data() -> gp.Data:
    x = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    return gp.Data(x, (x.sum(1) > 0).long())


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(-1) == targets).double().mean()


METRIC = gp.Metric("accuracy", accuracy, higher_is_better=True, margin=0.01)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


TASK = gp.Task("tiny", network, functional.cross_entropy, METRIC, 0.5, data, batch_size=16, epochs=2)


class Plain(torch.optim.Optimizer):
    """Gradient descent."""

    def __init__(self, params: Any, lr: float = 0.1, **more: Any) -> None:
        super().__init__(params, {"lr": lr})

    def update(self, p: torch.Tensor, lr: float) -> None:
        p.sub_(lr * p.grad)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self.update(p, group["lr"])


class Modes(Plain):
    """Steps in train mode alone, as schedulefree's classes do, and evaluates at an average."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr)
        self.training = False

    def train(self) -> None:
        if not self.training:
            self.training = True
            for p in self.param_groups[0]["params"]:
                p.data.copy_(self.state[p].get("point", p.data))

    def eval(self) -> None:
        if self.training:
            self.training = False
            for p in self.param_groups[0]["params"]:
                self.state[p]["point"] = p.data.clone()
                p.data.copy_(self.state[p]["mean"])

    def update(self, p: torch.Tensor, lr: float) -> None:
        if not self.training:
            raise Exception("Optimizer was not in train mode when step is called.")
        super().update(p, lr)
        state = self.state[p]
        state["count"] = state.get("count", 0) + 1
        state.setdefault("mean", torch.zeros_like(p)).lerp_(p, 1 / state["count"])


class NoDefault(Plain):
    """Whose learning rate has no default, as in optimi."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, lr)


class Lion(NoDefault):
    """Likewise, by a name that is known."""


class LateRate(Plain):
    """Whose learning rate comes last, after other arguments."""

    def __init__(self, params: Any, momentum: float = 0.9, *, lr: float = 0.1) -> None:
        super().__init__(params, lr)


class Graph(Plain):
    """Differentiates the gradients, as AdaHessian does."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr)

    def step(self, closure: Any = None) -> None:
        for p in self.param_groups[0]["params"]:
            with torch.enable_grad():
                (second,) = torch.autograd.grad(p.grad.square().sum(), p, retain_graph=True)
            self.state[p]["second"] = second.detach()
        super().step()


class Asks(Graph):
    """Says so itself, as other packages do."""

    def step(self, closure: Any = None) -> None:
        for p in self.param_groups[0]["params"]:
            if p.grad.grad_fn is None:
                raise RuntimeError("Gradient has no graph. Set create_graph=True when calling backward.")


class Matrices(Plain):
    """Steps matrices alone, as torch's Muon does."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr)
        if any(p.ndim != 2 for p in self.param_groups[0]["params"]):
            raise ValueError("only supports 2D parameters")


class Whole(Plain):
    """Asks for the model, as LOMO does."""

    def __init__(self, model: Any, lr: float = 0.1) -> None:
        super().__init__(model.parameters(), lr)


class Named(Plain):
    """Asks for the model, too, as AdamMini does."""

    def __init__(self, model: Any, lr: float = 0.1) -> None:
        super().__init__([p for _, p in model.named_parameters()], lr)


class Network(Plain):
    """Asks for the model by another name."""

    def __init__(self, network: Any, lr: float = 0.1) -> None:
        super().__init__([p for _, p in network.named_parameters()], lr)


class Grouped(Plain):
    """Asks for groups with a key of its own, as pytorch_optimizer's Muon does."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        for group in params:
            if "use_muon" not in group:
                raise ValueError("use_muon must be in each group")
        super().__init__(params, lr)


class Closure(Plain):
    """Finds out when it steps that it needs a closure."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr)

    def step(self, closure: Any = None) -> None:
        if closure is None:
            raise RuntimeError("Closure requires closure.")


class Argument(Plain):
    """Whose step takes the loss."""

    def step(self, loss: Any) -> None:  # type: ignore[override]
        raise NotImplementedError


class Counted(Plain):
    """Must know how many steps there will be, as Ranger21 does."""

    def __init__(self, params: Any, num_steps: int, lr: float = 0.1) -> None:
        super().__init__(params, lr)


class Wrapper(torch.optim.Optimizer):
    """Wraps another one, as Lookahead does."""

    def __init__(self, optimizer: torch.optim.Optimizer, k: int = 5) -> None: ...


@pytest.mark.sample(2)
@pytest.mark.parametrize("make", [Modes, NoDefault, LateRate, Whole, Named])
def test_another_packages_optimizer_races(make: type[torch.optim.Optimizer]) -> None:
    result = gp.race(TASK, [gp.Entry("other", make), "minibatch"], **FEW)
    assert not result.record.failed
    (other,) = (entry for entry in result.record.entries if entry.name == "other")
    assert other.final.diverged == 0
    assert other.memory == (1 if make is Modes else 0)


def test_an_optimizer_with_modes_trains_as_in_a_plain_loop_one_at_a_time_and_stacked() -> None:
    def reads(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, targets) * (1 if float(outputs.sum().detach()) < 1e9 else 2)

    entries = [gp.Entry("other", Modes, space={"lr": gp.log(0.1, 0.2)}), "minibatch"]
    stacked, alone = (gp.race(task, entries, **FEW) for task in (TASK, TASK.change(loss=reads)))
    assert [result.record.plan.mode.stacked for result in (stacked, alone)] == [True, False]
    for one, other in zip(stacked.record.entries, alone.record.entries, strict=True):
        assert one.final.values == pytest.approx(other.final.values, abs=0.13), "an example or two of 16"
        assert one.losses == pytest.approx(other.losses, rel=1e-3)


class Fused(Plain):
    """Steps within the backward pass, as LOMO does."""

    def step(self, closure: Any = None) -> None:
        raise NotImplementedError


REFUSED: dict[type[torch.optim.Optimizer], str] = {
    Graph: "backward\\(create_graph=True\\)",
    Asks: "backward\\(create_graph=True\\)",
    Matrices: r"function\(model, lr\) that returns a list of two optimizers",
    torch.optim.Muon: r"function\(model, lr\) that returns a list of two optimizers",
    Network: "asks for the model itself, .* lambda model, lr:",
    Grouped: r"function\(model, lr\) that makes the groups",
    Closure: "closure=True",
    Argument: "closure or other arguments",
    Fused: "steps? within the backward pass",
}


@pytest.mark.parametrize("make", REFUSED)
def test_what_cannot_race_is_refused_with_the_cause(make: type[torch.optim.Optimizer]) -> None:
    with pytest.raises(TaskError, match=f"optimizer 'other' on task 'tiny' cannot be raced: .*{REFUSED[make]}"):
        gp.race(TASK, [gp.Entry("other", make), "minibatch"], **FEW)


class Late(Plain):
    """Fails in its third step, after the checks before a race."""

    def step(self, closure: Any = None) -> None:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps > 2:
            raise ValueError("late on purpose")


def test_if_no_run_can_be_trained_the_optimizer_is_named() -> None:
    says = "task 'tiny' cannot be raced: training with (one|other) fails: ValueError: late on purpose"
    with pytest.raises(TaskError, match=says):
        gp.race(TASK, [gp.Entry("one", Late), gp.Entry("other", Late)], **FEW)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Counted, r"Counted needs num_steps, .* give gp.Entry\('counted', Counted, \{'num_steps': ...\}\)"),
        (Wrapper, r"takes no lr, .* give gp.Entry\('other', Wrapper, space=\{\}\)\. If it wraps .* lambda params, lr:"),
        (lambda network, lr: Plain(network, lr), "has network as its first argument: call it model"),
    ],
)
def test_arguments_that_a_race_cannot_know_are_named(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gp.Entry("other", make)
    if make is Counted:
        assert gp.Entry("other", Counted, {"num_steps": 10}).values(0.1) == {"num_steps": 10, "lr": 0.1}


def test_a_learning_rate_without_a_default_is_searched_widely() -> None:
    plan = make_plan(TASK, [gp.Entry("a", NoDefault), gp.Entry("b", Lion), "lion"], tune="beta1")
    assert [plan.entries[0].space["lr"], plan.entries[0].space["beta1"]] == [log(1e-5, 1), one_minus(2e-2, 0.5)]
    assert plan.entries[1].space["lr"] == plan.entries[2].space["lr"]
    first, *_ = plan.tuner(plan.entries[0]).ask()
    assert dict(first.point)["beta1"] == pytest.approx(0.9), "the default of the class, which has it in a tuple"


def second_order(make_optimizer: Callable[..., Any], seed: int, graph: bool = True) -> Iterator[dict[str, float]]:
    """A loop that keeps the graph of its gradients, and switches modes where there are some."""
    net, examples = network(), data()
    optimizer = make_optimizer(net.parameters())
    for _ in range(2):
        if hasattr(optimizer, "train"):
            optimizer.train()
        for index in torch.randperm(80).split(16):
            loss = functional.cross_entropy(net(examples.inputs[index]), examples.targets[index])
            grads = torch.autograd.grad(loss, list(net.parameters()), create_graph=graph)
            for p, grad in zip(net.parameters(), grads, strict=True):
                p.grad = grad
            optimizer.step()
        if hasattr(optimizer, "eval"):
            optimizer.eval()
        with torch.no_grad():
            yield {"valid": float(functional.cross_entropy(net(examples.inputs), examples.targets))}


def plain(make_optimizer: Callable[..., Any], seed: int) -> Iterator[dict[str, float]]:
    """A loop that does neither."""
    net, examples = network(), data()
    optimizer = make_optimizer(net.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(examples.inputs), examples.targets)
        loss.backward()
        optimizer.step()
        yield {"valid": loss.item()}


def test_a_loop_can_give_an_optimizer_what_it_needs() -> None:
    entries = [gp.Entry("graph", Graph), gp.Entry("modes", Modes)]
    result = gp.race(second_order, entries, direction="min", **FEW)
    assert not result.record.failed
    assert [entry.memory for entry in result.record.entries] == [1, 1]


@pytest.mark.parametrize(("make", "says"), [(Graph, "create_graph=True"), (Modes, r"call optimizer.train\(\)")])
def test_a_loop_that_does_not_is_told_what_to_do(make: type[torch.optim.Optimizer], says: str) -> None:
    with pytest.raises(TaskError, match=says):
        gp.race(plain, [gp.Entry("other", make), "minibatch"], direction="min", **FEW)


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"])
def test_schedulefree_itself_races(name: str) -> None:
    theirs = pytest.importorskip("schedulefree")
    result = gp.race(TASK, [gp.Entry("theirs", getattr(theirs, name)), "minibatch"], **FEW)
    assert not result.record.failed
