"""Which optimizer classes of other packages race, and how each is entered.

Every class of torch, pytorch_optimizer, optimi and schedulefree is entered as it is and, if it is refused, as in
`ENTRIES`. A class races if a plan with it passes preflight and a final run can be trained.

    python studies/other_optimizers.py   # two minutes; writes studies/other_optimizers.json

It needs the packages of the extra `peers`: `environment=peers; source scripts/setup`.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradprix as gp
from gradprix.race import make_plan
from gradprix.race.preflight import check
from gradprix.training import Trainer
from gradprix.utils.run_info import describe_run

PACKAGES = {
    "torch.optim": "torch",
    "pytorch_optimizer": "pytorch_optimizer",
    "optimi": "torch-optimi",
    "schedulefree": "schedulefree",
}
"""Names of the distributions, by the name of the module."""
RATES = {"lr": gp.log(1e-3, 1)}
MODEL, LIST, WRAPPER = "function of the model", "function that returns two optimizers", "function that wraps another"
CLOSURE, OWN, UNTUNED = "closure=True", 'schedule="constant"', "space={}"


def split(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the first matrix of a model, and all other parameters."""
    first = next(x for x in model.parameters() if x.ndim == 2)
    return [first], [x for x in model.parameters() if x is not first]


def with_groups(cls: Any) -> gp.Entry:
    """Enter a class whose parameter groups have a key of their own."""

    def make(model: nn.Module, lr: float) -> torch.optim.Optimizer:
        hidden, others = split(model)
        return cls([{"params": hidden, "lr": lr, "use_muon": True}, {"params": others, "lr": lr, "use_muon": False}])

    return gp.Entry("other", make, space=RATES)


def beside_adamw(cls: Any) -> gp.Entry:
    """Enter a class that steps matrices alone."""

    def make(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
        hidden, others = split(model)
        return [cls(hidden, lr=lr), torch.optim.AdamW(others, lr=0.1 * lr)]

    return gp.Entry("other", make, space=RATES)


def around_adamw(cls: Any) -> gp.Entry:
    """Enter a class that wraps an optimizer."""
    return gp.Entry("other", lambda params, lr: cls(torch.optim.AdamW(params, lr=lr)), space=RATES)


def sharpness_aware(cls: Any) -> gp.Entry:
    """Enter a class that makes the optimizer that it wraps, and needs a closure."""
    return gp.Entry("other", lambda params, lr: cls(params, torch.optim.SGD, lr=lr), space=RATES, closure=True)


def of_model_and_parameters(cls: Any) -> gp.Entry:
    """Enter such a class that takes the model as well as its parameters."""

    def make(model: nn.Module, lr: float) -> torch.optim.Optimizer:
        return cls(model, model.parameters(), torch.optim.SGD, lr=lr)

    return gp.Entry("other", make, space=RATES, closure=True)


ENTRIES: dict[str, tuple[str, Callable[[Any], gp.Entry]]] = {
    **dict.fromkeys(("AdaGO", "AdaMuon", "Muon", "MuonClip", "NorMuon"), (MODEL, with_groups)),
    **dict.fromkeys(("torch.optim.Muon", "SpectralSphere"), (LIST, beside_adamw)),
    **dict.fromkeys(
        ("Lookahead", "Magma", "OrthoGrad", "PCGrad", "ScheduleFreeWrapper", "TRAC"), (WRAPPER, around_adamw)
    ),
    **dict.fromkeys(("FriendlySAM", "LookSAM", "SAM"), (f"{WRAPPER}, {CLOSURE}", sharpness_aware)),
    "WSAM": (f"{WRAPPER}, {CLOSURE}", of_model_and_parameters),
    "A2Grad": (UNTUNED, lambda cls: gp.Entry("other", cls, space={})),
    "ASGD": (OWN, lambda cls: gp.Entry("other", cls, schedule="constant")),
    "AliG": (f"{UNTUNED}, {CLOSURE}", lambda cls: gp.Entry("other", cls, space={}, closure=True)),
    "BSAM": (CLOSURE, lambda cls: gp.Entry("other", cls, {"num_data": 51}, closure=True)),
}
"""How a class is entered that is refused as it is: description, and function that returns the entry."""


def load() -> gp.Data:
    """Return examples of two classes."""
    x = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    return gp.Data(x, (x.sum(1) > 0).long())


def network() -> nn.Module:
    """Return a small network."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


METRIC = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01)
TASK = gp.Task("small", network, nn.functional.cross_entropy, METRIC, 0.5, load, batch_size=16, epochs=2)


def classes(module: Any) -> dict[str, Any]:
    """Return the optimizer classes of a module, by their names."""
    found = {}
    for name, value in sorted(vars(module).items()):
        is_class = isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
        if is_class and value is not torch.optim.Optimizer and "Base" not in name and value not in found.values():
            found[name] = value
    return found


def refusal(make_entry: Callable[[], gp.Entry]) -> str | None:
    """Return the reason why an entry cannot be raced; None if it can."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            plan = make_plan(TASK, [make_entry(), "minibatch"], trials=2, seeds=6)
            mode, entry = check(plan), plan.entries[0]
            point = {"lr": entry.default_rate} if "lr" in entry.space else {}
            Trainer(plan.task, [plan.final_trial(entry, point, 0)], mode).run()
    except Exception as error:
        return str(error).partition("cannot be raced: ")[2] or str(error)
    return None


def main() -> None:
    """Enter every class, print the results and write them."""
    warnings.filterwarnings("ignore")  # of the packages
    torch.set_num_threads(1)
    entered: dict[str, list[str]] = {}
    refused: dict[str, str] = {}
    for package in PACKAGES:
        for name, cls in classes(import_module(package)).items():
            how, reason = "as it is", refusal(lambda cls=cls: gp.Entry("other", cls))
            special = ENTRIES.get(f"{package}.{name}") or ENTRIES.get(name)
            if reason is not None and special is not None:
                how, make = special
                reason = refusal(lambda cls=cls, make=make: make(cls))
            if reason is None:
                entered.setdefault(how, []).append(f"{package}.{name}")
            else:
                refused[f"{package}.{name}"] = reason
            print(f"{package}.{name}: {how if reason is None else reason}", flush=True)
    for how, names in entered.items():
        print(f"{len(names)} {how}")
    print(f"{sum(map(len, entered.values()))} race, {len(refused)} are refused")
    record = {
        **describe_run("python studies/other_optimizers.py", None, *(set(PACKAGES.values()) - {"torch"})),
        "entered": entered,
        "refused": refused,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
