"""Parameters, gradients and state that share memory: each step does what torch.optim does, or refuses as it refuses."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from gradprix import optim

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters"),
]

CLASSES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5, "maximize": True}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.3}),
    ("RMSprop", {"momentum": 0.5, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True}),
    ("Adadelta", {"maximize": True}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"weight_decay": 0.3}),
    ("Adamax", {}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"betas": (0.5, 0.6)}),
]
OWN = ["Lion", "Adan", "AdEMAMix", "ADOPT", "ScheduleFreeSGD", "ScheduleFreeAdamW", "LAMB"]

Made = tuple[list[Any], Callable[[int], None], list[Tensor]]
"""Parameters or groups, what sets their gradients at a step, and the tensors to compare."""


def draw(count: int, t: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(t), dtype=torch.float64).to(dtype)


def leaves(*tensors: Tensor) -> list[nn.Parameter]:
    """Parameters that share the storage of tensors."""
    params = [nn.Parameter(torch.empty(0, dtype=tensor.dtype)) for tensor in tensors]
    for p, tensor in zip(params, tensors, strict=True):
        p.data = tensor
    return params


def with_gradients(params: list[nn.Parameter], base: Tensor, in_groups: bool = False) -> Made:
    def point(t: int) -> None:
        for i, p in enumerate(params):
            p.grad = draw(p.numel(), 100 * t + i, p.dtype).reshape(p.shape)

    return [{"params": [p]} for p in params] if in_groups else list(params), point, [base]


def twice_in_a_group(dtype: torch.dtype) -> Made:
    p, other = leaves(draw(5, 1, dtype), draw(3, 2, dtype))
    return with_gradients([p, other, p], p.data)


def views_that_overlap(dtype: torch.dtype) -> Made:
    base = draw(8, 1, dtype)
    return with_gradients(leaves(base[:5], base[3:], draw(4, 2, dtype)), base)


def views_that_overlap_in_groups(dtype: torch.dtype) -> Made:
    base = draw(8, 1, dtype)
    return with_gradients(leaves(base[:5], base[3:]), base, in_groups=True)


def a_view_and_its_transpose(dtype: torch.dtype) -> Made:
    base = draw(6, 1, dtype)
    return with_gradients(leaves(base.view(2, 3), base.view(2, 3).T), base)


def disjoint_views(dtype: torch.dtype) -> Made:
    base = draw(9, 1, dtype)
    return with_gradients(leaves(base[:4], base[4:]), base)


def a_shared_gradient(dtype: torch.dtype) -> Made:
    params = leaves(draw(4, 1, dtype), draw(4, 2, dtype))

    def point(t: int) -> None:
        params[0].grad = params[1].grad = draw(4, t, dtype)

    return list(params), point, [p.data for p in params]


def an_expanded_gradient(dtype: torch.dtype) -> Made:
    (p,) = leaves(draw(4, 1, dtype))

    def point(t: int) -> None:
        p.grad = draw(1, t, dtype).expand(4)

    return [p], point, [p.data]


def a_gradient_that_is_the_parameter(dtype: torch.dtype) -> Made:
    (p,) = leaves(draw(4, 1, dtype))

    def point(t: int) -> None:
        p.grad = p.detach()

    return [p], point, [p.data]


def a_gradient_that_is_another_parameter(dtype: torch.dtype) -> Made:
    params = leaves(draw(4, 1, dtype), draw(4, 2, dtype), draw(4, 3, dtype))

    def point(t: int) -> None:
        for i, p in enumerate(params):
            p.grad = params[0].detach() if t % 2 and i else draw(4, 10 * t + i, dtype)

    return list(params), point, [p.data for p in params]


MAKERS = [
    *(twice_in_a_group, views_that_overlap, views_that_overlap_in_groups, a_view_and_its_transpose, disjoint_views),
    *(a_shared_gradient, an_expanded_gradient, a_gradient_that_is_the_parameter, a_gradient_that_is_another_parameter),
]


def end_of(module: Any, name: str, maker: Callable[..., Made], dtype: torch.dtype, steps: int, **given: Any) -> Any:
    params, point, watched = maker(dtype)
    eager = given.pop("eager", False)
    optimizer = getattr(module, name)(params, lr=0.05, **given)
    if eager:
        for group in optimizer.param_groups:
            group["fused"] = False
    for t in range(steps):
        point(t)
        optimizer.step()
    return [x.clone() for x in watched], optimizer.state_dict()["state"] if dtype.itemsize > 2 else {}


def assert_same_state(ours: Any, theirs: Any, **bound: float) -> None:
    assert ours.keys() == theirs.keys()
    for number, held in theirs.items():
        assert ours[number].keys() >= held.keys()
        for key, value in held.items():
            torch.testing.assert_close(ours[number][key], value, **bound)


@pytest.mark.sample(5)
@pytest.mark.parametrize("maker", MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize(("name", "given"), CLASSES, ids=str)
@pytest.mark.parametrize("eager", [False, True], ids=["fused", "eager"])
def test_shared_memory_is_stepped_as_in_torch(maker: Any, name: str, given: dict[str, Any], eager: bool) -> None:
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        ours, state = end_of(optim, name, maker, dtype, 6, eager=eager, **given)
        theirs, expected = end_of(torch.optim, name, maker, dtype, 6, **given)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=bound, atol=bound)
        assert_same_state(state, expected, rtol=max(bound, 1e-6), atol=max(bound, 1e-6))


def shared_step(state: dict[str, Tensor], other: dict[str, Tensor], p: nn.Parameter) -> None:
    other["step"] = state["step"]


def shared_average(state: dict[str, Tensor], other: dict[str, Tensor], p: nn.Parameter) -> None:
    other["exp_avg"] = state["exp_avg"][:]


def averages_that_overlap(state: dict[str, Tensor], other: dict[str, Tensor], p: nn.Parameter) -> None:
    base = torch.zeros(6, dtype=p.dtype)
    state["exp_avg"], other["exp_avg_sq"] = base[:4], base[2:]


def an_average_that_is_the_gradient(state: dict[str, Tensor], other: dict[str, Tensor], p: nn.Parameter) -> None:
    state["exp_avg"] = p.grad.detach()


def an_average_that_is_the_parameter(state: dict[str, Tensor], other: dict[str, Tensor], p: nn.Parameter) -> None:
    state["exp_avg_sq"] = p.detach()


SHARINGS = [
    *(shared_step, shared_average, averages_that_overlap),
    *(an_average_that_is_the_gradient, an_average_that_is_the_parameter),
]


@pytest.mark.parametrize("share", SHARINGS, ids=lambda s: s.__name__)
@pytest.mark.parametrize("when", [0, 2])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RAdam"])
def test_shared_state_is_stepped_as_in_torch(name: str, when: int, share: Callable[..., None]) -> None:
    ends = []
    for module in (torch.optim, optim):
        params = leaves(draw(4, 1, torch.float64).abs(), draw(4, 2, torch.float64), draw(4, 3, torch.float64))
        optimizer = getattr(module, name)(params, lr=0.05, weight_decay=0.1)
        for t in range(5):
            for i, p in enumerate(params):
                p.grad = draw(4, 10 * t + i, torch.float64)
            if t == when:
                if not optimizer.state:
                    more = {"mu_product": torch.ones(())} if name == "NAdam" else {}
                    for p in params:
                        averages = {"exp_avg": torch.zeros(4), "exp_avg_sq": torch.zeros(4)}
                        optimizer.state[p] = {"step": torch.zeros(()), **averages, **copy.deepcopy(more)}
                share(optimizer.state[params[0]], optimizer.state[params[2]], params[0])
            optimizer.step()
        ends.append([*(p.detach() for p in params), *(v for p in params for v in optimizer.state[p].values())])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_a_class_that_torch_lacks_steps_every_occurrence_in_turn(name: str, eager: bool) -> None:
    ends = []
    for times in (1, 2):
        p, other = leaves(draw(6, 1, torch.float64), draw(6, 2, torch.float64))
        optimizer = getattr(optim, name)([other, *[p] * times], lr=0.05)
        if eager:
            optimizer.param_groups[0]["fused"] = False
        for t in range(3):
            p.grad = draw(6, t, torch.float64)
            for _ in range(3 - times):
                optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


@pytest.mark.sample(4)
@pytest.mark.parametrize("maker", [twice_in_a_group, views_that_overlap, a_view_and_its_transpose, disjoint_views])
@pytest.mark.parametrize(("name", "given"), CLASSES, ids=str)
def test_half_precision_follows_float64(maker: Any, name: str, given: dict[str, Any]) -> None:
    ours, _ = end_of(optim, name, maker, torch.bfloat16, 4, **given)
    theirs, _ = end_of(torch.optim, name, maker, torch.float64, 4, **given)
    assert (ours[0].double() - theirs[0]).abs().max() < 0.05 * theirs[0].abs().max()


@pytest.mark.parametrize("name", ["SGD", "Adam", "Lion", "LAMB", "ScheduleFreeAdamW"])
@pytest.mark.parametrize("eager", [False, True])
def test_a_parameter_whose_elements_are_one_is_refused_before_anything_moves(name: str, eager: bool) -> None:
    (plain,) = leaves(draw(4, 1, torch.float64))
    (odd,) = leaves(torch.zeros(1).expand(4))
    optimizer = getattr(optim, name)([plain, odd], lr=0.1)
    if eager:
        optimizer.param_groups[0]["fused"] = False
    plain.grad, odd.grad, before = torch.ones(4), torch.ones(4), plain.detach().clone()
    with pytest.raises(RuntimeError, match="one place in memory"):
        optimizer.step()
    assert torch.equal(plain, before)
    assert torch.equal(odd, torch.zeros(4))


def test_state_whose_elements_are_one_is_refused_before_anything_moves() -> None:
    (p,) = leaves(torch.ones(4))
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    optimizer.state[p]["momentum_buffer"] = torch.zeros(1).expand(4)
    p.grad = torch.ones(4)
    with pytest.raises(RuntimeError, match="'momentum_buffer'.*one place in memory"):
        optimizer.step()
    assert torch.equal(p, torch.ones(4))


def test_hooks_of_all_optimizers_see_one_step_of_a_duplicate() -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = optim.Adam([p, p], lr=0.1)
    p.grad, seen = torch.ones(3), []
    handle = register_optimizer_step_post_hook(lambda o, *_: seen.append(o))
    try:
        optimizer.step()
    finally:
        handle.remove()
    assert seen == [optimizer]


def test_what_stops_to_overlap_is_stepped_like_everything_else() -> None:
    ends = []
    for module in (torch.optim, optim):
        base = draw(8, 1, torch.float64)
        params = leaves(base[:5], base[3:])
        optimizer = module.Adam(params, lr=0.1, amsgrad=True)
        for t in range(6):
            if t == 3:
                params[1].data = params[1].data.clone()
            for i, p in enumerate(params):
                p.grad = draw(5, 10 * t + i, torch.float64)
            optimizer.step()
        ends.append(torch.cat([p.detach() for p in params]))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)
