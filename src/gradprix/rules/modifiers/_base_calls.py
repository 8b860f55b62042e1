"""Functions that stand for the base in a modifier; they are replaced by its tree, and cannot be called."""

from typing import NoReturn

from gradprix.rules.ops import Value


def step(x: Value, g: Value) -> Value:
    """Return the parameter after a complete step of the base; for use in a modifier.

    The line of the modifier is `x = step(x, g)`.

    Args:
        x: the parameter.
        g: the gradient. If the modifier has changed it, the base adds weight decay to the changed gradient.
    """
    _refuse("step")


def direction(x: Value, g: Value) -> Value:
    """Return the step of the base per learning rate; for use in a modifier.

    The line of the modifier is `u = direction(x, g)`, with any name for `u`. A step of the base is
    `x = decayed(x) - h.lr * u`. In a modifier that itself uses `h.weight_decay`, the direction is that of the base
    without weight decay.

    Args:
        x: the parameter.
        g: the gradient.
    """
    _refuse("direction")


def decayed(x: Value) -> Value:
    """Return the parameter after the decoupled weight decay of the base; for use in a modifier, after `direction`.

    Args:
        x: the parameter, which is returned unchanged if the base has no decoupled weight decay.
    """
    _refuse("decayed")


def _refuse(name: str) -> NoReturn:
    raise RuntimeError(f"{name} stands for the base in a modifier, and cannot be called.")
