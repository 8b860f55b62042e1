"""`like=`: the arithmetic and defaults of other libraries, against recordings of them, and of papers, transcribed."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradprix import optim
from recordings import papers

HERE = Path(__file__).parent / "recordings"
ABOUT = json.loads((HERE / "recordings.json").read_text())
DIFFERENCES = json.loads((HERE / "differences.json").read_text())
RECORDED = {like: np.load(HERE / f"{like}.npz") for like in ("keras", "optax")}
GRADIENTS, WEIGHTS = RECORDED["keras"]["gradients"], RECORDED["keras"]["weights"]
CLASSES = ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"]
EXACT = 1e-10
"""Agreement, relative to the largest movement."""


def path(name: str, x: Any, gradients: Any, **given: Any) -> Any:
    """The point after each step, with the learning rate a tenth in the second half, as recorded."""
    p = torch.nn.Parameter(torch.tensor(x))
    optimizer = getattr(optim, name)([p], **given)
    points = []
    for t, g in enumerate(gradients):
        if t == len(gradients) // 2:
            optimizer.param_groups[0]["lr"] *= 0.1
        p.grad = torch.tensor(g)
        optimizer.step()
        points.append(p.detach().numpy().copy())
    return np.array(points)


def assert_agree(ours: Any, theirs: Any, x: Any) -> None:
    assert np.abs(ours - theirs).max() <= EXACT * np.abs(theirs - x).max()


@pytest.mark.sample(3)
@pytest.mark.parametrize("case", ABOUT["cases"], ids=lambda c: f"{c['like']}-{c['class']}-{c['given']}")
@pytest.mark.parametrize("fused", [None, False], ids=["fused", "eager"])
def test_agrees_with_the_recorded_library(case: dict[str, Any], fused: bool | None) -> None:
    x = np.zeros_like(WEIGHTS) if case["from_zero"] else WEIGHTS
    for scale, recorded in zip(ABOUT["scales"], RECORDED[case["like"]][case["key"]], strict=True):
        ours = path(case["class"], x, scale * GRADIENTS, like=case["like"], fused=fused, **case["given"])
        assert_agree(ours[ABOUT["every"] - 1 :: ABOUT["every"]], recorded, x)


PAPERS = [
    ("SGD", {"lr": 0.1}, papers.momentum, {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}, papers.momentum, {"mu": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, papers.nesterov, {"mu": 0.9}),
    ("Adagrad", {"lr": 0.1}, papers.adagrad, {}),
    ("RMSprop", {"lr": 0.01}, papers.rmsprop, {}),
    ("RMSprop", {"centered": True}, papers.graves, {}),
    ("Adadelta", {}, papers.adadelta, {}),
    ("Adam", {}, papers.adam, {}),
    ("Adam", {"lr": 0.01, "amsgrad": True}, papers.amsgrad, {}),
    ("AdamW", {"weight_decay": 0.02}, papers.adamw, {"weight_decay": 0.02}),
    ("Adamax", {}, papers.adamax, {}),
    ("NAdam", {"lr": 0.01, "betas": (0.9, 0.999)}, papers.nadam, {}),
    ("RAdam", {"lr": 0.01}, papers.radam, {}),
    ("RAdam", {"lr": 0.01, "betas": (0.9, 0.7)}, papers.radam, {"beta2": 0.7}),
]
PAPER_LR = {"RMSprop": 1e-4, "Adadelta": 1.0, "Adam": 1e-3, "AdamW": 1e-3, "Adamax": 2e-3}


@pytest.mark.parametrize(("name", "given", "paper", "numbers"), PAPERS)
@pytest.mark.parametrize("fused", [None, False], ids=["fused", "eager"])
def test_agrees_with_the_paper(name: str, given: Any, paper: Any, numbers: Any, fused: bool | None) -> None:
    lr = given.get("lr") or PAPER_LR[name]
    rates = [lr] * 50 + [lr * 0.1] * 50
    x = WEIGHTS if name == "AdamW" else np.zeros_like(WEIGHTS)
    for scale in ABOUT["scales"]:
        ours = path(name, x, scale * GRADIENTS, like="paper", fused=fused, **given)
        assert_agree(ours, paper(x, scale * GRADIENTS, rates, **numbers), x)


@pytest.mark.parametrize("name", CLASSES)
def test_torch_is_the_default(name: str) -> None:
    plain, named = (getattr(optim, name)([torch.nn.Parameter(torch.zeros(1))], **g) for g in ({}, {"like": "torch"}))
    assert plain.defaults == named.defaults
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))]).defaults
    assert set(plain.defaults) - {"fused"} <= set(theirs), "a plain checkpoint holds what torch holds"


@pytest.mark.parametrize("row", DIFFERENCES["rows"], ids=lambda r: f"{r['like']}-{r['class']}-{r['given']}-{r['with']}")
def test_published_differences_are_measured(row: dict[str, Any]) -> None:
    assert row["class"] in CLASSES
    assert len(row["difference"]) == len(DIFFERENCES["scales"])
    assert np.isfinite(row["difference"]).all()


def parameter() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(3, dtype=torch.float64))]


def test_what_is_given_wins() -> None:
    group = optim.Adam(parameter(), like="keras", lr=0.5, betas=(0.5, 0.6)).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.5, 0.6), 1e-7)
    assert group["eps_before_correction"] is True
    group = optim.Adam(parameter(), like="keras", eps_before_correction=False).param_groups[0]
    assert "eps_before_correction" not in group
    assert optim.AdamW(parameter(), like="paper", weight_decay=0.1, lr=0.5).param_groups[0]["full_lr"] == 0.5


def test_an_option_can_be_given_by_itself_or_to_a_group() -> None:
    def moved(**given: Any) -> float:
        p = parameter()
        optimizer = optim.Adam([{"params": p, **given.pop("group", {})}], lr=1.0, eps=3.0, **given)
        p[0].grad = torch.ones_like(p[0])
        optimizer.step()
        return 1 - p[0][0].item()

    assert moved() == pytest.approx(1 / (1 + 3))
    assert moved(eps_inside_sqrt=True) == pytest.approx(1 / (1 + 3) ** 0.5)
    assert moved(group={"eps_inside_sqrt": True}) == pytest.approx(1 / (1 + 3) ** 0.5)
    assert moved(eps_before_correction=True) == pytest.approx(0.001**0.5 / (0.001**0.5 + 3))


def test_dampening_can_be_an_average_from_the_first_step() -> None:
    p = parameter()
    optimizer = optim.SGD(p, lr=1.0, momentum=0.9, dampening=0.9, dampen_first=True)
    p[0].grad = torch.ones_like(p[0])
    optimizer.step()
    assert p[0][0].item() == pytest.approx(0.9)


def test_nothing_is_lost_in_a_checkpoint() -> None:
    first, second, straight = parameter(), parameter(), parameter()
    a, whole = (optim.RMSprop(p, like="keras", momentum=0.9) for p in (first, straight))

    def steps(pairs: Any, since: int) -> None:
        for t in range(since, since + 5):
            for optimizer, p in pairs:
                p[0].grad = torch.full_like(p[0], 0.1 + 0.01 * t)
                optimizer.step()

    steps([(a, first), (whole, straight)], 0)
    b = optim.RMSprop(second)
    second[0].data.copy_(first[0].data)
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    assert b.param_groups[0]["lr_inside_momentum"] is True
    steps([(b, second), (whole, straight)], 5)
    assert torch.equal(second[0], straight[0])


def test_a_checkpoint_of_torch_brings_its_own_arithmetic() -> None:
    p, q = parameter(), parameter()
    theirs, ours = torch.optim.Adam(p, eps=1.0), optim.Adam(q, like="keras")
    ours.load_state_dict(theirs.state_dict())
    for optimizer, x in ((theirs, p), (ours, q)):
        x[0].grad = torch.ones_like(x[0])
        optimizer.step()
    torch.testing.assert_close(p[0], q[0], rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("Adam", {"like": "tensorflow"}, "like='tensorflow': .*Did you mean 'keras'?"),
        ("Adam", {"like": "Pytorch"}, "Did you mean 'torch'?"),
        ("Adam", {"like": "kears"}, "Did you mean 'keras'?"),
        ("Adam", {"like": "zzz"}, "it must be one of 'torch', 'keras', 'optax', 'paper'"),
        ("Adam", {"like": True}, "it must be one of"),
        ("RAdam", {"like": "keras"}, "Keras has no RAdam"),
        ("AdamW", {"like": "optax", "lr": 0.1, "amsgrad": True}, "optax.adamw has no amsgrad"),
        ("AdamW", {"like": "paper"}, "The paper gives adamw no default for weight_decay"),
        *((name, {"like": "optax"}, "Optax gives .* no default for lr. Give it: lr=...") for name in CLASSES),
        ("Adam", {"like": "optax", "lr": 0.1, "weight_decay": 0.1}, "takes no weight_decay. optax.adamw shrinks"),
        ("SGD", {"like": "optax", "lr": 0.1, "weight_decay": 0.1}, "adds the decay to the gradient, as torch does"),
        ("SGD", {"like": "keras", "lr_in_momentum": True}, "unexpected keyword argument 'lr_in_momentum'"),
    ],
)
def test_what_a_library_lacks_is_said(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(optim, name)(parameter(), **given)


def test_like_is_not_for_a_group() -> None:
    with pytest.raises(TypeError, match="like is for all groups"):
        optim.Adam([{"params": parameter(), "like": "keras"}])


def test_optax_takes_a_decay_of_zero() -> None:
    assert optim.Adam(parameter(), like="optax", lr=0.1, weight_decay=0.0).param_groups[0]["lr"] == 0.1
