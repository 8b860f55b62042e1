"""Parameters of equal shape in a stack: rules on whole tensors step them with the bits of a step of each alone."""

import copy
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from gradprix import optim, rules
from gradprix.kernels import compile_stack_step
from gradprix.rules import matmul, maximum, norm, size, sqrt, total, transpose

SHAPES = [
    *[(4, 6)] * 3,
    *[(40, 40)] * 4,
    *[(12, 36)] * 4,
    *[(17, 65)] * 3,
    *[(8, 3, 3, 3)] * 2,
    *[(8, 4, 3, 3)] * 4,
    *[(1, 5)] * 2,
    (200, 190),
    (7,),
    (0, 3),
]
GIVEN: list[tuple[str, dict[str, Any]]] = [
    ("Adafactor", {"lr": 0.1, "weight_decay": 0.1}),
    ("Adafactor", {"eps": (1e-3, 1e-3), "d": 1.5, "maximize": True}),
    ("CAME", {"lr": 0.1, "weight_decay": 0.1}),
    ("Shampoo", {"precondition_frequency": 2}),
    ("Shampoo", {"precondition_frequency": 3, "momentum": 0.5, "weight_decay": 0.1, "max_precond_dim": 20}),
    ("SOAP", {"precondition_frequency": 2}),
    ("SOAP", {"precondition_frequency": 3, "shampoo_beta": 0.9, "max_precond_dim": 20, "weight_decay": 0.0}),
]


def stepped(name: str, dtype: torch.dtype, count: int = 7, **given: Any) -> tuple[Any, list[torch.nn.Parameter]]:
    """An optimizer after some steps, in two groups, and its parameters."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    groups = [{"params": params[::2]}, {"params": params[1::2], "lr": 0.03}]
    optimizer = getattr(optim, name)(groups, **given)
    for t in range(count):
        for i, x in enumerate(params):
            x.grad = (torch.randn(x.shape, generator=generator) * 10.0 ** ((t + i) % 4 - 2)).to(dtype)
        optimizer.step()
    return optimizer, params


def assert_equal(first: Any, second: Any) -> None:
    (a, ours), (b, theirs) = first, second
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y), tuple(x.shape)
        assert a.state[x].keys() == b.state[y].keys()
        assert all(torch.equal(a.state[x][key], b.state[y][key]) for key in a.state[x]), tuple(x.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "given"), GIVEN, ids=str)
def test_stacks_equal_the_eager_step_to_the_bit(name: str, given: dict[str, Any], dtype: torch.dtype) -> None:
    ours, eager = stepped(name, dtype, **given), stepped(name, dtype, fused=False, **given)
    in_stacks = {x.shape for batch in ours[0]._plan.stack_batches for x in batch.params}
    assert in_stacks == {x.shape for x in ours[1] if x.dim() > 1 and x.numel()}
    assert max(len(batch.params) for batch in ours[0]._plan.stack_batches) > 1
    assert not eager[0]._plan.stack_batches
    matrices = [[x for x in params if x.dim() > 1] for _, params in (ours, eager)]
    assert_equal((ours[0], matrices[0]), (eager[0], matrices[1]))


def test_half_precision_and_other_layouts_step_eagerly() -> None:
    optimizer, params = stepped("CAME", torch.bfloat16)
    assert not optimizer._plan.stack_batches
    optimizer, params = stepped("CAME", torch.float32, count=1)
    params[0].grad = params[0].grad.mT.contiguous().mT
    optimizer.step()
    in_stacks = {x for batch in optimizer._plan.stack_batches for x in batch.params}
    assert params[0] not in in_stacks
    assert params[1] in in_stacks


CHANGES: dict[str, Any] = {
    "count": lambda optimizer, x: optimizer.state[x]["step"].add_(5),
    "state": lambda optimizer, x: optimizer.state[x]["exp_avg"].add_(1),
    "new state": lambda optimizer, x: optimizer.state[x].update(exp_avg=torch.ones_like(x)),
    "no state": lambda optimizer, x: optimizer.state.pop(x),
    "no gradient": lambda optimizer, x: setattr(x, "grad", None),
    "storage": lambda optimizer, x: setattr(x, "data", x.data.clone() * 2),
    "overlap": lambda optimizer, x: setattr(x, "grad", x.detach()),
    "lr": lambda optimizer, x: optimizer.param_groups[0].update(lr=0.5),
    "option": lambda optimizer, x: optimizer.param_groups[0].update(weight_decay=0.2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_steps_is_seen(change: str) -> None:
    ours, eager = (stepped("CAME", torch.float32, fused=fused) for fused in (None, False))
    for optimizer, params in (ours, eager):
        CHANGES[change](optimizer, params[0])
        optimizer.step()
        optimizer.step()
    matrices = [[x for x in params if x.dim() > 1] for _, params in (ours, eager)]
    for x, y in zip(*matrices, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


def test_gradients_are_not_kept() -> None:
    optimizer, params = stepped("CAME", torch.float32)
    gradients = [StorageWeakRef(x.grad.untyped_storage()) for x in params if x.dim() > 1 and x.numel()]
    optimizer.zero_grad()

    assert len(gradients) > 20
    assert all(gradient.expired() for gradient in gradients)


def test_a_copy_does_not_share_memory_with_its_original() -> None:
    ours = stepped("CAME", torch.float32)
    optimizer, params = copy.deepcopy(ours)
    for x, y in zip(params, ours[1], strict=True):
        x.grad, y.grad = torch.ones_like(x), torch.ones_like(y)
    optimizer.step()
    ours[0].step()
    assert_equal(ours, (optimizer, params))


def whole(function: Any, **given: Any) -> rules.Rule:
    space = {"lr": rules.log(1e-3, 1)}
    return rules.rule("Nobody 2026", relation="None.", space=space, scope="tensor", lr=0.1, **given)(function)


def normalized(h, t, x, g, m):
    """Totals of several kinds, and numbers that depend on them."""
    n = maximum(total(g**2) / size(g), 1e-3)
    m = m - h.lr * g / sqrt(n)
    x = x - h.lr * m / maximum(1, sqrt(total(m**2))) if t > 1 else x
    return x, m


def by_norm(h, t, x, g):
    """The norm of a whole tensor, which would be that of the stack."""
    x = x - h.lr * g / norm(g)
    return x


def swapped(h, t, x, g, m):
    """State that is the old parameter."""
    m = x
    x = x - h.lr * g
    return x, m


def of_transpose(h, t, x, g):
    """A view of the parameter, which is used after a step in place."""
    y = transpose(x)
    x = x - h.lr * g
    x = x + matmul(x, y)
    return x


def test_own_rules_are_stacked_if_they_have_the_same_result() -> None:
    state = {"m": "m"}
    made = [whole(normalized, state=state), whole(by_norm), whole(swapped, state=state), whole(of_transpose)]
    assert [bool(compile_stack_step(rule, rule.values(), rule.state)) for rule in made] == [True, False, False, False]
    for rule in made:
        both = []
        for fused in (None, False):
            generator = torch.Generator().manual_seed(1)
            params = [torch.nn.Parameter(torch.randn(6, 6, generator=generator)) for _ in range(3)]
            optimizer = optim.from_rule(rule)(params, fused=fused)
            for _ in range(3):
                for x in params:
                    x.grad = torch.randn(6, 6, generator=generator)
                optimizer.step()
            assert bool(optimizer._plan.stack_batches) is (fused is None and rule is made[0])
            both.append((optimizer, params))
        assert_equal(*both)
