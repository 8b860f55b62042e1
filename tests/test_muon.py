"""Muon: torch's class to the bit, its author's, stacks of matrices, and which parameters of a model are for AdamW."""

import copy
import inspect
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import gradprix as gp
from gradprix import optim, rules
from gradprix.explain import trace
from gradprix.race import ENTRIES
from gradprix.tasks import find
from gradprix.training import STACKED, ExecutionMode, Trial, train_stack
from gradprix.training.plain_step import make_plain_optimizer

SHAPES = [(8, 4), (4, 16), (4, 16), (17, 33), (17, 33), (17, 33), (20, 20), (20, 20), (1, 7), (7, 1), (200, 180)]
TORCHS = [
    {},
    {"lr": 0.1, "adjust_lr_fn": "match_rms_adamw"},
    {"lr": torch.tensor(0.3, dtype=torch.float64), "adjust_lr_fn": "original", "momentum": 0.0},
    {"lr": 0.1, "momentum": 0.3, "nesterov": False, "ns_steps": 3, "ns_coefficients": (2.0, -1.5, 0.5), "eps": 1e-3},
    {"weight_decay": 0.0, "nesterov": False},
]


def matrices(shapes: Any = SHAPES, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def step(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], t: int) -> None:
    """A step whose gradients depend on the parameters and on the step; they vary over decades, and one is zero."""
    for i, x in enumerate(params):
        x.grad = torch.sin(3 * x.detach() + t) * 10.0 ** ((t + i) % 5 - 3) * ((t + i) % 7 > 0)
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("given", TORCHS, ids=str)
def test_equals_torch_to_the_bit(given: dict[str, Any], dtype: torch.dtype) -> None:
    ours, theirs = matrices(dtype=dtype), matrices(dtype=dtype)
    a, b = optim.Muon(ours, **given), torch.optim.Muon(theirs, **given)
    for t in range(20):
        step(a, ours, t)
        step(b, theirs, t)
        for x, y in zip(ours, theirs, strict=True):
            assert torch.equal(x, y), (t, tuple(x.shape))
            assert torch.equal(a.state[x]["momentum_buffer"], b.state[y]["momentum_buffer"])
            assert a.state[x].keys() == b.state[y].keys()


def test_interface_is_torchs() -> None:
    a, b = inspect.signature(optim.Muon), inspect.signature(torch.optim.Muon)
    names = list(b.parameters)
    assert list(a.parameters)[: len(names)] == names
    assert [a.parameters[name].default for name in names] == [b.parameters[name].default for name in names]
    assert all(a.parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(a.parameters)[len(names) :])
    ours, theirs = optim.Muon(matrices()), torch.optim.Muon(matrices())
    assert isinstance(ours, torch.optim.Muon)
    without = [{k: v for k, v in group.items() if k != "params"} for o in (ours, theirs) for group in o.param_groups]
    assert without[0] == without[1]
    assert ours.state_dict() == theirs.state_dict()


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_checkpoints_go_both_ways(first: str) -> None:
    make: dict[str, Callable[..., Any]] = {"ours": optim.Muon, "theirs": torch.optim.Muon}
    second = "theirs" if first == "ours" else "ours"
    params = matrices()
    optimizer = make[first](params, lr=0.1, weight_decay=0.2)
    for t in range(3):
        step(optimizer, params, t)
    twins = copy.deepcopy(params)
    loaded = make[second](twins)
    loaded.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    for t in range(3, 6):
        step(optimizer, params, t)
        step(loaded, twins, t)
    assert all(torch.equal(x, y) for x, y in zip(params, twins, strict=True))


WRONG = [
    ({"adjust_lr_fn": "neither"}, ValueError),
    ({"lr": -1.0}, ValueError),
    ({"momentum": -1.0}, ValueError),
    ({"weight_decay": -1.0}, ValueError),
    ({"ns_steps": 100}, ValueError),
    ({"ns_coefficients": (1.0, 2.0)}, ValueError),
]


@pytest.mark.parametrize(("given", "error"), WRONG, ids=str)
@pytest.mark.parametrize("module", [optim, torch.optim], ids=["ours", "torch"])
def test_wrong_arguments_raise_torchs_errors(module: Any, given: dict[str, Any], error: type[Exception]) -> None:
    params = matrices([(3, 2)])
    params[0].grad = torch.ones(3, 2)
    with pytest.raises(error):
        module.Muon(params, **given).step()


def test_other_parameters_are_refused_as_by_torch() -> None:
    for module in (optim, torch.optim):
        for shape in ((3,), (4, 3, 2, 2), ()):
            with pytest.raises(ValueError, match="Muon only supports 2D parameters whereas we found"):
                module.Muon([nn.Parameter(torch.ones(shape))])
    for wrong, match in (({"betas": (0.9, 0.95)}, "MuonWithAuxAdam"), ({"adamw_lr": 0.1}, "MuonWithAuxAdam")):
        with pytest.raises(TypeError, match=match):
            optim.Muon(matrices(), **wrong)
    with pytest.raises(ValueError, match="MuonWithAuxAdam"):
        optim.Muon([{"params": matrices(), "use_muon": True}])
    for gradient, kind in ((torch.eye(2).to_sparse(), torch.float32), (None, torch.complex64)):
        for module in (optim, torch.optim):
            params = [nn.Parameter(torch.ones(2, 2, dtype=kind))]
            params[0].grad = torch.ones(2, 2, dtype=kind) if gradient is None else gradient
            with pytest.raises(RuntimeError):
                module.Muon(params).step()


def authors_step(x: Any, g: Any, buffer: Any, lr: float = 0.02, momentum: float = 0.95, wd: float = 0.0) -> Any:
    """github.com/KellerJordan/Muon, muon.py: muon_update and SingleDeviceMuon.step; a kernel has one row per output."""
    buffer.lerp_(g, 1 - momentum)
    update = g.lerp(buffer, momentum).view(len(g), -1)
    o = update.bfloat16()
    o = o.mT if update.size(-2) > update.size(-1) else o
    o = o / (o.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = o @ o.mT
        o = 3.4445 * o + (-4.7750 * a + 2.0315 * a @ a) @ o
    o = o.mT if update.size(-2) > update.size(-1) else o
    o = o * max(1, update.size(-2) / update.size(-1)) ** 0.5
    return x * (1 - lr * wd) - lr * o.reshape(x.shape)


def test_authors_form() -> None:
    shapes = [(8, 4), (4, 16), (6, 3, 2, 2), (20, 20), (5, 2, 3)]
    params = matrices(shapes)
    theirs = [(x.detach().clone(), torch.zeros_like(x)) for x in params]
    optimizer = optim.Muon(params, like="author")
    assert [optimizer.param_groups[0][name] for name in ("lr", "weight_decay")] == [0.02, 0.0]
    for t in range(20):
        for i, x in enumerate(params):
            x.grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(100 * t + i))
        optimizer.step()
        for i, (x, (y, buffer)) in enumerate(zip(params, theirs, strict=True)):
            theirs[i] = authors_step(y, x.grad, buffer), buffer
            # The author rounds each operation of the iteration to bfloat16, torch each pair of them.
            torch.testing.assert_close(x.detach(), theirs[i][0], rtol=0, atol=0.02 * 0.1 * (t + 1) ** 0.5)
            torch.testing.assert_close(optimizer.state[x]["momentum_buffer"], buffer, rtol=0, atol=0)
    again = pickle.loads(pickle.dumps(optimizer))
    again.add_param_group({"params": matrices([(3, 2, 2)])})
    with pytest.raises(ValueError, match="no form of muon"):
        optim.Muon(params, like="keras")


def test_changed_defaults_are_announced_only_where_they_matter() -> None:
    silent = [{"lr": 0.1, "weight_decay": 0.0}, {"like": "torch"}, {"like": "author"}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in silent:
            optim.Muon(matrices(), **given)
        for given in ({}, {"lr": 0.02}, {"weight_decay": 0.1}):
            with pytest.raises(UserWarning, match="now has the defaults of torch.optim.Muon"):
                optim.Muon(matrices(), **given)


@pytest.mark.parametrize(
    "shape", [(2, 9), (16, 40), (17, 17), (17, 300), (64, 24), (33, 128), (129, 501), (400, 400), (300, 900)], ids=str
)
def test_a_matrix_in_a_stack_has_the_bits_of_a_matrix_alone(shape: tuple[int, int]) -> None:
    coefficients = 1e-7, 3.4445, -4.775, 2.0315, 5
    for seed in range(20):
        count = 2 + seed % 7
        d = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed % 9 - 4)
        alone = torch.stack([rules.newton_schulz(x, *coefficients) for x in d])
        assert torch.equal(rules.newton_schulz(d, *coefficients), alone)


@pytest.mark.parametrize("change", ["transposed", "channels last", "half", "subset"])
def test_matrices_of_any_layout(change: str) -> None:
    """Against steps of each parameter alone, as contiguous matrices."""
    shapes = [(4, 3, 2, 2)] * 3 if change == "channels last" else [(6, 5)] * 3
    dtype = torch.bfloat16 if change == "half" else torch.float32
    together, alone = matrices(shapes, dtype), matrices(shapes, dtype)
    for x in together:
        if change == "transposed":
            x.data = x.data.mT.contiguous().mT
        if change == "channels last":
            x.data = x.data.contiguous(memory_format=torch.channels_last)
    first = optim.Muon(together, like="author")
    others = [optim.Muon([x], like="author") for x in alone]
    for t in range(4):
        for i, (x, y, other) in enumerate(zip(together, alone, others, strict=True)):
            g = torch.randn(x.shape, generator=torch.Generator().manual_seed(10 * t + i)).to(dtype)
            x.grad, y.grad = (None, None) if change == "subset" and (t + i) % 3 == 0 else (g.clone(), g)
            x.grad = x.grad if x.grad is None else torch.empty_like(x).copy_(x.grad)
            other.step()
        first.step()
    assert all(torch.equal(x, y) for x, y in zip(together, alone, strict=True))


class Mixed(nn.Module):
    """One of each: embeddings by type and name, kernels, norms, attention, recurrence, tied weights, experts."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.pos_embed = nn.Embedding(9, 8), nn.Parameter(torch.ones(5, 8))
        self.patch_embed = nn.Sequential(nn.Conv2d(3, 8, 2))
        self.conv, self.line = nn.Conv2d(3, 4, 2), nn.ConvTranspose1d(2, 3, 2)
        self.attention, self.memory = nn.MultiheadAttention(8, 2), nn.LSTM(8, 4)
        self.norm, self.plane = nn.LayerNorm(8), nn.LayerNorm((4, 4))
        self.block = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))
        self.experts, self.attention_bias = nn.Parameter(torch.ones(2, 8, 8)), nn.Parameter(torch.ones(4, 4))
        self.wave = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
        self.tied = nn.Linear(8, 9, bias=False)
        self.tied.weight = self.token.weight
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.lm_head = nn.Linear(8, 9)


class NoName(nn.Module):
    """An output layer that is not the last one, and a head of several layers."""

    def __init__(self) -> None:
        super().__init__()
        self.output, self.hidden = nn.Linear(8, 9), nn.Linear(8, 8)
        self.classifier = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


class Declared(nn.Module):
    """A model that declares its output layer, as those of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.predictions, self.body = nn.Linear(8, 9), nn.Linear(8, 8)

    def get_output_embeddings(self) -> nn.Module:
        return self.predictions


HIDDEN = [
    (
        Mixed,
        "conv.weight line.weight attention.in_proj_weight attention.out_proj.weight memory.weight_ih_l0 "
        "memory.weight_hh_l0 block.0.weight",
    ),
    (NoName, "hidden.weight classifier.0.weight"),
    (Declared, "body.weight"),
    (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2)), "0.weight 2.weight"),
    (lambda: nn.Linear(4, 2), ""),
]


@pytest.mark.parametrize(("make", "hidden"), HIDDEN)
def test_division_of_a_model(make: Callable[[], nn.Module], hidden: str) -> None:
    model = make()
    names: dict[bool, list[str]] = {True: [], False: []}
    for group in optim.muon_groups(model):
        names[group["use_muon"]] += [name for name, _ in group["params"]]
    assert names[True] == hidden.split()
    assert sorted(names[True] + names[False]) == sorted(n for n, x in model.named_parameters() if x.requires_grad)


def test_exceptions_from_the_division() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))

    def chosen(use_muon: Any) -> list[str]:
        groups = optim.muon_groups(model, use_muon=use_muon, weight_decay=0.3)
        assert all(group["weight_decay"] == 0.3 for group in groups)
        return [name for group in groups if group["use_muon"] for name, _ in group["params"]]

    assert chosen({"0.*": False, "2.weight": True}) == ["1.weight", "2.weight"]
    assert chosen(lambda name, x: False if len(x) == 8 else None) == []
    with pytest.raises(ValueError, match="no trainable parameter is called 'head'"):
        chosen({"head": False})
    with pytest.raises(ValueError, match="use_muon=True: the group has a parameter that is no matrix"):
        optim.MuonWithAuxAdam(optim.muon_groups(model, use_muon={"0.bias": True}))


@pytest.mark.parametrize("given", [{}, {"adamw_lr": 0.01}, {"like": "author"}], ids=str)
def test_whole_model_equals_torchs_two_optimizers(given: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    twin = copy.deepcopy(model)
    optimizer = optim.MuonWithAuxAdam(model, **given)
    is_author = given.get("like") == "author"
    hidden = [twin[0].weight, twin[2].weight]
    adjust = "original" if is_author else "match_rms_adamw"
    decay = 0.0 if is_author else 0.1
    muon = torch.optim.Muon(hidden, lr=0.02 if is_author else 1e-3, weight_decay=decay, adjust_lr_fn=adjust)
    lr, eps = (3e-4, 1e-10) if is_author else (given.get("adamw_lr", 1e-3), 1e-8)
    rest = [x for x in twin.parameters() if all(x is not y for y in hidden)]
    adamw = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), eps=eps, weight_decay=decay)
    for t in range(10):
        for net, steppers in ((model, [optimizer]), (twin, [muon, adamw])):
            for i, x in enumerate(net.parameters()):
                x.grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(100 * t + i))
            for each in steppers:
                each.step()
    for x, y in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-7)


def test_groups_of_a_whole_model() -> None:
    a, b, c = (nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (3, 2), (3,)))
    with pytest.warns(UserWarning, match="without their model"):
        split = optim.MuonWithAuxAdam([{"params": [a, c], "lr": 0.1, "adamw_lr": 0.2}])
    assert [(group["use_muon"], group["lr"]) for group in split.param_groups] == [(True, 0.1), (False, 0.2)]
    flagged = [
        {"params": [a], "use_muon": True},
        {"params": b, "use_muon": False, "lr": 0.3},
        {"params": [c], "use_muon": False},
    ]
    optimizer = optim.MuonWithAuxAdam(flagged, lr=0.02, adamw_lr=0.7)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.3, 0.7]
    for x in (a, b, c):
        x.grad = torch.ones_like(x)
    optimizer.step()
    assert set(optimizer.state[b]) == {"step", "exp_avg", "exp_avg_sq"}
    assert set(optimizer.state[a]) == {"momentum_buffer"}
    for wrong in ([{"params": {a, c}}], [1.0]):
        with pytest.raises(TypeError):
            optim.MuonWithAuxAdam(wrong)
    assert optim.from_rule(rules.muon) is optim.MuonWithAuxAdam


@pytest.mark.parametrize("task", ["charlm", "digits"])
def test_races_divide_models_in_stacks_too(task: str) -> None:
    problem = find(task, "small" if task == "charlm" else None, None)
    size, share = problem.batch_size, 0.02 if task == "charlm" else 0.5

    def make(seed: int, lr: float, name: str = "muon", **more: Any) -> Trial:
        values = ENTRIES[name].values(lr, **more)
        return Trial(ENTRIES[name].rule, values, seed, size, share, "constant", True)

    trials = [make(0, 1e-2), make(1, 1e-2), make(1, 3e-2), make(2, 1e-2, "muon-original", adamw_lr=1e-3)]
    stacked = train_stack(problem, trials, mode=STACKED)
    for one, outcome in zip(trials, stacked, strict=True):
        (alone,) = train_stack(problem, [one], mode=STACKED)
        assert outcome.curve == alone.curve
        assert outcome.test_loss == alone.test_loss
    (plain,) = train_stack(problem, trials[:1], mode=ExecutionMode(stacked=False))
    assert plain.test_loss == pytest.approx(stacked[0].test_loss, rel=1e-2)
    optimizer = make_plain_optimizer(problem, problem.network(0), trials[0])
    model = problem.network(0)
    sizes = {
        flag: sorted(x.numel() for g in optimizer.param_groups if g["use_muon"] is flag for x in g["params"])
        for flag in (True, False)
    }
    assert sizes == {
        group["use_muon"]: sorted(x.numel() for _, x in group["params"]) for group in optim.muon_groups(model)
    }


def test_entries() -> None:
    assert ENTRIES["muon"].code(0.01) == "gradprix.optim.MuonWithAuxAdam(model, lr=0.01)"
    assert list(ENTRIES["muon-original"].space) == ["lr", "adamw_lr"]
    assert gp.Entry("mine", rules.muon).rule.make is optim.MuonWithAuxAdam
    assert trace("muon-original", "digits", 1).values["match_rms_adamw"] is False
