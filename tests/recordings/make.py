"""Records what the real libraries do, for tests/test_like.py to replay, and how far each is from torch.

Run it in an environment of its own, not in the one of the tests:

    python3 -m venv /tmp/recordings
    /tmp/recordings/bin/pip install torch==2.13.0 keras==3.15.1 optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
    /tmp/recordings/bin/python tests/recordings/make.py

It writes keras.npz, optax.npz, recordings.json (the cases, versions and this command) and differences.json beside it.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import keras
import numpy as np
import optax
import papers
import torch

jax.config.update("jax_enable_x64", True)
keras.config.set_floatx("float64")

HERE = Path(__file__).parent
STEPS, SCALES, EVERY = 100, (1.0, 1e-4, 1e-6), 10
COMMAND = "python tests/recordings/make.py"
BETAS = {"betas": [0.8, 0.99]}
EPS = {"eps": 1e-6}

CASES = {
    # class: the arguments of each case, in torch's names
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
    ],
    "Adagrad": [
        {"lr": 0.1, **EPS},
        {"lr": 0.1, "initial_accumulator_value": 0.0, "eps": 1e-8},
        {"lr": 0.1, "weight_decay": 0.1},
    ],
    "RMSprop": [
        {"lr": 0.01, "alpha": 0.95, **EPS},
        {"lr": 0.01, "momentum": 0.9},
        {"lr": 0.01, "centered": True},
        {"lr": 0.01, "centered": True, "momentum": 0.5, "alpha": 0.95, **EPS},
        {"lr": 0.01, "weight_decay": 0.1},
    ],
    "Adadelta": [{"lr": 1.0, "rho": 0.8, **EPS}, {"lr": 1.0, "weight_decay": 0.1}],
    "Adam": [
        {"lr": 0.01, **BETAS, **EPS},
        {"lr": 0.01, "amsgrad": True},
        {"lr": 0.01, "amsgrad": True, **BETAS, **EPS},
        {"lr": 0.01, "weight_decay": 0.1},
    ],
    "AdamW": [{"lr": 0.01, **BETAS, **EPS}, {"lr": 0.01, "weight_decay": 0.1}, {"lr": 0.01, "amsgrad": True}],
    "Adamax": [{"lr": 0.01, **BETAS, **EPS}, {"lr": 0.01, "weight_decay": 0.1}],
    "NAdam": [{"lr": 0.01, **BETAS, **EPS}, {"lr": 0.01, "weight_decay": 0.1}],
    "RAdam": [{"lr": 0.01, **BETAS, **EPS}],
}
LACKING = {
    "keras": lambda name, given: name == "RAdam",
    "optax": lambda name, given: (
        ("weight_decay" in given and name not in ("AdamW", "Adadelta")) or (name == "AdamW" and "amsgrad" in given)
    ),
}
DEFAULT_LR = {"keras": {}, "optax": {"lr": 0.01}}

KERAS_NAMES = {"lr": "learning_rate", "alpha": "rho", "eps": "epsilon"}
OPTAX_NAMES = {"lr": "learning_rate", "alpha": "decay"}


def rates(lr, falls):
    return [lr * (0.1 if falls and t >= STEPS // 2 else 1.0) for t in range(STEPS)]


def run_torch(name, given, x, gradients, falls):
    p = torch.nn.Parameter(torch.tensor(x))
    optimizer = getattr(torch.optim, name)([p], **given)
    return run_steps(optimizer.step, p, gradients, rates(optimizer.defaults["lr"], falls), optimizer)


def run_steps(step, p, gradients, lr, optimizer):
    path = []
    for g, rate in zip(gradients, lr, strict=True):
        p.grad = torch.tensor(g)
        optimizer.param_groups[0]["lr"] = rate
        step()
        path.append(p.detach().numpy().copy())
    return np.array(path)


def run_keras(name, given, x, gradients, falls):
    named = {KERAS_NAMES.get(key, key): value for key, value in given.items()}
    if "betas" in named:
        named["beta_1"], named["beta_2"] = named.pop("betas")
    optimizer = getattr(keras.optimizers, {"NAdam": "Nadam"}.get(name, name))(**named)
    x = keras.Variable(x, dtype="float64")
    path = []
    for g, rate in zip(gradients, rates(float(optimizer.learning_rate), falls), strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([torch.tensor(g)], [x])
        path.append(x.numpy().copy())
    return np.array(path)


def run_optax(name, given, x, gradients, falls):
    named = {OPTAX_NAMES.get(key, key): value for key, value in given.items()}
    if "betas" in named:
        named["b1"], named["b2"] = named.pop("betas")
    make = getattr(optax, "amsgrad" if named.pop("amsgrad", False) else name.lower())
    lr = jax.numpy.array(rates(named.pop("learning_rate"), falls))
    optimizer = make(learning_rate=lambda count: lr[count], **named)

    @jax.jit
    def step(x, state, g):
        updates, state = optimizer.update(g, state, x)
        return optax.apply_updates(x, updates), state

    x, path = jax.numpy.array(x), []
    state = optimizer.init(x)
    for g in gradients:
        x, state = step(x, state, jax.numpy.array(g))
        path.append(np.array(x))
    return np.array(path)


def problem(size):
    """Gradients of about 1, one of them always 0, and weights to start from."""
    generator = np.random.default_rng(20150507)
    gradients = 0.3 + generator.standard_normal((STEPS, size))
    gradients[:, 0] = 0
    return gradients, generator.standard_normal(size)


def begin(given, weights):
    # From zero, so that movements a million times smaller than the weights are not lost in their rounding.
    return weights if given.get("weight_decay") else np.zeros_like(weights)


def record():
    gradients, weights = problem(12)
    arrays, cases = {"keras": {}, "optax": {}}, []
    for like, run in (("keras", run_keras), ("optax", run_optax)):
        for name, many in CASES.items():
            for given in [DEFAULT_LR[like], *many]:
                if LACKING[like](name, given):
                    continue
                key = f"{len(cases)}"
                x = begin({"weight_decay": name == "AdamW", **given}, weights)
                paths = [run(name, given, x, scale * gradients, True)[EVERY - 1 :: EVERY] for scale in SCALES]
                arrays[like][key] = np.array(paths)
                cases.append({"key": key, "class": name, "like": like, "given": given, "from_zero": not x.any()})
    for like, recorded in arrays.items():
        np.savez_compressed(HERE / f"{like}.npz", gradients=gradients, weights=weights, **recorded)
    about = {
        "command": COMMAND,
        "versions": {package: version(package) for package in ("torch", "keras", "optax", "jax", "jaxlib", "numpy")},
        "steps": STEPS,
        "scales": SCALES,
        "every": EVERY,
        "lr": "times 0.1 from step 51",
        "cases": cases,
    }
    (HERE / "recordings.json").write_text(json.dumps(about, indent=1) + "\n")


MOMENTUM = {"lr": 0.1, "momentum": 0.9}
PAIRS = [
    # class, arguments in torch's names, whether lr falls tenfold half way, the paper's algorithm and its arguments
    ("SGD", {}, False, papers.momentum, {}),
    ("SGD", MOMENTUM, False, papers.momentum, {"mu": 0.9}),
    ("SGD", MOMENTUM, True, papers.momentum, {"mu": 0.9}),
    ("SGD", {**MOMENTUM, "nesterov": True}, False, papers.nesterov, {"mu": 0.9}),
    ("SGD", {**MOMENTUM, "nesterov": True}, True, papers.nesterov, {"mu": 0.9}),
    ("SGD", {"weight_decay": 0.1}, False, None, {}),
    ("Adagrad", {}, False, papers.adagrad, {}),
    ("RMSprop", {}, False, papers.rmsprop, {"decay": 0.99}),
    ("RMSprop", {"momentum": 0.9}, True, None, {}),
    ("RMSprop", {"centered": True}, False, papers.graves, {"aleph": 0.99, "beth": 0.0, "daleth": 1e-8}),
    ("Adadelta", {}, False, papers.adadelta, {"rho": 0.9}),
    ("Adam", {}, False, papers.adam, {}),
    ("Adam", {"amsgrad": True}, False, papers.amsgrad, {}),
    ("Adam", {"weight_decay": 0.1}, False, None, {}),
    ("AdamW", {}, False, papers.adamw, {"weight_decay": 0.01}),
    ("AdamW", {}, True, papers.adamw, {"weight_decay": 0.01}),
    ("Adamax", {}, False, papers.adamax, {}),
    ("NAdam", {}, False, papers.nadam, {}),
    ("RAdam", {}, False, papers.radam, {}),
]


def torch_defaults(name, given):
    """torch's hyperparameters, in its names, as far as the other library takes them."""
    defaults = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))], **given).defaults
    taken = ("lr", "betas", "eps", "alpha", "rho", "initial_accumulator_value", "momentum", *given)
    taken += ("weight_decay",) * (name == "AdamW")
    values = {key: value for key, value in defaults.items() if key in taken}
    if not values.get("momentum", True):
        del values["momentum"]  # an integer in torch, a number in Keras and None in Optax, all of them off
    return values


def differences():
    gradients, weights = problem(200)
    rows = []
    for name, given, falls, paper, numbers in PAIRS:
        x = begin({"weight_decay": name == "AdamW", **given}, weights)
        lr = torch_defaults(name, given)["lr"]
        forms = {}
        for like, run in (("keras", run_keras), ("optax", run_optax)):
            if not LACKING[like](name, given):
                forms[like, "same hyperparameters"] = run, torch_defaults(name, given)
                forms[like, "its defaults at torch's lr"] = run, {**given, "lr": lr}
                if like == "keras" and "lr" not in given:
                    forms[like, "its defaults"] = run, given
        if paper is not None:
            forms["paper", "same hyperparameters"] = paper, numbers
            own = {key: value for key, value in numbers.items() if key in ("mu", "weight_decay")}
            forms["paper", "its defaults at torch's lr"] = paper, own
        for (like, which), (run, arguments) in forms.items():
            found = []
            for scale in SCALES:
                theirs = run_torch(name, given, x, scale * gradients, falls)[-1] - x
                if like == "paper":
                    path = run(x, scale * gradients, rates(lr, falls), **arguments)
                else:
                    path = run(name, arguments, x, scale * gradients, falls)
                found.append(float(np.linalg.norm(path[-1] - x - theirs) / np.linalg.norm(theirs)))
            row = {"class": name, "given": given, "lr falls": falls, "like": like, "with": which}
            rows.append({**row, "difference": [float(f"{value:.2g}") for value in found]})
    about = {
        "what": "norm(movement - torch's movement) / norm(torch's movement) over 100 steps, 200 parameters, float64, "
        "identical gradients, at the gradient scales given",
        "command": COMMAND,
        "versions": {package: version(package) for package in ("torch", "keras", "optax", "jax")},
        "scales": SCALES,
    }
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    text = json.dumps(about, indent=1)[:-2] + f',\n "rows": [\n{lines}\n ]\n}}\n'
    (HERE / "differences.json").write_text(text)


if __name__ == "__main__":
    record()
    differences()
