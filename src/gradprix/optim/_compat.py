"""Presets for compatibility with other libraries and with the papers: defaults, and options for differing arithmetic.

The presets of Keras 3.15 and Optax 0.2.8 are tested against recorded results of these libraries, the presets of the
papers against transcriptions of their algorithms (`tests/recordings`, `tests/test_like.py`).
"""

import difflib
from collections.abc import Mapping
from typing import Any

from gradprix.rules import Rule

LIBRARIES = {"torch": "PyTorch", "keras": "Keras", "optax": "Optax", "paper": "The paper", "author": "The author"}
OTHER_NAMES = {"pytorch": "torch", "tensorflow": "keras", "tf": "keras", "tf.keras": "keras", "jax": "optax"}

REQUIRED = "required"
"""Placeholder value of an argument that has no default."""
SAME_AS_LR = "lr"
"""Placeholder value of an argument whose default is the initial learning rate."""
TINY = 1e-30
"""Epsilon for algorithms without an epsilon: 0/0 of unused weights becomes 0, and no other quotient changes. A gradient
whose square underflows (below 1e-22 in float32) leads to a huge step; in the original algorithm to an infinite step."""
CONSTANT = 1e6
"""Value of momentum_decay for which NAdam's 0.96^(t ψ) is 0 from the first step, so that μ = β₁."""

BETAS = {"betas": (0.9, 0.999)}
KERAS = {"weight_decay": 0.0, "decoupled_weight_decay": True}  # weight decay is decoupled in all classes of Keras
KERAS_ADAM = {"lr": 1e-3, **BETAS, "eps": 1e-7, "eps_before_correction": True}
OPTAX_ADAM = {"lr": REQUIRED, **BETAS, "eps": 1e-8}

Preset = Mapping[str, Any]
LIKE: dict[str, dict[str, Preset | str]] = {
    # A key with an option, such as "adam amsgrad", applies if the option is on: some papers and functions define only
    # this variant.
    "sgd": {
        "keras": {"lr": 1e-2, "momentum": 0.0, "lr_inside_momentum": True, **KERAS},
        "optax": {"lr": REQUIRED, "momentum": 0.0},
        "paper": {"lr": REQUIRED, "momentum": 0.0, "lr_inside_momentum": True},
    },
    "adagrad": {
        "keras": {"lr": 1e-3, "initial_accumulator_value": 0.1, "eps": 1e-7, "eps_inside_sqrt": True, **KERAS},
        "optax": {"lr": REQUIRED, "initial_accumulator_value": 0.1, "eps": 1e-7, "eps_inside_sqrt": True},
        "paper": {"lr": REQUIRED, "initial_accumulator_value": 0.0, "eps": TINY},
    },
    "rmsprop": {
        "keras": {"lr": 1e-3, "alpha": 0.9, "eps": 1e-7, "eps_inside_sqrt": True, "lr_inside_momentum": True, **KERAS},
        "optax": {"lr": REQUIRED, "alpha": 0.9, "eps": 1e-8, "eps_inside_sqrt": True, "lr_inside_momentum": True},
        "paper": {"lr": REQUIRED, "alpha": 0.9, "eps": TINY},
    },
    "rmsprop centered": {
        "paper": {  # Graves 2013, eqs. 38-41 and the numbers below them
            "lr": 1e-4,
            "alpha": 0.95,
            "momentum": 0.9,
            "eps": 1e-4,
            "eps_inside_sqrt": True,
            "lr_inside_momentum": True,
        },
    },
    "adadelta": {
        "keras": {"lr": 1e-3, "rho": 0.95, "eps": 1e-7, **KERAS},
        "optax": {"lr": REQUIRED, "rho": 0.9, "eps": 1e-6},
        "paper": {"lr": 1.0, "rho": 0.95, "eps": 1e-6},
    },
    "adam": {
        "keras": {**KERAS_ADAM, **KERAS},
        "optax": OPTAX_ADAM,
        "paper": {"lr": 1e-3, **BETAS, "eps": 1e-8},
    },
    "adam amsgrad": {
        "optax": {**OPTAX_ADAM, "correct_before_max": True},
        "paper": {"lr": REQUIRED, **BETAS, "eps": TINY, "uncorrected": True},  # the AMSGrad paper keeps Adam's betas
    },
    "adamw": {
        "keras": {**KERAS_ADAM, "weight_decay": 4e-3},
        "optax": {**OPTAX_ADAM, "weight_decay": 1e-4},
        # The paper multiplies weight decay by the schedule only, that is by lr / (initial lr), and not by lr.
        "paper": {"lr": 1e-3, **BETAS, "eps": 1e-8, "weight_decay": REQUIRED, "full_lr": SAME_AS_LR},
    },
    "adamw amsgrad": {
        "optax": "optax.adamw has no amsgrad. Leave out like, or use Adam(..., amsgrad=True, like='optax').",
        "paper": "no paper has this pair. Leave out like, or use Adam(..., amsgrad=True, like='paper').",
    },
    "adamax": {
        "keras": {"lr": 1e-3, **BETAS, "eps": 1e-7, "eps_after_max": True, **KERAS},
        "optax": {"lr": REQUIRED, **BETAS, "eps": 1e-8},
        "paper": {"lr": 2e-3, **BETAS, "eps": TINY},
    },
    "nadam": {
        "keras": {"lr": 1e-3, **BETAS, "eps": 1e-7, "momentum_decay": 1.0, **KERAS},
        "optax": {"lr": REQUIRED, **BETAS, "eps": 1e-8, "momentum_decay": CONSTANT},
        "paper": {
            "lr": REQUIRED,
            "betas": REQUIRED,
            "eps": 1e-8,
            "momentum_decay": 4e-3,
            "scheduled_mean": True,
            "decay_after_correction": True,
        },
    },
    "radam": {
        "keras": "Keras has no RAdam. Leave out like for torch's form, or choose like='optax' or like='paper'.",
        "optax": {"lr": REQUIRED, **BETAS, "eps": 1e-8, "eps_after_correction": True},
        "paper": {"lr": REQUIRED, **BETAS, "eps": TINY, "rectify_above_four": True},
    },
    "muon": {
        "author": {
            "lr": 2e-2,
            "weight_decay": 0.0,
            "adamw_lr": 3e-4,
            "betas": (0.9, 0.95),
            "adamw_eps": 1e-10,
            "adjust_lr_fn": "original",
        },
    },
}

UNDECAYED = ("sgd", "adagrad", "rmsprop", "adam", "adamax", "nadam", "radam")
"""Rules whose function in Optax has no weight decay."""


def preset(rule: Rule, like: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults and options that reproduce an optimizer of another library or of a paper.

    Args:
        rule: rule of the class.
        like: `"torch"`, `"keras"`, `"optax"`, `"paper"`, or `"author"` for an optimizer that has no paper.
        given: explicit arguments, which take precedence.

    Returns:
        Values of the arguments that are not in `given`, by name; empty for torch.

    Raises:
        ValueError: if the library is unknown, or lacks the class or an argument.
        TypeError: if the library has no default for a missing argument.
    """
    if like not in LIBRARIES:
        raise ValueError(f"like={like!r}: {_suggest(like)}")
    if like == "torch" and rule.name in LIKE:
        return {}
    switched = [f"{rule.name} {option}" for option in rule.options if given.get(option)]
    entry = next((LIKE[name][like] for name in (*switched, rule.name) if like in LIKE.get(name, {})), None)
    if entry is None:
        raise ValueError(f"like={like!r}: no form of {rule.name} is known under that name. Leave out like.")
    if isinstance(entry, str):
        raise ValueError(f"like={like!r}: {entry}")
    if like == "optax" and rule.name in UNDECAYED and given.get("weight_decay"):
        raise ValueError(_explain_weight_decay(rule.name))
    chosen = {name: value for name, value in entry.items() if name not in given}
    missing = [name for name, value in chosen.items() if value == REQUIRED]
    if missing:
        raise TypeError(
            f"like={like!r}: {LIBRARIES[like]} gives {rule.name} no default for {' and '.join(missing)}. "
            f"Give {'it' if len(missing) == 1 else 'them'}: {', '.join(f'{name}=...' for name in missing)}"
        )
    lr = given.get("lr", entry["lr"])
    return {name: float(lr) if value == SAME_AS_LR else value for name, value in chosen.items()}


def _suggest(like: str) -> str:
    """Return a suggestion for an unknown value of `like`."""
    known = [*LIBRARIES, *OTHER_NAMES]
    matches = difflib.get_close_matches(str(like).lower(), known, n=1)
    if matches:
        return f"it is not known here. Did you mean {OTHER_NAMES.get(matches[0], matches[0])!r}?"
    return f"it must be one of {', '.join(map(repr, LIBRARIES))}."


def _explain_weight_decay(name: str) -> str:
    """Return the error message for `weight_decay` with a rule whose function in Optax has no weight decay."""
    decayed = {"adam": "adamw", "nadam": "nadamw", "adamax": "adamaxw"}.get(name)
    use = "AdamW(..., like='optax')" if name == "adam" else "decoupled_weight_decay=True and Optax's other options"
    direct = f"optax.{decayed} shrinks the weights themselves: use {use}. " if decayed else ""
    return (
        f"like='optax': optax.{name} takes no weight_decay. {direct}"
        "optax.chain(optax.add_decayed_weights(...), ...) adds the decay to the gradient, as torch does: "
        "leave out like and give the options by name."
    )
