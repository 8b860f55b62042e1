"""Explanations for third-party optimizers that fail in a race."""

from gradprix.tasks.task import first_line
from gradprix.tasks.user_code import users_line

MATRICES = (
    "it steps matrices alone, and the model has other parameters as well. Give a function(model, lr) that returns a "
    "list of two optimizers: this one for some of the matrices, and another, such as AdamW, for all other parameters"
)
GRAPH = (
    "it differentiates the gradients, which takes loss.backward(create_graph=True). A race of a task does not do that; "
    "a training loop of your own can"
)
MODE = (
    "it trains at another point than it evaluates at, and was not in train mode. In a training loop call "
    "optimizer.train() before its steps and optimizer.eval() before an evaluation, where hasattr(optimizer, 'eval')"
)
MODEL = (
    "it asks for the model itself, and a race gives it a list of parameters. Give a function that gets the model: "
    "gp.Entry(..., lambda model, lr: Optimizer(model, lr=lr))"
)
GROUPS = (
    "it asks for parameter groups with keys of its own, and a race gives it a list of parameters. Give a "
    "function(model, lr) that makes the groups and the optimizer"
)
CLOSURE = (
    "its step needs a closure or other arguments, and a race calls step(). Give gp.Entry(..., closure=True) for a "
    "closure that computes the loss and the gradients again, or a subclass whose step does without"
)
BACKWARD = (
    "its step() is not implemented, as in optimizers that step within the backward pass. A race calls step(); "
    "a training loop of your own can do without"
)
CAUSES = (
    ("does not have a grad_fn", GRAPH),
    ("create_graph", GRAPH),
    ("not in train mode", MODE),
    ("2D parameters", MATRICES),
    ("2-D parameters", MATRICES),
    ("2D tensors", MATRICES),
    ("has no attribute 'named_parameters'", MODEL),
    ("has no attribute 'parameters'", MODEL),
    ("has no attribute 'modules'", MODEL),
    ("Tensor.__contains__", GROUPS),
    ("only integer tensors of a single element can be converted to an index", GROUPS),
    ("step() missing", CLOSURE),
    ("closure", CLOSURE),
)
"""Pairs of a substring of an exception's message and an explanation with cause and remedy."""


def explain_optimizer_error(error: BaseException) -> str | None:
    """Explain an exception that a third-party optimizer raised.

    Returns:
        Cause, remedy and message of the exception; None if the cause is unknown.
    """
    if isinstance(error, NotImplementedError):
        return BACKWARD
    explanation = next((cause for words, cause in CAUSES if words in str(error)), None)
    return None if explanation is None else f"{explanation} ({type(error).__name__}: {first_line(error)})"


def describe_code_error(error: BaseException) -> str:
    """Return type and message of an exception, and in parentheses the line of the user's code that raised it.

    Example:
        >>> describe_code_error(ValueError("lr is negative"))
        'ValueError: lr is negative'
    """
    line = users_line(error)
    return f"{type(error).__name__}: {first_line(error)}{f' ({line})' if line else ''}"
