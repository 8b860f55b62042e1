"""Whatever a user changes under an optimizer between two steps, it does what torch.optim does, and touches no other
memory."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradprix import optim

Change = Callable[[torch.optim.Optimizer, list[nn.Parameter]], None]


def point(p: list[nn.Parameter], by: float = 1.0) -> None:
    for i, x in enumerate(p):
        x.grad = by * (1 + i) * torch.ones_like(x)


def move_state(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    for value in o.state[p[0]].values():
        if value.dim():
            value.data = value.data.clone() * 2


def share_state(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    for value in o.state[p[0]].values():
        value.share_memory_()


def shrink(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    o.state.clear()
    p[0].grad = None
    p[0].data = p[0].data[:3]


def replace(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    new = nn.Parameter(p[0].detach().clone())
    o.param_groups[0]["params"][0] = new
    o.state[new] = o.state.pop(p[0])
    p[0] = new


def swap_groups(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    first, second = o.param_groups
    first["params"], second["params"] = second["params"], first["params"]


def empty_state(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    o.state[p[0]] = {}


def step_in_place(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    o.state[p[0]]["step"].fill_(1000)


def step_anew(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    o.state[p[0]]["step"] = torch.tensor(0.0)


def state_anew(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    o.state[p[0]]["exp_avg"] = torch.full_like(p[0], 3.0)


def data_anew(o: torch.optim.Optimizer, p: list[nn.Parameter]) -> None:
    p[0].data = p[0].data.clone()


CHANGES = [
    *(move_state, share_state, shrink, replace, swap_groups, empty_state, step_in_place, step_anew, state_anew),
    *(data_anew, lambda o, p: o.state.clear(), lambda o, p: p.reverse()),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_what_is_changed_between_steps_is_seen(change: Change) -> None:
    found = []
    for module in (torch.optim, optim):
        p = [nn.Parameter(torch.ones(n, dtype=torch.float64)) for n in (8, 5)]
        o = module.Adam([{"params": [p[0]]}, {"params": [p[1]], "lr": 0.5}], lr=0.1)
        for by in (1.0, 1.0):
            point(p, by)
            o.step()
        change(o, p)
        for by in (-0.01, 0.3):
            point(p, by)
            o.step()
        held = {f"{i} {key}": value.double() for i, x in enumerate(p) for key, value in o.state[x].items()}
        found.append({**held, **{str(i): x.detach() for i, x in enumerate(p)}})
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-7, atol=1e-12, msg=name)


def test_state_of_another_network_is_refused_before_anything_moves() -> None:
    other, a, b = (nn.Parameter(torch.ones(n)) for n in (4, 4, 1000))
    first = optim.Adam([nn.Parameter(torch.ones(4)), other])
    point([x for group in first.param_groups for x in group["params"]])
    first.step()
    second = optim.Adam([a, b])
    second.load_state_dict(first.state_dict())
    point([a, b])
    with pytest.raises(RuntimeError, match=r"'exp_avg' of a parameter of shape \(1000,\) has shape \(4,\)"):
        second.step()
    assert torch.equal(a, torch.ones(4))


@pytest.mark.parametrize("side", [8, 260], ids=["stacked", "alone"])
@pytest.mark.parametrize("name", ["AdamW", "DoG", "Adafactor", "Shampoo", "Muon"])
def test_matrices_that_are_transposed_at_the_same_address(name: str, side: int) -> None:
    results = []
    for fused in (None, False):
        generator = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(side, side, generator=generator, dtype=torch.float64)) for _ in range(3)]
        optimizer = getattr(optim, name)(params, lr=0.1, fused=fused)
        for t in range(4):
            for x in params:
                x.grad = torch.randn(side, side, generator=generator, dtype=torch.float64)
            optimizer.step()
            if t == 1:
                params[1].data = params[1].data.T
        results.append(params)
    for ours, eager in zip(*results, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-9, atol=1e-9)


class Wrapped(Tensor):
    """A tensor subclass, as libraries make them."""


def zeros() -> Tensor:
    return torch._efficientzerotensor(4)


def negative() -> Tensor:
    return (torch.ones(4, dtype=torch.complex64) * (1 + 2j)).conj().imag


@pytest.mark.parametrize("first", [True, False], ids=["first step", "later"])
@pytest.mark.parametrize("make", [zeros, negative, lambda: torch.ones(4).as_subclass(Wrapped)])
def test_gradients_that_are_no_plain_memory(make: Callable[[], Tensor], first: bool) -> None:
    found = []
    for module in (torch.optim, optim):
        p = nn.Parameter(torch.ones(4))
        o = module.SGD([p], lr=0.1)
        if not first:
            point([p])
            o.step()
        p.grad = make()
        o.step()
        found.append(p.detach())
    assert torch.equal(*found)


def test_autograd_sees_that_a_step_changed_the_parameters() -> None:
    w = nn.Parameter(torch.ones(3))
    o = optim.SGD([w], lr=0.5)
    loss = (w**2).sum()
    loss.backward(retain_graph=True)
    o.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_overwritten_half_precision_weight_stays_overwritten(dtype: torch.dtype, fused: bool | None) -> None:
    p = nn.Parameter(torch.arange(1, 7).to(dtype))
    o = optim.SGD([p], lr=0.0103, fused=fused)
    p.grad = torch.rand(6).to(dtype)
    o.step()
    with torch.no_grad():
        p.zero_()
    p.grad = torch.zeros_like(p)
    o.step()
    assert torch.equal(p, torch.zeros_like(p))


def test_compensation_of_another_dtype_is_dropped() -> None:
    p = nn.Parameter(torch.full((4,), 9000.0, dtype=torch.float16))
    o = optim.SGD([p], lr=0.77)
    p.grad = torch.rand(4).half()
    o.step()
    p.data = p.data.bfloat16()
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    o.step()
    assert torch.equal(p, before)
    p.data = p.data.double()
    p.grad = torch.zeros_like(p)
    o.step()
    assert "compensation" not in o.state[p]


def test_hooks_of_others_see_what_is_stored_and_have_the_last_word() -> None:
    p = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    o = optim.Adam([("a", p[0]), ("b", p[1])])
    point(p)
    o.step()
    o.register_state_dict_post_hook(lambda _, packed: {"wrapped": packed})
    packed = o.state_dict()
    assert set(packed) == {"wrapped"}

    def unwrap(_: Any, given: dict[str, Any]) -> dict[str, Any]:
        inner = copy.deepcopy(given["wrapped"])
        inner["state"][0], inner["state"][1] = inner["state"][1], inner["state"][0]
        inner["param_groups"][0]["param_names"] = ["x", "y"]
        return inner

    q = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    second = optim.Adam([("x", q[0]), ("y", q[1])])
    second.register_load_state_dict_pre_hook(unwrap)
    second.load_state_dict(packed)
    assert torch.equal(second.state[q[0]]["exp_avg"], o.state[p[1]]["exp_avg"])


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of torch's Adagrad
@pytest.mark.parametrize(("name", "given"), [("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adagrad", {})])
def test_sparse_gradients_are_stepped_where_torch_does(name: str, given: dict[str, float]) -> None:
    found = []
    for module in (torch.optim, optim):
        torch.manual_seed(0)
        table, scale = nn.Embedding(5, 2, sparse=True), nn.Parameter(torch.ones(2))
        o = getattr(module, name)([scale, *table.parameters()], lr=0.1, **given)
        for index in ([1, 1], [3], [1, 4]):
            o.zero_grad()
            (table(torch.tensor(index)) * scale).sum().backward()
            o.step()
        found.append(torch.cat([scale.detach(), table.weight.detach().flatten()]))
    torch.testing.assert_close(*found)


def test_a_refused_gradient_leaves_everything_as_it_was() -> None:
    table, scale = nn.Embedding(5, 2, sparse=True), nn.Parameter(torch.ones(2))
    o = optim.Adam([scale, *table.parameters()])
    (table(torch.tensor([1])) * scale).sum().backward()
    with pytest.raises(RuntimeError, match="adam does not step sparse gradients"):
        o.step()
    assert torch.equal(scale, torch.ones(2))


def test_torchs_names_and_modules_are_there_under_ours() -> None:
    from gradprix.optim.lr_scheduler import StepLR
    from gradprix.optim.swa_utils import AveragedModel

    assert StepLR is torch.optim.lr_scheduler.StepLR
    assert AveragedModel is torch.optim.swa_utils.AveragedModel
    assert optim.Optimizer is torch.optim.Optimizer
    assert isinstance(optim.Adam([nn.Parameter(torch.ones(1))]), optim.Optimizer)


class Derived(optim.Adam):
    """A class of a user's that does something of its own at each step."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def test_a_derived_class_steps_in_a_compiled_function() -> None:
    p = nn.Parameter(torch.ones(3))
    o = Derived([p], lr=0.1)

    @torch.compile(backend="eager")
    def train() -> None:
        o.zero_grad()
        (p**2).sum().backward()
        o.step()

    train()
    assert torch.allclose(p, torch.full((3,), 0.9))


def test_a_group_keeps_its_own_full_rate_like_the_paper() -> None:
    p, q = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    o = optim.AdamW([{"params": [p]}, {"params": [q], "lr": 1e-4}], like="paper", weight_decay=0.01)
    for x in (p, q):
        x.grad = torch.zeros(1)
    o.step()
    assert p.item() == q.item() == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nesterov": True}, "nesterov looks one step ahead of a momentum"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov looks one step ahead of a momentum"),
        ({"lr": torch.tensor([0.1, 0.2])}, "lr is a tensor of shape"),
        ({"lr": "fast"}, "lr = 'fast': it must be a number"),
    ],
)
def test_arguments_are_refused_with_what_to_do(given: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        optim.SGD([nn.Parameter(torch.ones(1))], **given)


def test_keys_of_torchs_schedulers_may_be_in_a_group() -> None:
    p = nn.Parameter(torch.ones(1))
    first = optim.SGD([p], lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.OneCycleLR(first, 0.1, total_steps=10)

    assert optim.SGD(first.param_groups, lr=0.1).param_groups[0]["max_momentum"] == 0.95
