"""Validation of a task before the race, with a forward and a backward pass of one batch.

Errors name the problem and its remedy.
"""

import math
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from gradprix.tasks import Data, Task
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.model_with_loss import own_model
from gradprix.tasks.parameter_groups import parameter_groups
from gradprix.tasks.rng import init_model
from gradprix.tasks.task import called_with
from gradprix.tasks.tensors import dense
from gradprix.training.artifacts import encode_artifacts
from gradprix.training.faults import describe_error
from gradprix.training.gradient_mode import needs_gradients
from gradprix.training.outputs import Output, combine
from gradprix.training.ragged_outputs import RaggedTargets, combine_ragged, combine_targets

from .missing_values import Missing, missing
from .untrained import untrained

METRIC_EXAMPLES = 256
"""Number of validation examples with which the metric is tested."""
MAX_COPIED = 0.5
"""Fraction of official test examples that may be training examples as well. Data sets with few distinct examples have
some by chance."""


def validate_task(task: Task) -> None:
    """Validate the examples, model, loss and metric of a task.

    Raises:
        TaskError: if there is a problem. The message describes the first one and its remedy.
    """
    data = task.loaded
    split = _attempt(task, "its examples cannot be split", lambda: data.split(0))
    if copied := _copied_fraction(data):
        raise task.refused(
            f"{copied:.0%} of its test examples are also training examples. Remove them from one of the two sets."
        )
    model = _validated_model(task)
    lacking = _attempt(task, "its examples cannot be read", lambda: missing(data))
    few = _include_missing(lacking, split.train[: task.micro_batch(task.batch_size)])[None]
    batch = _attempt(task, "its examples cannot be read", lambda: data.take(few))
    inputs, targets = tree_map(itemgetter(0), batch)
    cause = f": {lacking.where}. Remove such examples or impute the values." if lacking else ""
    _validate_training(task, model, inputs, targets, cause)
    # Reading examples of a lazy dataset may take long, so fewer are used.
    many = min(METRIC_EXAMPLES, task.batch_size) if isinstance(data, Stream) else METRIC_EXAMPLES
    _validate_metric(task, model, _include_missing(lacking, split.valid[:many]), cause)


def _attempt(task: Task, what: str, function: Callable[[], Any]) -> Any:
    """Call a function of the task. Its errors are raised as `TaskError`, with a message that starts with `what`."""
    try:
        return function()
    except Exception as error:
        raise task.refused(f"{what}: {describe_error(error)}.") from error


def _validated_model(task: Task) -> nn.Module:
    """Return the model for seed 0, after checking that it is valid.

    Every call of the task's function must create a new model, the model must have trainable parameters, and its initial
    weights must depend on the seed unless the task is marked as pretrained.
    """
    model = task.network(0)
    if own_model(model) is init_model(task.model, 0):
        raise task.refused("model() returns the same model at each call. Create a new one in it.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise task.refused("the model has no trainable parameter.")
    if not task.pretrained and _same(own_model(model), init_model(task.model, 1)):
        raise task.refused(
            "its model has the same initial weights for every seed. Draw them from torch's generator, without a "
            "manual_seed in model(), or set Task(..., pretrained=True) if this is intended."
        )
    _attempt(task, "its groups fail", lambda: parameter_groups(task.groups, model))
    return model


def _validate_training(task: Task, model: nn.Module, inputs: Any, targets: Any, cause: str) -> None:
    """Validate the loss and the gradients of one batch.

    Args:
        task: task to validate.
        model: model of the task.
        inputs: inputs of the batch.
        targets: targets of the batch.
        cause: explanation of non-finite results by non-finite values in the examples; empty if the examples have none.
    """
    refuse = task.refused
    args, kwargs = called_with(inputs)
    given = f"inputs {_shapes(inputs)}, targets {_shapes(targets)}"
    model.train()
    output = _attempt(task, f"its model fails on a batch ({given})", lambda: model(*args, **kwargs))
    what = f"its loss fails (outputs {_shapes(output)}, {given})"
    loss = _attempt(task, what, lambda: task.loss_of(model)(output, targets))
    if not isinstance(loss, Tensor):
        raise refuse(f"its loss is a {type(loss).__name__}. Return a tensor, without .item() or float().")
    if loss.dim() != 0:
        raise refuse(f"the loss of a batch has shape {tuple(loss.shape)}. Reduce it to a scalar, such as its mean.")
    cause = cause or ". Check the model and the loss."
    if not loss.isfinite():
        raise refuse(f"the loss of a batch at initialization is {loss.item()}{cause}")
    if task.after is not None:
        after = task.after
        with torch.set_grad_enabled(needs_gradients(task)):
            _attempt(task, "its after fails", lambda: encode_artifacts(after(own_model(model.eval()), inputs, targets)))
        model.train()
    if not loss.requires_grad:
        raise refuse("its loss does not depend on the weights. Remove .detach(), .item() or no_grad() between them.")

    def run() -> tuple[Any, Any]:
        # Inputs are copied, because a model may call requires_grad_() on them to differentiate with respect to them.
        args, kwargs = called_with(tree_map_only(Tensor, lambda x: x.detach().clone(), inputs))
        output = model(*args, **kwargs)
        return output, task.loss_of(model)(output, targets)

    if wrong := untrained(model, task.loss_of(model), loss, run):
        raise refuse(wrong)
    _attempt(task, "its loss has no gradient", loss.backward)
    gradients = [dense(p.grad) for p in model.parameters() if p.grad is not None]
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        raise refuse(f"the gradient of a batch at initialization is not finite{cause}")
    if not any(bool(gradient.any()) for gradient in gradients):
        raise refuse(
            "the gradient of every weight is zero. Remove .detach(), argmax or rounding between them and the loss."
        )


def _validate_metric(task: Task, model: nn.Module, examples: Tensor, cause: str) -> None:
    """Validate the metric on some examples.

    The model is evaluated on two batches of different sizes. The metric gets their concatenated outputs, as in a race.

    Args:
        task: task to validate.
        model: model of the task.
        examples: indices of the examples.
        cause: explanation of a non-finite metric by non-finite values in the examples; empty if they have none.
    """
    model.eval()
    data, middle = task.loaded, len(examples) // 2 + 1
    batches = [part for part in (examples[:middle], examples[middle:]) if len(part)]
    outputs, targets_of_batches = [], []
    for part in batches:
        inputs, targets = tree_map(itemgetter(0), data.take(part[None]))
        targets_of_batches.append(targets)
        args, kwargs = called_with(inputs)
        with torch.set_grad_enabled(needs_gradients(task)):
            what = f"its model fails in eval() (inputs {_shapes(inputs)})"
            outputs.append(Output.from_value(_attempt(task, what, partial(model, *args, **kwargs))).usable())
    sizes, fails = [len(part) for part in batches], "its metric fails"
    if data.is_collated:
        expected = RaggedTargets([combine_targets(targets_of_batches, sizes)], sizes)
        ragged = combine_ragged(outputs, sizes)
        score = _attempt(task, fails, lambda: expected.score(task.metric.score, 0, ragged))
    else:
        what = "its outputs of two batches cannot be concatenated"
        joined = _attempt(task, what, lambda: combine(outputs, sizes).whole)
        targets = tree_map(itemgetter(0), data.take(examples[None]))[1]
        score = _attempt(task, fails, lambda: float(task.metric.score(joined, targets)))
    if not math.isfinite(score):
        raise task.refused(f"its metric is {score}, not a finite number{cause or '.'}")


def _include_missing(lacking: Missing | None, index: Tensor) -> Tensor:
    """Replace up to half of the examples, given by their indices, by examples with missing values."""
    if lacking is None:
        return index
    some = lacking.rows[: max(1, len(index) // 2)]
    return torch.cat([some, index[~torch.isin(index, some)]])[: len(index)]


def _copied_fraction(data: Data) -> float:
    """Return the fraction of official test examples that are also training examples; 0 if it is below `MAX_COPIED`."""
    if data.test is None or isinstance(data, Stream):
        return 0.0
    rest = data.split(0)
    lines: list[list[bytes]] = []
    for part in (torch.cat([rest.train, rest.valid]), rest.test):
        leaves = tree_leaves(data.take(part))
        lines.append([b"".join(leaf[i].numpy().tobytes() for leaf in leaves) for i in range(len(part))])
    known = set(lines[0])
    share = sum(line in known for line in lines[1]) / len(lines[1])
    return share if share >= MAX_COPIED else 0.0


def _same(a: nn.Module, b: nn.Module) -> bool:
    """Return True if all parameters of two models are equal."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def _shapes(value: Any) -> str:
    """Format the data types and shapes of all tensors in a nested value, or its type if it has none."""
    tensors = (x for x in tree_leaves(value) if isinstance(x, Tensor))
    shapes = (f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" for x in tensors)
    return " and ".join(shapes) or type(value).__name__
