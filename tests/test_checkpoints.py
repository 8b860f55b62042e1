"""Checkpoints: torch's classes to ours and back, for every class, option, route and dtype."""

import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)

from gradprix import optim

ADAM: list[dict[str, Any]] = [
    {},
    {"amsgrad": True, "weight_decay": 0.1},
    {"maximize": True, "weight_decay": 0.3, "eps": 1e-3},
    {"foreach": True},
    {"fused": True, "betas": (0.5, 0.9)},
    {"fused": False},
    {"lr": torch.tensor(0.03, dtype=torch.float64)},
]
FLAG: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.3, "decoupled_weight_decay": True},
    {"weight_decay": 0.3, "maximize": True, "foreach": True},
]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True, "maximize": True},
        {"momentum": 0.9, "fused": True},
        {"weight_decay": 0.1, "foreach": True},
    ],
    "Adagrad": [{}, {"lr_decay": 0.1, "initial_accumulator_value": 0.5}, {"maximize": True, "fused": True}],
    "RMSprop": [{}, {"momentum": 0.9}, {"centered": True}, {"centered": True, "momentum": 0.9, "maximize": True}],
    "Adadelta": [{}, {"rho": 0.5, "weight_decay": 0.1, "maximize": True}, {"foreach": True}],
    "Adam": [*ADAM, {"weight_decay": 0.3, "decoupled_weight_decay": True}],
    "AdamW": ADAM,
    "Adamax": [{}, {"weight_decay": 0.1, "maximize": True}, {"foreach": True}],
    "NAdam": [*FLAG, {"momentum_decay": 0.3}],
    "RAdam": FLAG,
}
TABLE = [pytest.param(name, given, id=f"{name}-{given}") for name, many in OPTIONS.items() for given in many]
BOTH = {"Adam": "AdamW", "AdamW": "Adam"}
"""Whose checkpoints may also be loaded: the two share a schema, and each says how its weight decay acts."""
FLATTENED = StateDictOptions(flatten_optimizer_state_dict=True)


@pytest.fixture(autouse=True, scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone: without one, torch.distributed.checkpoint warns."""
    file = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class Run:
    """A model of two groups with its optimizer."""

    def __init__(self, module: Any, name: str, **given: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = nn.Linear(3, 2)
        for x in self.model.parameters():
            x.data = torch.randn(x.shape, generator=generator)
        groups = [{"params": [self.model.weight], "weight_decay": 0.2}, {"params": [self.model.bias], "lr": 0.02}]
        self.optimizer = getattr(module, name)(groups, **{"lr": 0.1, **given})
        self.t = 0

    def steps(self, count: int) -> "Run":
        for _ in range(count):
            generator = torch.Generator().manual_seed(100 + self.t)
            for x in self.model.parameters():
                x.grad = torch.randn(x.shape, generator=generator).to(x.dtype)
            self.optimizer.step()
            self.t += 1
        self.optimizer.zero_grad()
        return self

    def resume(self, source: "Run", route: "Route", folder: Path) -> "Run":
        """Take over weights and state of another run."""
        self.model.load_state_dict(source.model.state_dict())
        route(source, self, folder)
        self.t = source.t
        return self

    @property
    def weights(self) -> torch.Tensor:
        return torch.cat([x.detach().flatten() for x in self.model.parameters()])


Route = Callable[[Run, Run, Path], None]


def directly(source: Run, target: Run, folder: Path) -> None:
    target.optimizer.load_state_dict(source.optimizer.state_dict())


def by_torch_save(source: Run, target: Run, folder: Path) -> None:
    buffer = io.BytesIO()
    torch.save(source.optimizer.state_dict(), buffer)
    buffer.seek(0)
    target.optimizer.load_state_dict(torch.load(buffer, weights_only=True))


def nested(source: Run, target: Run, folder: Path) -> None:
    packed = get_optimizer_state_dict(source.model, source.optimizer)
    set_optimizer_state_dict(target.model, target.optimizer, packed)


def flattened(source: Run, target: Run, folder: Path) -> None:
    packed = get_optimizer_state_dict(source.model, source.optimizer, options=FLATTENED)
    set_optimizer_state_dict(target.model, target.optimizer, packed, options=FLATTENED)


def model_and_optimizer(source: Run, target: Run, folder: Path) -> None:
    model, packed = get_state_dict(source.model, source.optimizer)
    set_state_dict(target.model, target.optimizer, model_state_dict=model, optim_state_dict=packed)


def in_a_folder(source: Run, target: Run, folder: Path, options: StateDictOptions | None = None) -> None:
    packed = {"optim": get_optimizer_state_dict(source.model, source.optimizer, options=options)}
    dcp.save(packed, checkpoint_id=folder)
    packed = {"optim": get_optimizer_state_dict(target.model, target.optimizer, options=options)}
    dcp.load(packed, checkpoint_id=folder)
    set_optimizer_state_dict(target.model, target.optimizer, packed["optim"], options=options)


def in_a_folder_flattened(source: Run, target: Run, folder: Path) -> None:
    in_a_folder(source, target, folder, FLATTENED)


WHOLE: list[Route] = [directly, by_torch_save]
"""What brings all options along; torch.distributed.checkpoint loads into an optimizer of the same options."""
ROUTES: list[Route] = [*WHOLE, nested, flattened, model_and_optimizer, in_a_folder, in_a_folder_flattened]


def schema(optimizer: torch.optim.Optimizer) -> Any:
    """Return everything about a state dict, and the keys of the state in memory, but the state's numbers."""
    packed = optimizer.state_dict()
    memory = {i: optimizer.state.get(x) for i, x in enumerate(x for g in optimizer.param_groups for x in g["params"])}
    keys = {number: set(held) for number, held in memory.items() if held is not None}
    # torch multiplies mu_product in float32, this package in float64.
    shapes = {
        (number, key): (value.shape, value.device, value.dtype if key != "mu_product" else None)
        for number, held in packed["state"].items()
        for key, value in held.items()
    }
    return keys, shapes, packed["param_groups"]


def assert_near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    tolerance = 1e-12 if ours.dtype is torch.float64 else 3e-5
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.sample(3)
@pytest.mark.parametrize(("name", "given"), TABLE)
def test_a_checkpoint_goes_every_way(
    name: str, given: dict[str, Any], default_dtype: torch.dtype, tmp_path: Path
) -> None:
    modules = (torch.optim, optim)
    sources = {module: Run(module, name, **given).steps(3) for module in modules}
    for target in (name, *filter(None, [BOTH.get(name)])):
        same = {key: value for key, value in given.items() if target != "AdamW" or key != "decoupled_weight_decay"}
        for i, route in enumerate(ROUTES if default_dtype is torch.float64 else (directly, flattened)):
            options = {} if route in WHOLE else same
            expected = None
            for j, (a, b) in enumerate((a, b) for a in modules for b in modules):
                folder = tmp_path / f"{target}{i}{j}"
                there = Run(b, target, **options).steps(1).resume(copy.deepcopy(sources[a]), route, folder).steps(3)
                expected = expected or there
                assert_near(there.weights, expected.weights)
                assert schema(there.optimizer) == schema(expected.optimizer), (route.__name__, a.__name__, b.__name__)


CAPTURABLE = [name for name in OPTIONS if name not in ("SGD", "Adagrad")]


@pytest.mark.parametrize(
    ("name", "given"),
    [*((name, {}) for name in OPTIONS), *((name, {"capturable": True}) for name in CAPTURABLE)],
)
def test_the_groups_of_a_new_optimizer_are_torchs(name: str, given: dict[str, Any], default_dtype: torch.dtype) -> None:
    theirs, ours = (Run(module, name, **given).optimizer for module in (torch.optim, optim))
    assert schema(ours) == schema(theirs)
    assert ours.defaults == theirs.defaults
