"""Properties that PyTorch's own tests require of an optimizer, for every class and input of PyTorch's list: each is
asked of torch's class and of ours, and the answers are compared."""

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gradprix import optim
from torch_optim_db import optim_db

pytestmark = pytest.mark.usefixtures("float64")
SHARED = [info.optim_cls for info in optim_db if info.optim_cls.__name__ in set(optim.__all__) - {"Muon"}]
INPUTS = [
    pytest.param(info.optim_cls, given.kwargs, id=f"{info.optim_cls.__name__}-{given.desc}")
    for info in optim_db
    if info.optim_cls in SHARED
    for given in info.optim_inputs_func(device="cpu")
]
SHAPES = ((3, 4), (5,), (), (0, 2))
DIVIDES_BY_SIZE = {"Adafactor"}
"""Classes of torch that fail for parameters without elements: the comparisons with them have `(1, 2)` for `(0, 2)`."""
REFUSES_COMPLEX = {"Adafactor"}
"""Classes of torch that refuse complex parameters."""
LATER_KEYS = ("maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay", "nesterov")
"""Keys of groups that older versions of torch's classes lacked."""
FIRST_KEYS = {"Adafactor": {"maximize"}}
"""Those of them that a class has had from its first version, so that torch's does not complete them."""
Make = Callable[..., torch.optim.Optimizer]


def both(cls: type) -> list[Make]:
    return [cls, getattr(optim, cls.__name__)]


def drawn(t: int, shape: Any, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(t), dtype=dtype)


def parameters(make: Make, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    shapes = (*SHAPES[:-1], (1, 2)) if make.__name__ in DIVIDES_BY_SIZE else SHAPES
    return [nn.Parameter(drawn(i, shape, dtype)) for i, shape in enumerate(shapes)]


def decay(cls: type, value: float) -> dict[str, float]:
    """A weight decay, for classes of torch that have one: all but Rprop."""
    return {"weight_decay": value} if "weight_decay" in inspect.signature(cls).parameters else {}


def point(params: list[Any], t: int) -> None:
    for i, p in enumerate(params):
        p.grad = drawn(100 * (t + 1) + i, p.shape, p.dtype)


def trained(make: Make, steps: int, dtype: torch.dtype = torch.float64, **given: Any) -> tuple[list[Any], Any]:
    params = parameters(make, dtype)
    optimizer = make(params, **copy.deepcopy(given))
    for t in range(steps):
        point(params, t)
        optimizer.step()
    return params, optimizer


def torch_part(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A state dict, without what classes of ours add beside torch's keys."""
    packed = optimizer.state_dict()
    return {key: packed[key] for key in ("state", "param_groups")}


def assert_same(ours: Any, theirs: Any, bound: float = 1e-12, where: str = "") -> None:
    """Equal in structure, keys and types; tensors in dtype and shape, and in value within a bound."""
    if isinstance(theirs, Tensor):
        torch.testing.assert_close(
            ours.detach(), theirs.detach(), rtol=bound, atol=bound, msg=lambda m: f"{where}: {m}"
        )
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs) or sorted(map(str, ours)) == sorted(map(str, theirs)), where
        for key, value in theirs.items():
            assert_same(ours[key], value, bound, f"{where}/{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for i, value in enumerate(theirs):
            assert_same(ours[i], value, bound, f"{where}/{i}")
    else:
        assert ours == theirs, where


@pytest.mark.sample(3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("cls", "given"), INPUTS)
def test_parameters_state_and_groups_are_torchs(cls: type, given: dict[str, Any], dtype: torch.dtype) -> None:
    (theirs, reference), (ours, optimizer) = (trained(make, 10, dtype, **given) for make in both(cls))
    bound = 1e-12 if dtype is torch.float64 else 2e-5
    assert_same(ours, theirs, bound)
    assert_same(torch_part(optimizer), torch_part(reference), bound)
    live = [
        {i: sorted(o.state[p]) for i, p in enumerate(ps) if p in o.state}
        for ps, o in ((ours, optimizer), (theirs, reference))
    ]
    assert live[0] == live[1]
    assert [line.split(":")[0] for line in repr(optimizer).splitlines()] == [
        line.split(":")[0] for line in repr(reference).splitlines()
    ]


@pytest.mark.parametrize("cls", SHARED)
@pytest.mark.parametrize("with_closure", [False, True])
def test_step_hooks_see_the_same_in_the_same_order(cls: type, with_closure: bool) -> None:
    seen = []
    for make in both(cls):
        params = parameters(make)
        optimizer, calls = make(params), []
        point(params, 0)

        def closure(calls: list[Any] = calls) -> float:
            calls.append(("closure", torch.is_grad_enabled()))
            return 1.0

        def hook(name: str, optimizer: Any = optimizer, calls: list[Any] = calls) -> Callable[..., None]:
            return lambda o, args, kwargs: calls.append((name, o is optimizer, len(args), sorted(kwargs)))

        handles = [
            register_optimizer_step_pre_hook(hook("global pre")),
            register_optimizer_step_post_hook(hook("global post")),
            *(optimizer.register_step_pre_hook(hook(f"pre {i}")) for i in range(2)),
            *(optimizer.register_step_post_hook(hook(f"post {i}")) for i in range(2)),
        ]
        try:
            calls.append(optimizer.step(closure) if with_closure else optimizer.step())
            calls.append(optimizer.step(closure=closure) if with_closure else optimizer.step())
        finally:
            for handle in handles:
                handle.remove()
        optimizer.step()
        seen.append(calls)
    assert seen[1] == seen[0]


@pytest.mark.parametrize("cls", SHARED)
def test_a_pre_hook_may_replace_the_arguments(cls: type) -> None:
    for make in both(cls):
        params = parameters(make)
        optimizer = make(params)
        point(params, 0)
        optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: 7.0), {}))
        assert optimizer.step() == 7.0
        optimizer = make(params)
        optimizer.register_step_pre_hook(lambda *_: "odd")
        with pytest.raises(RuntimeError, match="must return None or a tuple"):
            optimizer.step()


@pytest.mark.parametrize("cls", SHARED)
def test_hooks_of_state_dicts_see_the_same_in_the_same_order(cls: type) -> None:
    seen = []
    for make in both(cls):
        _, optimizer = trained(make, 2)
        calls: list[Any] = []

        def hook(name: str, calls: list[Any] = calls) -> Callable[..., None]:
            return lambda o, *more: calls.append(
                (name, type(o).__name__, [sorted(map(str, packed)) for packed in more])
            )

        for i in range(2):
            optimizer.register_state_dict_pre_hook(hook(f"pre {i}"), prepend=bool(i))
            optimizer.register_state_dict_post_hook(hook(f"post {i}"), prepend=bool(i))
            optimizer.register_load_state_dict_pre_hook(hook(f"load pre {i}"), prepend=bool(i))
            optimizer.register_load_state_dict_post_hook(hook(f"load post {i}"), prepend=bool(i))
        optimizer.load_state_dict(optimizer.state_dict())
        seen.append(calls)
    assert [(name, kind) for name, kind, _ in seen[1]] == [(name, kind) for name, kind, _ in seen[0]]
    for ours, theirs in zip(seen[1], seen[0], strict=True):
        assert [set(a) >= set(b) for a, b in zip(ours[2], theirs[2], strict=True)] == [True] * len(theirs[2])


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("way", "cls", "given"),
    [
        *(pytest.param("state dict", *made.values, id=f"{made.id}") for made in INPUTS),
        *((way, cls, {}) for way in ("torch.save", "deepcopy", "pickle") for cls in SHARED),
    ],
)
def test_round_trips_go_on_like_the_original(way: str, cls: type, given: dict[str, Any]) -> None:
    params, optimizer = trained(getattr(optim, cls.__name__), 3, **given)
    if way == "deepcopy":
        others, other = copy.deepcopy((params, optimizer))
    elif way == "pickle":
        others, other = pickle.loads(pickle.dumps((params, optimizer)))
    else:
        others = [nn.Parameter(p.detach().clone()) for p in params]
        other = type(optimizer)(others, **copy.deepcopy(given))
        packed = optimizer.state_dict()
        if way == "torch.save":
            file = io.BytesIO()
            torch.save(packed, file)
            packed = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        before = copy.deepcopy(packed)
        other.load_state_dict(packed)
        assert_same(packed, before, 0, "what is loaded is left as it was")
    assert_same(other.state_dict(), optimizer.state_dict(), 0)
    if way in ("deepcopy", "pickle"):
        assert {n for n in vars(other) if n[0] != "_"} >= {"state", "param_groups", "defaults"}
    if way == "deepcopy":
        assert {n for n in vars(other) if n[0] != "_"} == {n for n in vars(optimizer) if n[0] != "_"}
    for t in range(3, 6):
        for ps, o in ((params, optimizer), (others, other)):
            point(ps, t)
            o.step()
    assert_same(others, params, 0)


@pytest.mark.parametrize("number", [float, int])
@pytest.mark.parametrize("cls", SHARED)
def test_older_state_dicts_are_completed(cls: type, number: Callable[[Any], Any]) -> None:
    ends = []
    for make in both(cls):
        params, optimizer = trained(make, 2, **decay(cls, 0.01))
        packed = optimizer.state_dict()
        for group in packed["param_groups"]:
            for key in set(LATER_KEYS) - FIRST_KEYS.get(cls.__name__, set()):
                group.pop(key, None)
        for held in packed["state"].values():
            if "step" in held:
                held["step"] = number(held["step"])
        optimizer.load_state_dict(packed)
        point(params, 9)
        optimizer.step()
        ends.append([*params, *(optimizer.state[p].get("step", 0) for p in params)])
    assert_same(ends[1], ends[0])


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in FIRST_KEYS.items() for key in keys])
def test_groups_without_a_key_that_torchs_class_needs_have_its_default(name: str, key: str) -> None:
    for make in both(getattr(torch.optim, name)):
        params, optimizer = trained(make, 2)
        _, whole = trained(make, 3)
        packed = optimizer.state_dict()
        for group in packed["param_groups"]:
            del group[key]
        optimizer.load_state_dict(packed)
        point(params, 2)
        if make.__module__.startswith("torch."):
            with pytest.raises(KeyError, match=key):
                optimizer.step()
        else:
            optimizer.step()
            assert_same(optimizer.state_dict()["state"], whole.state_dict()["state"], 0)


@pytest.mark.parametrize(("cls", "given"), INPUTS)
def test_memory_with_gaps_is_stepped_alike(cls: type, given: dict[str, Any]) -> None:
    ends = []
    for make in both(cls):
        params = [nn.Parameter(drawn(i, (4, 3, 2), torch.float64)[..., i]) for i in range(2)]
        params.append(nn.Parameter(drawn(3, (2, 3, 4, 4), torch.float64).to(memory_format=torch.channels_last)))
        optimizer = make(params, **copy.deepcopy(given))
        for t in range(4):
            for i, p in enumerate(params):
                p.grad = drawn(10 * t + i, (*p.shape, 2), torch.float64)[..., 0]
            optimizer.step()
        ends.append([params, torch_part(optimizer)])
    assert_same(ends[1], ends[0])


@pytest.mark.parametrize("cls", SHARED)
def test_parameters_without_elements_are_stepped_even_where_torchs_class_fails(cls: type) -> None:
    ends = []
    for make in both(cls):
        params = [
            nn.Parameter(drawn(i, shape, torch.float64)) for i, shape in enumerate(((3, 4), (0, 2), (2, 0), (0,)))
        ]
        optimizer = make(params)
        for t in range(3):
            point(params, t)
            if make is cls and cls.__name__ in DIVIDES_BY_SIZE:
                with pytest.raises(ZeroDivisionError):
                    optimizer.step()  # after the step of the first parameter
            else:
                optimizer.step()
        ends.append(params[0])
    assert_same(ends[1], ends[0])
    packed = torch_part(optimizer)
    assert all(value.isfinite().all() for held in packed["state"].values() for value in held.values())
    assert [held.get("step", 3) for held in packed["state"].values()] in ([], [3, 3, 3, 3])
    other = make([nn.Parameter(p.detach().clone()) for p in params])
    other.load_state_dict(packed)
    assert_same(torch_part(other), packed, 0)


@pytest.mark.parametrize("cls", [cls for cls in SHARED if not decay(cls, 0.2)])
def test_weight_decay_that_torchs_class_lacks_is_added_to_the_gradient(cls: type) -> None:
    with pytest.raises(TypeError, match="weight_decay"):
        cls(parameters(cls), weight_decay=0.2)
    ends = []
    for make in both(cls):
        params = parameters(make)
        optimizer = make([{"params": params[:1], "weight_decay": 0.2}, {"params": params[1:]}])
        for t in range(6):
            point(params, t)
            if make is cls:  # which ignores the weight decay of the group
                params[0].grad += 0.2 * params[0].detach()
            optimizer.step()
        ends.append(params)
    assert_same(ends[1], ends[0])


@pytest.mark.parametrize(("cls", "given"), INPUTS)
def test_complex_parameters_are_pairs_of_real_ones_or_refused(cls: type, given: dict[str, Any]) -> None:
    ends = []
    for make in both(cls):
        params = [nn.Parameter(drawn(i, (3, 2), torch.complex128)) for i in range(2)]
        optimizer = make(params, **copy.deepcopy(given))
        for t in range(4):
            point(params, t)
            if cls.__name__ in REFUSES_COMPLEX:
                with pytest.raises(RuntimeError, match="complex parameters"):
                    optimizer.step()
            else:
                optimizer.step()
        ends.append([params, torch_part(optimizer)])
    assert_same(ends[1], ends[0])


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's steps, too, make sparse tensors
@pytest.mark.parametrize("cls", SHARED)
def test_sparse_gradients_are_refused_where_torch_does_and_leave_no_state(cls: type) -> None:
    ends = []
    for make in both(cls):
        p, message = nn.Parameter(drawn(0, (3, 2), torch.float64)), ""
        optimizer = make([p])
        p.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2, dtype=torch.float64), (3, 2))
        try:
            optimizer.step()
        except RuntimeError as error:
            message = str(error)
        ends.append([p, torch_part(optimizer), "sparse gradients" in message])
    assert_same(ends[1], ends[0])


@pytest.mark.parametrize("cls", SHARED)
def test_groups_with_options_of_their_own_and_a_schedule(cls: type) -> None:
    ends = []
    for make in both(cls):
        params = parameters(make)
        extra = [{"params": params[:1], **decay(cls, 0.2)}, {"params": params[1:2], "lr": 0.05, "maximize": True}]
        optimizer = make([*extra, {"params": [("c", params[2])][0][1:]}], lr=0.01)
        optimizer.add_param_group({"params": params[3]})
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
        for t in range(6):
            point(params, t)
            optimizer.step()
            schedule.step()
        ends.append([params, torch_part(optimizer)])
    assert_same(ends[1], ends[0])


@pytest.mark.parametrize("cls", SHARED)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_rate_that_is_a_tensor_is_read_at_each_step(cls: type, shape: tuple[int, ...]) -> None:
    ends = []
    for make in both(cls):
        params, lr = parameters(make), torch.full(shape, 0.01)
        optimizer = make(params, lr=lr)
        for t in range(4):
            point(params, t)
            optimizer.step()
            lr.mul_(0.5)
        assert optimizer.param_groups[0]["lr"] is lr
        ends.append(params)
    assert_same(ends[1], ends[0])


@pytest.mark.parametrize(("cls", "given"), INPUTS)
def test_without_gradients_nothing_happens(cls: type, given: dict[str, Any]) -> None:
    states = []
    for make in both(cls):
        params = parameters(make)
        before = [p.detach().clone() for p in params]
        optimizer = make(params, **copy.deepcopy(given))
        optimizer.step()
        assert_same(params, before, 0)
        states.append(optimizer.state_dict())
    assert_same(states[1], states[0])


@pytest.mark.parametrize("cls", SHARED)
def test_with_gradients_of_zero_parameters_stay_where_they_are(cls: type) -> None:
    own_decay = {"lambd": 0} if cls is torch.optim.ASGD else {}  # ASGD shrinks weights without weight_decay, too
    for given, bound in (({**decay(cls, 0), **own_decay}, 0.0), (decay(cls, 0), 1e-12)):
        ends = []
        for make in both(cls):
            params = parameters(make)
            before = [p.detach().clone() for p in params]
            optimizer = make(params, **given)
            for _ in range(3):
                for p in params:
                    p.grad = torch.zeros_like(p)
                optimizer.step()
            ends.append(params)
        assert_same(ends[1], before if bound == 0 else ends[0], bound)


@pytest.mark.parametrize(("cls", "given"), INPUTS)
def test_no_random_number_is_drawn(cls: type, given: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    trained(getattr(optim, cls.__name__), 2, **given)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cls", SHARED)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_a_closure_runs_with_gradients_and_the_step_without(cls: type, mode: Callable[[], Any]) -> None:
    ends = []
    for make in both(cls):
        p = nn.Parameter(torch.ones(3))
        optimizer = make([p])

        def closure(p: nn.Parameter = p, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = (p**2).sum()
            loss.backward()
            return loss

        with mode():
            loss = optimizer.step(closure)
            enabled = torch.is_grad_enabled()
        ends.append([p, loss, p.requires_grad, p.is_leaf, loss.requires_grad, enabled])
    assert_same(ends[1], ends[0])


@pytest.mark.parametrize("cls", SHARED)
def test_a_parameter_in_two_groups_is_refused_and_twice_in_one_warned_of(cls: type) -> None:
    p = nn.Parameter(torch.ones(3))
    for make in both(cls):
        with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
            make([{"params": [p]}, {"params": [p], "lr": 0.1}])
        with pytest.warns(UserWarning, match="duplicate parameters"):
            make([p, p])


@pytest.mark.parametrize("cls", SHARED)
def test_a_state_of_other_precision_is_loaded_as_in_torch(cls: type) -> None:
    ends = []
    for make in both(cls):
        _, optimizer = trained(make, 3, torch.float32)
        params = parameters(make, torch.float64)
        other = make(params)
        other.load_state_dict(optimizer.state_dict())
        point(params, 5)
        other.step()
        ends.append([params, other.state_dict()["state"]])
    assert_same(ends[1], ends[0], 1e-6)
