"""Reductions in rules: sums in one order everywhere, numbers per tensor or group, and state that a group shares."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from gradprix import optim, rules
from gradprix.explain import trace
from gradprix.kernels import StackedRule, block_sums, compute_terms, eager_step, run_calls
from gradprix.rules import RuleError, State, log, maximum, rule, size, sqrt, total, where
from gradprix.rules.ir import Call, Hyper, Name, Number, Reduction, flow, is_elementwise
from gradprix.rules.ops import BLOCK, sum_in_blocks
from gradprix.training import Trial
from gradprix.training.optimizers import StackedOptimizers


def made(function: Any, **given: Any) -> rules.Rule:
    return rule("Nobody 2026", relation="None.", space={"lr": log(1e-3, 1)}, lr=0.1, **given)(function)


def normalized(h, t, x, g):
    """The gradient of each tensor over its norm."""
    x = x - h.lr * g / sqrt(total(g**2))
    return x


def normalized_by_group(h, t, x, g):
    """The gradient of all tensors over their common norm."""
    x = x - h.lr * g / sqrt(total(g**2, over="group"))
    return x


def nested(h, t, x, g, m, s, d, k):
    """Totals of values that depend on other totals, and state of every kind."""
    m = 0.9 * m + g
    s = 0.5 * s + total(g * m) / size(g)
    n = sqrt(total(m**2, over="group"))
    u = m / n + where(s > 0, g, x)
    c = total(abs(u), over="group") / size(u, over="group")
    d = maximum(0.5 * d, c)
    k = k + 1
    x = x - h.lr * d * u / sqrt(k) - 0.01 * total(u * x) * u
    return x, m, s, d, k


SHARED = {"d": State("d", kind="scalar", init=0.1, shared=True), "k": State("k", kind="scalar", shared=True)}
NORMALIZED, BY_GROUP = made(normalized), made(normalized_by_group)
NESTED = made(nested, state={"m": "momentum", "s": State("s", kind="scalar"), **SHARED})


def in_order(values: list[float]) -> float:
    """The documented order, one number at a time: halves of blocks, then halves of the sums of blocks."""

    def halves(values: list[float]) -> float:
        while len(values) > 1:
            half = len(values) // 2
            values = [a + b for a, b in zip(values[:half], values[half:], strict=True)]
        return values[0]

    blocks = max(1, math.ceil(len(values) / BLOCK))
    padded = values + [0.0] * (blocks * BLOCK - len(values))
    sums = [halves(padded[BLOCK * i : BLOCK * (i + 1)]) for i in range(blocks)]
    return halves(sums + [0.0] * (2 ** math.ceil(math.log2(blocks)) - blocks))


@pytest.mark.parametrize("count", [0, 1, 2, 37, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK - 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_total_is_added_in_the_documented_order(count: int, dtype: torch.dtype) -> None:
    a = (torch.randn(count, generator=torch.Generator().manual_seed(count)) * 1e3).to(dtype)
    expected = in_order(a.double().tolist())

    assert float(total(a)) == expected
    assert float(total(a)) == pytest.approx(math.fsum(a.tolist()), rel=1e-13)
    assert sum_in_blocks(torch.stack([a, 2 * a])).tolist() == [expected, 2 * expected]
    assert block_sums(torch.stack([a, 2 * a])).tolist() == [expected, 2 * expected]
    assert float(size(a)) == count


def test_the_sum_does_not_depend_on_strides_threads_or_neighbours() -> None:
    a = torch.randn(70, 300)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert total(a.T.contiguous().T) == total(a)
            assert sum_in_blocks(a.flatten().expand(3, -1)).tolist() == [float(total(a))] * 3
    finally:
        torch.set_num_threads(threads)


def test_results_of_reductions_are_numbers_in_data_flow() -> None:
    square = Reduction("total", Call("**", (Name("g"), Number(2))))
    assert not is_elementwise(square, {"g"})
    assert is_elementwise(Call("*", (square, Name("g"))), {"g"})
    names = {assign.name: elements for assign, elements in flow(NESTED.tree, {"x", "g", "m"})}
    assert {"n", "c", "u"} & names["x"] == {"u"}
    assert Hyper("lr") not in {r.argument for r in NESTED.reductions}
    assert (NORMALIZED.is_separable, rules.adam.is_separable, rules.muon.is_separable) == (False, True, False)
    assert [r.uses_group for r in (NORMALIZED, BY_GROUP, NESTED, rules.adam)] == [False, True, True, False]


def test_division_by_a_total_of_zero_follows_ieee_754() -> None:
    zero = torch.zeros(3)
    with np.errstate(all="ignore"):
        values = 1 / total(zero), -sqrt(total(zero) - 1), total(zero) / total(zero)
    assert not any(map(math.isfinite, values))
    assert eager_step(NORMALIZED, NORMALIZED.values(), 1, zero, zero, {})[0].isnan().all()
    assert compute_terms(NORMALIZED, NORMALIZED.values(), 1, zero, zero, {})["x"].isnan().all()
    assert np.isnan([maximum(total(zero * math.nan), 1.0), maximum(1.0, total(zero * math.nan))]).all()


def params(dtype: torch.dtype = torch.float64, shapes: Any = ((3, 5), (), (2100,))) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def give(given: list[torch.nn.Parameter], t: int) -> None:
    generator = torch.Generator().manual_seed(1000 + t)
    for p in given:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def test_a_group_is_stepped_together() -> None:
    ours = params()
    plain = [p.detach().clone() for p in ours]
    optimizer = optim.from_rule(BY_GROUP)([{"params": ours[:2]}, {"params": ours[2:], "lr": 0.2}])
    for t in range(5):
        give(ours, t)
        for lr, part in ((0.1, slice(0, 2)), (0.2, slice(2, 3))):
            gradients = [p.grad for p in ours[part]]
            norm = torch.cat([g.flatten() for g in gradients]).norm()
            plain[part] = [x - lr * g / norm for x, g in zip(plain[part], gradients, strict=True)]
        optimizer.step()
        for p, x in zip(ours, plain, strict=True):
            torch.testing.assert_close(p.detach(), x, rtol=1e-12, atol=1e-12)


def test_a_parameter_without_gradient_is_not_in_its_group() -> None:
    ours, alone = params(), params()[:1]
    a, b = optim.from_rule(NESTED)(ours), optim.from_rule(NESTED)(alone)
    for t in range(4):
        give(ours, t)
        give(alone, t)
        ours[1].grad = ours[2].grad = None
        a.step()
        b.step()
    assert torch.equal(ours[0], alone[0])
    assert a.param_groups[0]["d"] == b.param_groups[0]["d"]


@pytest.mark.parametrize("fused", [None, False], ids=["fused", "eager"])
def test_shared_state_is_a_number_of_the_group_and_survives_a_checkpoint(fused: bool | None) -> None:
    def run(saved_at: int | None) -> Any:
        ours = params()
        optimizer = optim.from_rule(NESTED)(ours, fused=fused)
        for t in range(10):
            if t == saved_at:
                stored = pickle.loads(pickle.dumps(copy.deepcopy(optimizer.state_dict())))
                optimizer = optim.from_rule(NESTED)(ours, lr=0.5, fused=fused)
                optimizer.load_state_dict(stored)
            give(ours, t)
            optimizer.step()
        return ours, optimizer

    (whole, first), (parts, second) = run(None), run(6)
    assert all(torch.equal(p, q) for p, q in zip(whole, parts, strict=True))
    group = second.state_dict()["param_groups"][0]
    assert (group["k"], group["d"], type(group["d"])) == (10.0, first.param_groups[0]["d"], float)
    assert {key for held in second.state.values() for key in held} == {"step", "momentum", "s"}
    assert all(held["s"].dtype is torch.float64 and held["s"].dim() == 0 for held in second.state.values())


def test_shared_state_may_be_set_by_hand() -> None:
    ours = params()
    optimizer = optim.from_rule(NESTED)(ours)
    give(ours, 1)
    optimizer.step()
    optimizer.param_groups[0]["k"] = 41.0
    optimizer.step()
    assert optimizer.param_groups[0]["k"] == 42.0


def test_reductions_are_printed_in_standard_notation() -> None:
    assert rules.formula(NESTED) == [
        "m ← 0.9 m + g",
        "s ← 0.5 s + mean(g m)",
        "n ← ‖m‖_group",
        "u ← m / n + where(s > 0, g, x)",
        "c ← mean_group(|u|)",
        "d ← max(0.5 d, c)",
        "k ← k + 1",
        "x ← x − η d u / √k − 0.01 ⟨u, x⟩ u",
    ]


RULES: list[tuple[rules.Rule, dict[str, Any]]] = [
    *((r, {}) for r in (NORMALIZED, BY_GROUP, NESTED)),
    *((r, {}) for r in rules.ALL.values() if r.reductions and r.scope == "element"),
]
IDS = [f"{r.name}-{v}" for r, v in RULES]
SHAPES = ((300, 70), (1,), (17,), (40_001,), (BLOCK,), (3, BLOCK))
"""Fewer elements than a block, exactly one, and several chunks of a kernel."""


@pytest.fixture
def nearest_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch takes roots with Intel's MKL, which is not always rounded to nearest; all other arithmetic is."""
    monkeypatch.setattr(torch.Tensor, "sqrt", lambda a: torch.from_numpy(np.sqrt(a.numpy())))


def plain(stored: dict[str, Any]) -> Any:
    """A state dict as numbers, without the option that selects the implementation."""
    groups = [{key: value for key, value in group.items() if key != "fused"} for group in stored["param_groups"]]
    return groups, {i: {key: x.tolist() for key, x in held.items()} for i, held in stored["state"].items()}


@pytest.mark.usefixtures("nearest_roots")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("which", "values"), RULES, ids=IDS)
def test_kernels_equal_the_eager_step_to_the_bit(which: rules.Rule, values: Any, dtype: torch.dtype) -> None:
    threads, results = torch.get_num_threads(), []
    make = optim.from_rule(which)
    for fused, count in ((False, 1), (None, 1), (None, 2), (None, 3)):
        ours = params(dtype, SHAPES)
        groups = [{"params": ours[:2]}, {"params": ours[2:], "lr": 0.3 * make([ours[0]]).defaults["lr"]}]
        optimizer = make(groups, fused=fused, **values)
        try:
            torch.set_num_threads(count)
            for t in range(4):
                give(ours, t)
                optimizer.step()
        finally:
            torch.set_num_threads(threads)
        assert bool(optimizer._plan.batches) is (fused is None)
        results.append((ours, optimizer.state_dict()))
    (reference, stored), *others = results
    for ours, own_stored in others:
        assert all(torch.equal(p, q) for p, q in zip(ours, reference, strict=True))
        assert plain(own_stored) == plain(stored)


@pytest.mark.usefixtures("nearest_roots")
@pytest.mark.parametrize("compiled", [True, False], ids=["kernel", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("which", "values"), RULES, ids=IDS)
def test_a_row_of_a_stack_equals_the_optimizer_to_the_bit(
    which: rules.Rule, values: Any, dtype: torch.dtype, compiled: bool
) -> None:
    full = which.values(**values)
    rows = [{**full, "lr": full["lr"] * factor} for factor in (0.5, 1.0, 3.0)]
    shapes = ((5, 6), (7,), (2, BLOCK + 3))
    starts = [params(dtype, shapes) for _ in rows]
    for i, start in enumerate(starts):
        for p in start:
            p.data.mul_(1 + i)
    optimizers = [
        optim.from_rule(which)(start, **values, lr=row["lr"] * 0.5) for start, row in zip(starts, rows, strict=True)
    ]
    stack = [torch.stack([p.detach() for p in column]) for column in zip(*starts, strict=True)]
    stacked = StackedRule(which, rows, stack)
    stacked.kernel = stacked.kernel if compiled else None
    for t in range(1, 12):
        for i, start in enumerate(starts):
            give(start, 100 * t + i)
        gradients = [torch.stack([p.grad for p in column]) for column in zip(*starts, strict=True)]
        stacked.step(gradients, factor=0.5)
        for optimizer in optimizers:
            optimizer.step()
        for x, column in zip(stack, zip(*starts, strict=True), strict=True):
            assert torch.equal(x, torch.stack([p.detach() for p in column]))
        if t == 6:  # the first leaves
            starts, optimizers, stack = starts[1:], optimizers[1:], [x[1:].clone() for x in stack]
            stacked.select_rows(torch.tensor([1, 2]), stack)
    for row, optimizer in enumerate(optimizers):
        for k, p in enumerate(starts[row]):
            held = {**optimizer.param_groups[0], **optimizer.state[p]}
            for name, value in stacked.row_state(row, k).items():
                assert torch.equal(
                    torch.as_tensor(value),
                    torch.as_tensor(held[which.state[name].key]).to(torch.as_tensor(value).dtype),
                )


@pytest.mark.usefixtures("nearest_roots")
@pytest.mark.parametrize(("which", "values"), RULES, ids=IDS)
def test_rows_that_are_stepped_one_by_one_equal_a_step_of_all(which: rules.Rule, values: Any) -> None:
    rows = [which.values(**values)] * 3
    whole, single = ([torch.randn(3, n, generator=torch.Generator().manual_seed(n)) for n in (5, 2000)] for _ in "ab")
    together, apart = StackedRule(which, rows, whole), StackedRule(which, rows, single)
    for t in range(1, 6):
        gradients = [torch.randn(3, n, generator=torch.Generator().manual_seed(t)) for n in (5, 2000)]
        together.step(gradients)
        if t == 1:
            apart.step(gradients)
            continue
        own = [torch.empty(n) for n in (5, 2000)]  # memory for the gradients of one row
        apart.prepare_step([g.data_ptr() for g in own])
        for row, calls in enumerate(apart.calls_by_row()):
            for memory, g in zip(own, gradients, strict=True):
                memory.copy_(g[row])
            run_calls(calls)
        assert all(torch.equal(a, b) for a, b in zip(whole, single, strict=True))


def number_total(h, t, x, g):
    """A total of a number."""
    x = x - total(h.lr) * g
    return x


def power(h, t, x, g):
    """A power of a total."""
    n = total(g**2)
    x = x - h.lr * g / n**0.5
    return x


def power_of_state(h, t, x, g, s):
    """A power of state that was a total."""
    x = x - h.lr * s**h.lr * g
    s = total(g)
    return x, s


def counts_steps(h, t, x, g, d):
    """Shared state of the step number."""
    d = d + t
    x = x - d * g
    return x, d


def own_total(h, t, x, g, d):
    """Shared state of one tensor."""
    c = 2 * total(g)
    d = d + c
    x = x - d * g
    return x, d


def wrong_over(h, t, x, g):
    """A reduction over something else."""
    x = x - g / total(g, over="rows")
    return x


def all_elements(h, t, x, g, d):
    """A shared tensor."""
    d = d + g
    x = x - d
    return x, d


def many_arguments(h, t, x, g):
    """A total of two values."""
    x = x - g / total(g, x)
    return x


def center(h, t, x):
    """The mean as evaluation point."""
    point = x - total(x) / size(x)
    return point


ONE = {"s": State("s", kind="scalar")}
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (number_total, {}, r"total\(\) is given a number, which has no elements"),
    (power, {}, r"powers of numbers that depend on reductions .* Write a \* a, or sqrt\(a\)"),
    (power_of_state, {"state": ONE}, "powers of numbers that depend on reductions"),
    (counts_steps, {"state": {"d": SHARED["d"]}}, "shared state 'd' depends on t"),
    (own_total, {"state": {"d": SHARED["d"]}}, "the tensors of a group would disagree"),
    (wrong_over, {}, r'has other arguments. Allowed: over="tensor" or over="group"'),
    (many_arguments, {}, r"total got 2 arguments. It takes 1"),
    (all_elements, {"state": {"d": State("d", shared=True)}}, "is shared, which only a number can be"),
    (normalized, {"evaluate": center}, "the evaluation point is elementwise"),
]


@pytest.mark.parametrize(("function", "given", "message"), REFUSED, ids=lambda given: getattr(given, "__name__", ""))
def test_what_cannot_be_reduced_alike_everywhere_is_refused(function: Any, given: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        made(function, **given)


def test_a_trace_of_a_network_steps_all_layers_together() -> None:
    layers = trace(rules.dog, "digits", 4).layers
    first, *others = ([float(value) for value in layer.terms["r"]] for layer in layers.values())
    assert len(others) > 2
    assert all(other == first for other in others), "the estimate is one number for the group"


def test_a_group_of_several_dtypes_is_stepped_eagerly_as_a_whole() -> None:
    shapes = ((3, 5), (BLOCK + 1,))
    mixed, plain = (
        [*params(torch.float32, shapes), *params(torch.bfloat16, shapes), *params(torch.float32, ((0, 3), (2, 2)))]
        for _ in "ab"
    )
    a, b = optim.from_rule(NESTED)(mixed), optim.from_rule(NESTED)(plain, fused=False)
    for t in range(4):
        give(mixed, t)
        give(plain, t)
        a.step()
        b.step()
    assert not a._plan.batches
    assert all(torch.equal(p, q) for p, q in zip(mixed, plain, strict=True))
    assert a.param_groups[0]["d"] == b.param_groups[0]["d"]


def test_a_group_of_several_dtypes_is_not_stacked() -> None:
    trial = Trial(rules.dog, rules.dog.values(), 3, 32, 1, "constant", evaluates_test=False)
    stack = [torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.float64)]
    with pytest.raises(ValueError, match="dog steps all tensors of a parameter group together.* several dtypes"):
        StackedOptimizers([trial], stack)
    assert len(StackedOptimizers([trial], stack[:1]).blocks) == 1
