"""Rules on matrices: state of several shapes, functions of matrices, and work that is done in some steps only."""

from typing import Any

import numpy as np
import pytest
import torch

from gradprix import optim, rules
from gradprix.kernels import compute_terms, eager_step, init_state
from gradprix.rules import (
    RuleError,
    State,
    eigenvectors,
    exists,
    matmul,
    matrix_power,
    order,
    qr,
    reordered,
    transpose,
)
from gradprix.rules.notation import formula
from gradprix.rules.vector_form import vector_form

pytestmark = pytest.mark.usefixtures("float64")
KINDS = ["element", "scalar", "vector", "rows", "columns", "rows×rows", "columns×columns"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), [(), (), (), None, None, None, None]),
        ((5,), [(5,), (), (5,), None, None, None, None]),
        ((3, 4), [(3, 4), (), None, (3, 1), (1, 4), (3, 3), (4, 4)]),
        ((3, 2, 4), [(3, 2, 4), (), None, (3, 2, 1), (3, 1, 4), (3, 3), None]),
    ],
)
def test_state_has_the_shape_of_its_kind(shape: tuple[int, ...], expected: list[Any]) -> None:
    found = [State("key", kind=kind, limit="most").shape(shape, {"most": 7}) for kind in KINDS]

    assert found == expected, "the last one would have 8 rows"


def made(function: Any, scope: Any = "tensor", **given: Any) -> rules.Rule:
    space = {"lr": rules.log(1e-3, 1)}
    return rules.rule("Nobody 2026", relation="None.", space=space, scope=scope, lr=0.1, every=3.0, **given)(function)


def squares(h, t, x, g, s):
    """A branch that fails for all but square matrices, and one that is taken in every third step."""
    x = matmul(x, x) if t % h.every == 0 else x - h.lr * g
    s = s + 1 if t > 2 else s
    return x, s


def test_the_other_branch_is_not_evaluated() -> None:
    rule = made(squares, state={"s": "s"})
    values, x, g = rule.values(), torch.ones(2, 3), torch.ones(2, 3)
    state = {"s": init_state(rule.state["s"], values, x, g)}
    for t in (1, 2, 4):
        moved, after = eager_step(rule, values, t, x, g, state)
        torch.testing.assert_close(moved, x - 0.1)
        assert torch.equal(after["s"], state["s"] + (t > 2))
        assert torch.equal(compute_terms(rule, values, t, x, g, state)["x"], moved)
    with pytest.raises(RuntimeError, match="cannot be multiplied|Expected size"):
        eager_step(rule, values, 3, x, g, state)
    assert formula(rule)[0] == "x ← x x if t mod every = 0 else x − η g"


def test_conditions_are_numbers() -> None:
    def by_element(h, t, x, g):
        x = x - g if x > 0 else x
        return x

    def of_elements(h, t, x, g):
        x = x % h.every
        return x

    def one_element(h, t, x, g):
        x = x - g if t > 1 else x
        return x

    for function, scope, message in [
        (by_element, "tensor", "must be a number, such as t > 1"),
        (of_elements, "tensor", "% is a remainder of numbers"),
        (of_elements, "element", "% is a remainder of numbers"),
        (one_element, "element", r"`t > 1` is no option.*Write where\(condition, a, b\)"),
    ]:
        with pytest.raises(RuleError, match=message):
            made(function, scope)


def positive(n: int = 5) -> torch.Tensor:
    a = torch.randn(n, 2 * n, generator=torch.Generator().manual_seed(0))
    return a @ a.mT


def test_functions_of_matrices() -> None:
    a = positive()
    vectors = eigenvectors(a)
    values = (vectors.mT @ a @ vectors).diagonal()
    assert bool((values.diff() <= 0).all()), "the largest first"
    torch.testing.assert_close(a @ vectors, vectors * values)
    mixed = [3, 0, 4, 1, 2]
    assert order(a, vectors[:, mixed]).tolist() == [1, 3, 4, 0, 2]
    assert torch.equal(reordered(a, torch.tensor([1, 0]), torch.tensor([2, 4])), a[[1, 0]][:, [2, 4]])
    torch.testing.assert_close(qr(a, vectors[:, mixed]).abs(), vectors.abs())
    torch.testing.assert_close(
        torch.linalg.matrix_power(matrix_power(a, -1 / 4, 0.5), 4), torch.linalg.inv(a + 0.5 * torch.eye(5))
    )


def test_what_does_not_exist_acts_as_the_identity() -> None:
    a = positive()
    assert matmul(None, a) is matmul(a, None) is reordered(a, None, None) is a
    for missing in (
        *(f(None) for f in (transpose, eigenvectors)),
        *(f(None, None) for f in (matmul, order, qr)),
        matrix_power(None, -1, 0.0),
    ):
        assert missing is None
    assert not exists(None)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_matrix_that_is_not_finite_has_no_decomposition(value: float) -> None:
    a = torch.full((2, 2), value)

    assert bool(eigenvectors(a).isnan().all())
    assert bool(matrix_power(a, -1 / 2, 1.0).isnan().all())


@pytest.mark.parametrize("name", ["SOAP", "Shampoo", "Adafactor", "CAME"])
def test_state_in_the_shape_of_another_network_is_refused(name: str) -> None:
    x, y = (torch.nn.Parameter(torch.ones(shape)) for shape in ((3, 4), (4, 3)))
    first, second = getattr(optim, name)([x]), getattr(optim, name)([y])
    for optimizer, p in ((first, x), (second, y)):
        p.grad = torch.ones_like(p)
        optimizer.step()
    second.load_state_dict(first.state_dict())
    with pytest.raises(RuntimeError, match="belongs to another network"):
        second.step()


VECTORS: list[tuple[str, dict[str, Any]]] = [
    ("Adafactor", {"lr": 0.1, "weight_decay": 0.1}),
    ("CAME", {"lr": 0.1, "weight_decay": 0.1}),
    ("Shampoo", {"momentum": 0.5, "precondition_frequency": 2}),
]
"""Optimizers of matrices whose form for vectors is elementwise, with options."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "given"), VECTORS, ids=str)
def test_kernels_step_vectors_to_the_bit_as_the_eager_step(
    name: str, given: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch takes roots with Intel's MKL, which is not always rounded to nearest.
    monkeypatch.setattr(torch.Tensor, "sqrt", lambda a: torch.from_numpy(np.asarray(np.sqrt(a.numpy()))))
    shapes = [(5,), (3000,), (4, 6), (), (1,), (0,)]
    both = []
    for fused in (None, False):
        generator = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]
        optimizer = getattr(optim, name)(params, fused=fused, **given)
        for _ in range(5):
            for x in params:
                x.grad = torch.randn(x.shape, generator=generator).to(dtype)
            optimizer.step()
        both.append([(x, optimizer.state[x]) for x in params])
        stepped = [x for batch in optimizer._plan.batches for x in batch.params]
        assert stepped == ([] if fused is False else [x for x in params if x.dim() < 2 and x.numel()])
    for (x, ours), (y, theirs) in zip(*both, strict=True):
        assert torch.equal(x, y)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_rule_has_a_vector_form_if_it_is_elementwise_without_the_state_of_matrices() -> None:
    forms = {rule.name: vector_form(rule, 1e-7) for rule in (rules.came, rules.soap, rules.muon, rules.adam)}

    assert [name for name, form in forms.items() if form] == ["came"], "SOAP distinguishes steps, Muon takes no vectors"
    assert [*forms["came"].state] == ["m", "v"]
    assert forms["came"] is vector_form(rules.came, 1e-7), "plans are compared by rule"


def test_large_sides_have_no_matrix() -> None:
    x = [torch.nn.Parameter(torch.ones(shape)) for shape in ((3, 6), (6, 3), (2, 3, 3), (6,))]
    optimizer = optim.SOAP(x, max_precond_dim=5)
    for p in x:
        p.grad = torch.ones_like(p)
    optimizer.step()
    sides = [{key for key in optimizer.state[p] if key in ("left", "right")} for p in x]

    assert sides == [{"left"}, {"right"}, {"left"}, set()]
