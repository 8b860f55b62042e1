"""PyTorch's own list of optimizer inputs and of what must be refused, run on every class we share."""

from typing import Any

import pytest
import torch

from gradprix import optim
from torch_optim_db import OptimizerErrorEnum, optim_db

pytestmark = pytest.mark.usefixtures("float64")
# Muon is compared with torch's in test_muon.py, to the bit.
SHARED = [info for info in optim_db if info.optim_cls.__name__ in set(optim.__all__) - {"Muon"}]
INPUTS = [
    pytest.param(info, given, id=f"{info.optim_cls.__name__}-{given.desc}")
    for info in SHARED
    for given in info.optim_inputs_func(device="cpu")
]
ERRORS = [
    pytest.param(info, wrong, id=f"{info.optim_cls.__name__}-{wrong.error_regex}")
    for info in SHARED
    for wrong in info.optim_error_inputs_func(device="cpu", dtype=torch.float64)
]
# What torch refuses only because one of its implementations cannot do it, or for no reason: it works here.
ACCEPTED = ("lr as a Tensor is not supported", "as a Tensor is not supported", "both floats or both Tensors")


def test_all_twelve_classes_are_on_the_list() -> None:
    assert len(SHARED) == 12
    assert len(INPUTS) > 50


@pytest.mark.sample(3)
@pytest.mark.parametrize(("info", "given"), INPUTS)
@pytest.mark.parametrize("fused", [None, False], ids=["fused", "eager"])
def test_inputs(info: Any, given: Any, fused: bool | None) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,), ())]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    a = getattr(optim, info.optim_cls.__name__)(ours, **{**given.kwargs, "fused": fused})
    b = info.optim_cls(theirs, **given.kwargs)
    for _ in range(100):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        a.step()
        b.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("info", "wrong"), ERRORS)
def test_errors(info: Any, wrong: Any) -> None:
    if wrong.error_on is not OptimizerErrorEnum.CONSTRUCTION_ERROR:
        pytest.skip("not an error of construction")
    given = wrong.optimizer_error_input
    make = getattr(optim, info.optim_cls.__name__)
    if any(phrase in wrong.error_regex for phrase in ACCEPTED):
        make([torch.nn.Parameter(torch.zeros(1))], **given.kwargs)
    else:
        with pytest.raises((wrong.error_type, TypeError, ValueError)) as caught:
            make(given.params, **given.kwargs)
        assert len(str(caught.value)) > 20
