"""Every class against torch's class of the same name, step by step in float64."""

import copy
import random
from fractions import Fraction
from typing import Any

import pytest
import torch

from gradprix import optim

ADAM_LIKE: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3},
    {"weight_decay": 0.1},
    {"maximize": True, "weight_decay": 0.1},
    {"lr": 10.0},
]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
        {"lr": 0.1, "dampening": 0.5},
        {"lr": 10.0, "weight_decay": 0.1},
    ],
    "Adagrad": [
        {},
        {"lr": 0.5, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.3, "eps": 1e-3},
        {"maximize": True},
    ],
    "RMSprop": [
        {},
        {"centered": True},
        {"momentum": 0.9, "alpha": 0.8},
        {"centered": True, "momentum": 0.9, "weight_decay": 0.1, "maximize": True, "eps": 1e-3},
    ],
    "Adadelta": [{}, {"lr": 0.3, "rho": 0.5, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}],
    "Adam": [*ADAM_LIKE, {"amsgrad": True, "weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "AdamW": [*ADAM_LIKE, {"amsgrad": True}, {"weight_decay": 0.0}],
    "Adamax": ADAM_LIKE,
    "NAdam": [*ADAM_LIKE, {"momentum_decay": 0.3}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "RAdam": [*ADAM_LIKE, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "Rprop": [{}, {"lr": 0.1, "etas": (0.7, 1.5), "step_sizes": (1e-3, 0.5), "maximize": True}],
    "Adafactor": [
        {},
        {"lr": 0.1, "beta2_decay": -0.5, "eps": (1e-3, 0.1), "d": 2.0, "weight_decay": 0.1, "maximize": True},
    ],
    "ASGD": [{}, {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "t0": 10, "weight_decay": 0.1, "maximize": True}, {"t0": 0}],
}
CASES = [pytest.param(name, kwargs, id=f"{name}-{kwargs}") for name, many in VARIANTS.items() for kwargs in many]
pytestmark = pytest.mark.usefixtures("float64")


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 3), (7,), (2, 2, 2))]


def steps(pairs: list[tuple[Any, list[torch.nn.Parameter]]], first: int, last: int) -> None:
    """Step each optimizer on the same gradients, which come and go for the second tensor."""
    for t in range(first, last):
        generator = torch.Generator().manual_seed(1000 + t)
        gradients = [torch.randn(p.shape, generator=generator) for p in pairs[0][1]]
        for optimizer, params in pairs:
            for i, (p, g) in enumerate(zip(params, gradients, strict=True)):
                p.grad = None if i == 1 and t % 3 == 1 else g.clone()
            optimizer.step()


def assert_equal(ours: list[torch.nn.Parameter], theirs: list[torch.nn.Parameter]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_agrees_with_torch_over_100_steps(name: str, kwargs: dict[str, Any]) -> None:
    pairs = [(getattr(module, name)(params := parameters(), **kwargs), params) for module in (optim, torch.optim)]
    for t in range(100):
        steps(pairs, t, t + 1)
        assert_equal(pairs[0][1], pairs[1][1])


@pytest.mark.parametrize("name", VARIANTS)
def test_groups_have_their_own_values(name: str) -> None:
    pairs = []
    for module in (optim, torch.optim):
        a, b, c = parameters()
        decay = {} if name == "Rprop" else {"weight_decay": 0.2}  # which torch's Rprop lacks, and ignores in a group
        optimizer = getattr(module, name)([{"params": [a]}, {"params": [b], "lr": 0.3, **decay}], lr=0.01)
        optimizer.add_param_group({"params": [c], "lr": 0.2})
        pairs.append((optimizer, [a, b, c]))
    steps(pairs, 0, 30)
    assert_equal(pairs[0][1], pairs[1][1])


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_a_checkpoint_continues_in_torch_and_back(name: str, kwargs: dict[str, Any]) -> None:
    ours, theirs, switched, back = (parameters() for _ in range(4))
    a, b = getattr(optim, name)(ours, **kwargs), getattr(torch.optim, name)(theirs, **kwargs)
    c, d = getattr(torch.optim, name)(switched, **kwargs), getattr(optim, name)(back, **kwargs)
    steps([(a, ours), (b, theirs)], 0, 20)
    for target, source, optimizer, checkpoint in ((switched, ours, c, a), (back, theirs, d, b)):
        for p, q in zip(target, source, strict=True):
            p.data.copy_(q.data)
        optimizer.load_state_dict(copy.deepcopy(checkpoint.state_dict()))
    steps([(a, ours), (b, theirs), (c, switched), (d, back)], 20, 40)
    assert_equal(switched, theirs)
    assert_equal(back, ours)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_scheduler_and_a_closure_work(name: str) -> None:
    results = []
    for module in (optim, torch.optim):
        params = parameters()
        optimizer = getattr(module, name)(params, lr=0.1)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

        def closure(optimizer: Any = optimizer, params: Any = params) -> torch.Tensor:
            optimizer.zero_grad()
            loss = sum((p**2).sum() for p in params)
            loss.backward()
            return loss

        losses = []
        for _ in range(10):
            losses.append(optimizer.step(closure).item())
            scheduler.step()
        results.append((params, losses))
    assert_equal(results[0][0], results[1][0])
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_not_changed(name: str) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.full((3,), 2.0)
    getattr(optim, name)([p], weight_decay=0.5, maximize=True).step()
    assert p.grad.tolist() == [2.0, 2.0, 2.0]


def test_centered_rmsprop_survives_a_constant_gradient() -> None:
    # torch's v - m**2 turns negative by rounding at about step 1,200 in float32 and its square root is not a number.
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float32))
    optimizer = optim.RMSprop([p], centered=True)
    for _ in range(3000):
        p.grad = torch.full((1,), 0.37, dtype=torch.float32)
        optimizer.step()
    assert torch.isfinite(p).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.Adam(p, lr=-1), "lr = -1: it must be a finite number from 0 up"),
        (lambda p: optim.Adam(p, betas=(1.0, 0.9)), r"beta1 = 1.0: it must be in \[0, 1\)"),
        (lambda p: optim.SGD(p, momentum=1.5), r"momentum = 1.5: it must be in \[0, 1\)"),
        (lambda p: optim.NAdam(p, momentum=0.9), "unexpected keyword argument 'momentum'"),
        (lambda p: optim.Adam([{"params": p, "lr": float("nan")}]), "lr = nan"),
        (lambda p: optim.Adam(p, differentiable=True), "gradients do not flow"),
    ],
)
def test_wrong_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=message):
        make(parameters())


def test_sparse_gradients_are_refused() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3).to_sparse()
    with pytest.raises(RuntimeError, match="sparse=False"):
        optim.Adam([p]).step()


def test_a_checkpoint_of_centered_rmsprop_loses_nothing() -> None:
    # The variance is tiny beside the mean here, so that recomputing it from torch's raw moment would lose all of it.
    def run(steps: int, saved_at: int | None) -> torch.Tensor:
        p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float32))
        optimizer = optim.RMSprop([p], centered=True)
        for t in range(steps):
            if t == saved_at:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = optim.RMSprop([p], centered=True)
                optimizer.load_state_dict(state)
            generator = torch.Generator().manual_seed(t)
            p.grad = 1 + 1e-4 * torch.randn(3, generator=generator, dtype=torch.float32)
            optimizer.step()
        return p.detach()

    assert torch.equal(run(600, None), run(600, 500))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "Adafactor"])  # which torch refuses
def test_complex_parameters(name: str) -> None:
    made = []
    for module in (optim, torch.optim):
        p = torch.nn.Parameter(torch.tensor([1 + 1j, 2 - 1j], dtype=torch.complex128))
        optimizer = getattr(module, name)([p], lr=0.1)
        for t in range(10):
            p.grad = torch.tensor([0.3 + t * 1j, 1 - 0.2j * t], dtype=torch.complex128)
            optimizer.step()
        made.append(p.detach())
    torch.testing.assert_close(*made, rtol=1e-12, atol=1e-12)


def test_a_class_of_ones_own_may_be_derived() -> None:
    class Mine(optim.Adam):
        pass

    p = parameters()
    assert Mine(p, lr=0.3).param_groups[0]["lr"] == 0.3
    assert optim.from_rule(optim.Adam.rule) is optim.Adam


def test_a_misspelt_group_key_is_refused() -> None:
    with pytest.raises(TypeError, match="a parameter group has 'weigth_decay'. Did you mean 'weight_decay'?"):
        optim.Adam([{"params": parameters(), "weigth_decay": 0.1}])
    optim.Adam([{"params": parameters(), "label": "one's own keys are welcome"}])


def test_named_parameters_are_matched_by_name() -> None:
    a, b, _ = parameters()
    first = optim.Adam([("a", a), ("b", b)])
    a.grad, b.grad = torch.ones_like(a), 2 * torch.ones_like(b)
    first.step()
    second = optim.Adam([("b", b), ("a", a)])
    second.load_state_dict(first.state_dict())

    assert torch.equal(second.state[a]["exp_avg"], first.state[a]["exp_avg"])
    assert torch.equal(second.state[b]["exp_avg"], first.state[b]["exp_avg"])
    assert second.state[a]["exp_avg"].data_ptr() != first.state[a]["exp_avg"].data_ptr(), "copied, not shared"
    with pytest.warns(UserWarning, match=r"name different parameters \(b, c\): they are matched in order"):
        optim.Adam([("c", b), ("a", a)]).load_state_dict(first.state_dict())


def test_centered_rmsprop_keeps_the_variance_exact_and_non_negative() -> None:
    # Against a run in exact fractions: a mean of one and deviations of a millionth lose every digit in v - m**2.
    alpha, rng = Fraction(99, 100), random.Random(4)
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = optim.RMSprop([p], lr=0.0, centered=True, alpha=0.99)
    m, s = Fraction(0), Fraction(0)
    for _ in range(2000):
        g = 1 + 1e-6 * rng.random()
        p.grad = torch.full((1,), g)
        optimizer.step()
        exact = Fraction(g)
        s = (alpha * s + alpha * (1 - alpha) * (exact - m) ** 2).limit_denominator(10**60)
        m = (alpha * m + (1 - alpha) * exact).limit_denominator(10**60)
    held = optimizer.state[p]
    assert held["square_avg"].item() == pytest.approx(float(s), rel=1e-9)
    assert held["grad_avg"].item() == pytest.approx(float(m), rel=1e-14)
