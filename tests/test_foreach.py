"""Steps as foreach calls: equal to the eager step to the bit, in few calls, in bounded memory, on any device."""

import copy
import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from gradprix import optim, rules
from pretended import Gpu, There, pretended
from test_kernels import CASES as EVERY_CASE
from test_kernels import made
from test_modifiers import PAIRS

CASES = [(rule, values) for rule, values in EVERY_CASE if rule.is_separable]
IDS = [f"{rule.name}-{values}" for rule, values in CASES]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SHAPES = [(13, 7), (1,), (), (50,), (2, 3, 5), (0, 4)]


def drawn(shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def transposed(shape: Sequence[int], seed: int, dtype: torch.dtype) -> Tensor:
    """A tensor with another order of its elements in memory, where it has several dimensions."""
    return drawn(tuple(reversed(shape)), seed, dtype).permute(tuple(reversed(range(len(shape)))))


def stepped(
    rule: rules.Rule,
    params: list[nn.Parameter],
    values: dict[str, Any] | None = None,
    steps: int = 12,
    between: Callable[[Any, int], Any] = lambda optimizer, t: None,
    **given: Any,
) -> Any:
    """An optimizer after some steps on gradients of changing magnitude, which are missing now and then."""
    full = {**rule.hyperparameters, **(values or {})}
    betas = {"betas": tuple(full.pop(beta) for beta in rule.betas)} if rule.betas else {}
    plain = {
        name: value for name, value in full.items() if name not in rule.betas and value != rule.hyperparameters[name]
    }
    half = max(1, len(params) // 2)
    groups = [{"params": params[:half]}, {"params": params[half:], "lr": 3e-3}]
    optimizer = optim.from_rule(rule)(
        [{**group, **plain, **betas} for group in groups if group["params"]], lr=0.02, **given
    )
    for t in range(steps):
        for i, x in enumerate(params):
            g = drawn(x.shape, 100 * t + i, x.dtype) * 10.0 ** (t % 5 - 3)
            x.grad = None if (i, t) in ((0, 1), (3, 6)) else g
        optimizer.step()
        between(optimizer, t)
    return optimizer


def contents(optimizer: Any) -> list[Tensor]:
    params = [x for group in optimizer.param_groups for x in group["params"]]
    return [*params, *(v for x in params for _, v in sorted(optimizer.state.get(x, {}).items()))]


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype is b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("rule", "values"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_foreach_calls_equal_the_eager_step_to_the_bit(
    rule: rules.Rule, values: dict[str, Any], dtype: torch.dtype
) -> None:
    ends = []
    for foreach in (True, False):
        params = [nn.Parameter(make(shape, i, dtype)) for make in (drawn, transposed) for i, shape in enumerate(SHAPES)]
        optimizer = stepped(rule, params, values, fused=False, foreach=foreach)
        assert bool(optimizer._plan.foreach_batches) is foreach
        assert bool(optimizer._plan.eager) is not foreach
        ends.append(contents(optimizer))
    assert_equal(*ends)


MODIFIED = [(rule, values) for rule, values in PAIRS if rule.is_separable and not rule.uses_group]


@pytest.mark.parametrize(("rule", "values"), MODIFIED, ids=lambda each: getattr(each, "name", str(each)))
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_modified_rules_equal_the_eager_step_to_the_bit(
    rule: rules.Rule, values: dict[str, Any], dtype: torch.dtype
) -> None:
    ends = []
    for foreach in (True, False):
        params = [nn.Parameter(drawn(shape, i, dtype)) for i, shape in enumerate(SHAPES)]
        optimizer = stepped(rule, params, values, fused=False, foreach=foreach)
        assert bool(optimizer._plan.foreach_batches) is foreach
        ends.append(contents(optimizer))
    assert_equal(*ends)


# Rules that use the whole language


def comparisons(h, t, x, g, m, n):
    """Comparisons of elements with elements and numbers, masks as numbers, and conditions that are not masks."""
    agrees = m * g > 0
    m = where(agrees, 0.9 * m + 0.1 * g, 0.5 * g)
    n = n + agrees * m + (g >= 0.1) * g + where(g < 0, g, 0 * g)
    d = where(sign(n), n, g) + where(m != 0, m, n)
    x = x - h.lr * (0.3 - d) * where(n <= m, m, n)
    return x, m, n


def powers(h, t, x, g, m):
    """Powers of elements and of numbers, roots, and bounds by elements and by numbers."""
    m = maximum(-abs(g), minimum(m, clip(g**3, -0.5, 0.5 * t)))
    d = (abs(g) + 1) ** 0.5 + 0.5 ** abs(m) + (abs(m) + 0.1) ** abs(g) + sqrt(abs(g)) ** t
    x = x - h.lr * (d - m**2 - (1 - m))
    return x, m


def changes_places(h, t, x, g, a, b, c):
    """States that take each other's place, and that of the gradient."""
    kept = a
    a = b
    b = kept
    x = x - h.lr * where(t > 2, a, c)
    c = g
    return x, a, b, c


def remembers(h, t, x, g, p):
    """The previous point is state."""
    c0 = x + 0.1 * (x - p)
    p = x
    x = c0 - h.lr * g
    return x, p


def chooses(h, t, x, g, m):
    """Choices between elements and numbers by the number of the step."""
    m = where(t > 3, m, g)
    d = where(t > 5, m, 0) + where(t > 2, m, g)
    x = x - h.lr * d
    return x, m


from gradprix.rules import clip, maximum, minimum, sign, sqrt, where  # noqa: E402

START = rules.State("start", init="x")
OWN = [
    made(comparisons, state={"m": "m", "n": "n"}),
    made(powers, state={"m": "m"}),
    made(changes_places, state={"a": START, "b": "b", "c": "c"}),
    made(remembers, state={"p": START}),
    made(chooses, state={"m": "m"}),
]


@pytest.mark.parametrize("rule", OWN, ids=lambda rule: rule.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("capturable", [False, True])
def test_the_whole_language_of_rules(rule: rules.Rule, dtype: torch.dtype, capturable: bool) -> None:
    ends = []
    for foreach in (True, False):
        params = [nn.Parameter(drawn(shape, i, dtype)) for i, shape in enumerate(SHAPES)]
        optimizer = stepped(rule, params, fused=False, foreach=foreach, capturable=capturable)
        assert bool(optimizer._plan.foreach_batches) is foreach
        ends.append(contents(optimizer))
    if not capturable:
        assert_equal(*ends)
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)


# Few calls, and little memory


class Calls(TorchDispatchMode):
    """Counts operations, other than those that only allocate memory or view it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (function.is_view or function.__name__.startswith("empty")):
            self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


# Comparisons of elements, which rprop has, are made tensor by tensor.
BATCHED = [rule for rule, values in CASES if not values and rule is not rules.rprop]


@pytest.mark.sample(3)
@pytest.mark.parametrize("rule", BATCHED, ids=lambda rule: rule.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_number_of_calls_is_independent_of_the_number_of_tensors(rule: rules.Rule, dtype: torch.dtype) -> None:
    counts = []
    for count in (2, 40):
        params = [nn.Parameter(drawn((5, 3), i, dtype)) for i in range(count)]
        optimizer = optim.from_rule(rule)(params, fused=False, foreach=True)
        for _ in range(3):
            for i, x in enumerate(params):
                x.grad = drawn(x.shape, 100 + i, dtype)
            with Calls() as calls:
                optimizer.step()
        assert calls.counts
        counts.append(calls.counts)
    assert counts[0] == counts[1]


class Memory(TorchDispatchMode):
    """Measures the peak of the memory of tensors that are made while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in given | self.seen:
                self._add(x.untyped_storage())
        self.peak = max(self.peak, self.live)
        return result

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.seen.add(key)
        self.live += size

        def remove() -> None:
            self.seen.discard(key)
            self.live -= size

        weakref.finalize(storage, remove)


def peak(optimizer: Any, params: list[nn.Parameter]) -> int:
    for i, x in enumerate(params):
        x.grad = drawn(x.shape, 100 + i, x.dtype)
    gc.collect()
    with Memory() as memory:
        optimizer.step()
    assert optimizer._plan.foreach_batches
    return memory.peak


BOUND = 1 << 14
LISTS = {"many": [(200,)] * 60, "large": [(9, 30, 40), (40,), (7, 1)], "wide": [(1, 1, 12_000)] * 2 + [(60, 20)] * 9}


@pytest.mark.sample(5)
@pytest.mark.parametrize(("rule", "values"), [*CASES, *((rule, {}) for rule in OWN)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", LISTS)
def test_temporaries_take_the_bound_or_the_largest_tensor_and_slices_change_no_bit(
    rule: rules.Rule, values: dict[str, Any], dtype: torch.dtype, sizes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradprix.kernels._foreach.TEMPORARY_BYTES", BOUND)
    ends = []
    for foreach in (True, False):
        params = [nn.Parameter(drawn(shape, i, dtype)) for i, shape in enumerate(LISTS[sizes])]
        optimizer = stepped(rule, params, values, steps=4, fused=False, foreach=foreach)
        if foreach:
            ends.append(copy.deepcopy(contents(optimizer)))
            largest = max(x.numel() for x in params) * (8 if dtype is torch.float64 else 4)
            assert 0 < peak(optimizer, params) <= max(BOUND, largest)
        else:
            ends.append(contents(optimizer))
    assert_equal(*ends)


@pytest.mark.parametrize("largest", [1_000, 20_000_000])
def test_temporaries_take_64_megabytes_or_the_largest_tensor(largest: int) -> None:
    params = [nn.Parameter(torch.ones(size)) for size in [largest, *[2_000_000] * 15]]
    optimizer = optim.Adam(params, fused=False, foreach=True)
    peak(optimizer, params)
    assert 2**24 < peak(optimizer, params) <= max(64 * 2**20, 4 * largest)


# Which implementation is used


@pytest.mark.parametrize(
    ("dtype", "given", "used"),
    [
        (torch.float32, {}, "batches"),
        (torch.float32, {"foreach": True}, "batches"),
        (torch.float32, {"foreach": False}, "batches"),
        (torch.float32, {"fused": True}, "batches"),
        (torch.float32, {"fused": False}, "eager"),
        (torch.float32, {"fused": False, "foreach": True}, "foreach_batches"),
        (torch.float32, {"fused": False, "foreach": False}, "eager"),
        (torch.float16, {}, "foreach_batches"),
        (torch.float16, {"fused": True}, "foreach_batches"),
        (torch.float16, {"foreach": False}, "eager"),
        (torch.float16, {"fused": False}, "eager"),
        (torch.complex64, {"fused": False, "foreach": True}, "eager"),
    ],
)
@pytest.mark.parametrize("name", ["Adam", "Lion", "Adagrad"])
def test_the_implementation_that_is_chosen(name: str, dtype: torch.dtype, given: dict[str, Any], used: str) -> None:
    x = nn.Parameter(torch.ones(4, 3, dtype=dtype))
    x.grad = torch.ones_like(x)
    optimizer = getattr(optim, name)([x], **given)
    optimizer.step()
    paths = {path: bool(getattr(optimizer._plan, path)) for path in ("batches", "foreach_batches", "eager")}
    assert paths == {path: path == used for path in paths}


@pytest.mark.parametrize(("key", "value"), [("foreach", False), ("fused", False), ("capturable", True)])
def test_another_implementation_from_one_step_to_the_next(key: str, value: bool) -> None:
    x = nn.Parameter(torch.ones(4, 3).half())
    x.grad = torch.ones_like(x)
    optimizer = optim.Adam([x])
    optimizer.step()
    optimizer.step()
    before = optimizer._plan
    optimizer.param_groups[0][key] = value
    optimizer.step()
    assert optimizer._plan is not before
    assert bool(optimizer._plan.eager) is not value


def test_what_foreach_calls_do_not_step_is_stepped_otherwise() -> None:
    ends = []
    for foreach in (True, False):
        storage = drawn((20,), 0).half()
        params = [nn.Parameter(x) for x in (storage[:10], storage[5:15], drawn((3, 2), 1).half())]
        optimizer = stepped(rules.adam, params, fused=False, foreach=foreach)
        assert len(optimizer._plan.sequential[0] + optimizer._plan.sequential.get(1, [])) == 2
        ends.append(contents(optimizer))
    assert_equal(*ends)
    x = nn.Parameter(torch.ones(3).half())
    optimizer = optim.Adam([x])
    x.grad = torch.ones(3).half().to_sparse()
    with pytest.raises(RuntimeError, match="does not step sparse gradients"):
        optimizer.step()


# Changes between two steps


def replace_data(optimizer: Any) -> None:
    x = optimizer.param_groups[0]["params"][0]
    x.data = x.data.clone() * 2


def transpose_in_place(optimizer: Any) -> None:
    x = optimizer.param_groups[0]["params"][0]
    x.data = x.data.reshape(x.shape[1], x.shape[0]).T


def replace_state(optimizer: Any) -> None:
    state = optimizer.state[optimizer.param_groups[0]["params"][0]]
    state["exp_avg"] = torch.full_like(state["exp_avg"], 0.5)


def change_step(optimizer: Any) -> None:
    optimizer.state[optimizer.param_groups[0]["params"][0]]["step"].fill_(77)


def change_options(optimizer: Any) -> None:
    optimizer.param_groups[0].update(weight_decay=0.1, amsgrad=True, lr=0.3)


def load(optimizer: Any) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


CHANGES = [replace_data, transpose_in_place, replace_state, change_step, change_options, load]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("capturable", [False, True])
def test_changes_between_steps_take_effect(change: Any, dtype: torch.dtype, capturable: bool) -> None:
    ends = []
    for foreach in (True, False):
        params = [nn.Parameter(drawn(shape, i, dtype)) for i, shape in enumerate([(4, 6), (5,)])]
        optimizer = stepped(
            rules.adam,
            params,
            between=lambda optimizer, t: change(optimizer) if t == 4 else None,
            **{"fused": False, "foreach": foreach, "capturable": capturable},
        )
        ends.append(contents(optimizer))
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3 if dtype is torch.float16 else 1e-12, atol=1e-12)
    if not capturable:
        assert_equal(*ends)


def test_a_gradient_that_shares_memory_with_a_parameter_is_not_overwritten_while_it_is_used() -> None:
    ends = []
    for foreach in (True, False):
        params = [nn.Parameter(drawn((8,), i).half()) for i in range(2)]
        optimizer = optim.SGD(params, lr=0.1, fused=False, foreach=foreach)
        for t in range(4):
            params[0].grad = drawn((8,), 10 + t).half()
            params[1].grad = params[0].detach() if t == 2 else drawn((8,), 20 + t).half()
            optimizer.step()
        ends.append(contents(optimizer))
    assert_equal(*ends)


def test_autograd_notices_that_parameters_have_changed() -> None:
    x = nn.Parameter(torch.ones(3).half())
    optimizer = optim.SGD([x], lr=0.1)
    loss = (x * x).sum()
    x.grad = torch.ones(3).half()
    optimizer.step()
    assert optimizer._plan.foreach_batches
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# Scalars on the device


class Recording(TorchDispatchMode):
    """Records operations on tensors, and repeats them in the same memory, as a CUDA graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def repeat(self) -> None:
        values: dict[int, Tensor] = {}
        for function, args, kwargs, result in self.operations:
            args, kwargs = tree_map_only(Tensor, lambda x, known=values: known.get(id(x), x), (args, kwargs))
            again = function(*args, **kwargs)
            pairs = zip(tree_leaves(result), tree_leaves(again), strict=True)
            values |= {id(old): new for old, new in pairs if isinstance(old, Tensor)}


@pytest.mark.sample(3)
@pytest.mark.parametrize(("rule", "values"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scalars_on_the_device_are_those_of_the_cpu(
    rule: rules.Rule, values: dict[str, Any], dtype: torch.dtype
) -> None:
    ends = []
    for capturable in (True, False):
        params = [nn.Parameter(drawn(shape, i, dtype)) for i, shape in enumerate(SHAPES)]
        optimizer = stepped(rule, params, values, fused=False, foreach=True, capturable=capturable)
        ends.append(contents(optimizer))
    for a, b in zip(*ends, strict=True):
        assert a.dtype is b.dtype
        torch.testing.assert_close(a, b, rtol=max(1e-12, 4 * torch.finfo(a.dtype).eps), atol=1e-12)


@pytest.mark.sample(3)
@pytest.mark.parametrize(("rule", "values"), CASES, ids=IDS)
def test_a_recorded_step_can_be_repeated(rule: rules.Rule, values: dict[str, Any]) -> None:
    ends = []
    for recorded in (True, False):
        params = [nn.Parameter(drawn(shape, i, torch.float64)) for i, shape in enumerate(SHAPES[:3])]
        optimizer = stepped(rule, params, values, steps=3, fused=False, foreach=True, capturable=True)
        for x in params:
            x.grad = torch.zeros_like(x)
        recording = Recording()
        for t in range(10):
            for i, x in enumerate(params):
                x.grad.copy_(drawn(x.shape, 10 * t + i, torch.float64))
            if not recorded:
                optimizer.step()
            elif t == 0:
                with recording:
                    optimizer.step()
            else:
                with torch.no_grad():
                    recording.repeat()
        ends.append(contents(optimizer))
    assert_equal(*ends)


@contextmanager
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """The pretended device, whose tensors foreach calls may step."""
    monkeypatch.setattr("gradprix.optim._foreach_batch.PLAIN_TYPES", {nn.Parameter, Tensor, There})
    with pretended(monkeypatch) as gpu:
        yield gpu


@pytest.mark.sample(3)
@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize(("rule", "values"), CASES, ids=IDS)
def test_a_step_on_a_device_does_not_wait_for_it_and_computes_nothing_large_here(
    rule: rules.Rule, values: dict[str, Any], capturable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [drawn(shape, i) for i, shape in enumerate(SHAPES[:4])]
    expected = [nn.Parameter(x.clone()) for x in here]
    reference = stepped(rule, expected, values, steps=5, fused=False)
    with device(monkeypatch) as gpu:
        params = [nn.Parameter(x.to("meta")) for x in here]

        def clear(optimizer: Any, t: int) -> None:
            assert len(optimizer._plan.foreach_batches) == 1
            assert t < 3 or gpu.waits == set()  # at first, and after gradients were missing, state is read
            gpu.waits.clear()

        make = torch.randn
        monkeypatch.setattr(torch, "randn", lambda *args, **given: make(*args, **given).to("meta"))
        optimizer = stepped(rule, params, values, steps=5, capturable=capturable, between=clear)
        monkeypatch.undo()
    ours = [x.held if isinstance(x, There) else x for x in contents(optimizer)]
    for a, b in zip(ours, contents(reference), strict=True):
        torch.testing.assert_close(a, b)


def test_a_learning_rate_on_the_device_is_read_there(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = nn.Parameter(torch.ones(3))
    reference = optim.AdamW([expected], lr=0.5)
    with device(monkeypatch) as gpu:
        x = nn.Parameter(torch.ones(3).to("meta"))
        lr = torch.tensor(0.5, dtype=torch.float64).to("meta")
        optimizer = optim.AdamW([x], lr=lr, capturable=True)
        for t in range(4):
            x.grad = torch.ones(3).to("meta")
            gpu.waits.clear()
            optimizer.step()
            assert t == 0 or gpu.waits == set()
            lr.mul_(0.5)
            expected.grad = torch.ones(3)
            reference.step()
            reference.param_groups[0]["lr"] *= 0.5
        torch.testing.assert_close(x.held, expected.detach())
        with pytest.raises(ValueError, match="lr = -0.5"):
            optim.AdamW([x], lr=-torch.tensor(0.5).to("meta"), capturable=True)


# Distributed tensors


@pytest.fixture
def mesh() -> Iterator[Any]:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # torch.distributed warns of its own future
@pytest.mark.parametrize("rule", [rule for rule, values in CASES if not values], ids=lambda rule: rule.name)
def test_distributed_tensors_are_stepped_by_their_parts(rule: rules.Rule, mesh: Any) -> None:
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    start, plain = drawn((6, 4), 1), nn.Parameter(drawn((6, 4), 1))
    x = nn.Parameter(distribute_tensor(start, mesh, [Shard(0)]))
    optimizer, reference = optim.from_rule(rule)([x]), optim.from_rule(rule)([plain], fused=False)
    for t in range(5):
        plain.grad = drawn((6, 4), 10 + t)
        x.grad = distribute_tensor(plain.grad.clone(), mesh, [Shard(0)])
        optimizer.step()
        reference.step()
        assert optimizer._plan.foreach_batches
        values = [optimizer.values(group) for group in optimizer.param_groups]
        assert optimizer._plan.is_valid(optimizer.param_groups, optimizer.state, values)
    parts = [v.to_local() if isinstance(v, DTensor) else v for v in contents(optimizer)]
    assert all(isinstance(v, DTensor) for v in contents(optimizer) if v.dim())
    assert_equal(parts, contents(reference))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("placement", ["shard", "replicate", "partial", "empty"])
def test_parts_of_distributed_tensors(placement: str, mesh: Any) -> None:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    how = {"shard": Shard(0), "replicate": Replicate(), "partial": Partial(), "empty": Shard(0)}[placement]
    part = torch.ones(0 if placement == "empty" else 2, 3)
    params = [
        nn.Parameter(DTensor.from_local(part.clone(), mesh, [how], shape=(2, 3), stride=(3, 1))) for _ in range(2)
    ]
    optimizer = optim.Adam(params, lr=0.1)
    for _ in range(3):
        for x in params:
            x.grad = DTensor.from_local(torch.ones_like(part), mesh, [how], shape=(2, 3), stride=(3, 1))
        optimizer.step()
    # Sums of parts are stepped by torch's operations on distributed tensors, which add them first.
    assert len(optimizer._plan.foreach_batches) == (placement != "partial")
    for x in params:
        torch.testing.assert_close(x.to_local(), torch.full_like(part, 0.7))


@pytest.mark.filterwarnings("ignore")
def test_gradients_that_are_divided_otherwise_are_not_stepped_by_parts(mesh: Any) -> None:
    from torch.distributed.tensor import DTensor, Replicate, Shard

    x = nn.Parameter(DTensor.from_local(torch.ones(2, 3), mesh, [Shard(0)]))
    optimizer = optim.SGD([x], lr=0.1)
    x.grad = DTensor.from_local(torch.ones(2, 3), mesh, [Shard(0)])
    optimizer.step()
    assert optimizer._plan.foreach_batches
    x.grad = DTensor.from_local(torch.ones(2, 3), mesh, [Replicate()])
    optimizer.step()
    assert not optimizer._plan.foreach_batches
    torch.testing.assert_close(x.to_local(), torch.full((2, 3), 0.8))
