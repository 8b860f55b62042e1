"""Artifacts that a task's `after` computes from a trained model: numbers, images and texts, encoded as JSON."""

import base64
import io
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_map

from gradprix.tasks.model_with_loss import own_model
from gradprix.tasks.rng import RngState, init_model, stream

from .evaluation import at_evaluation_point
from .faults import task_error
from .gradient_mode import needs_gradients
from .model_stack import ModelStack


def compute_artifacts(stack: ModelStack, row: int, numbers: Mapping[str, float]) -> dict[str, Any] | None:
    """Call the task's `after` with a trained model and the test examples, and encode the result.

    Args:
        stack: the stack of trained models.
        row: index of the model in `stack.trials`.
        numbers: further numbers to include, by name.

    Returns:
        The artifacts as returned by `encode_artifacts`, or None if there are none.

    Raises:
        TaskError: if the task's `after` fails or returns something else than artifacts.
    """
    task, trial, place = stack.task, stack.trials[row], int((stack.rows == row).nonzero()[0])
    if task.after is None:
        return encode_artifacts(numbers) if numbers else None
    model = init_model(task.build, trial.seed)
    with torch.no_grad(), at_evaluation_point(stack):
        for named_tensors in (model.named_parameters, model.named_buffers):
            for name, x in named_tensors():
                if x.layout is torch.strided:
                    x.copy_((stack.parameters | stack.buffers)[name][place])
    rng_states = [RngState(stream(trial.seed, "examples after"))]
    examples = tree_map(itemgetter(0), task.loaded.take(task.loaded.split(trial.seed).test[None], rng_states))
    try:
        with RngState(stream(trial.seed, "after")), torch.set_grad_enabled(needs_gradients(task)):
            return encode_artifacts({**numbers, **task.after(own_model(model.eval()), *examples)})
    except Exception as error:
        raise task_error(task, "its after", [trial], error) from error


def encode_artifacts(artifacts: Mapping[str, Any]) -> dict[str, Any]:
    """Encode artifacts as JSON.

    Args:
        artifacts: the result of a task's `after`: numbers, images, or mappings from a source text to a generated text.

    Returns:
        A dictionary with the keys `"numbers"` (floats), `"pictures"` (PNG files in base64) and `"texts"`.

    Raises:
        TypeError: if an artifact is neither a number, an image nor a mapping of texts.
    """
    numbers: dict[str, float] = {}
    pictures: dict[str, str] = {}
    texts: dict[str, dict[str, str]] = {}
    for name, value in artifacts.items():
        array = value.numpy(force=True) if isinstance(value, Tensor) else value
        if isinstance(value, Mapping):
            texts[name] = {str(source): str(made) for source, made in value.items()}
        elif isinstance(array, np.ndarray) and array.ndim in (2, 3):
            pictures[name] = _png(array)
        else:
            try:
                numbers[name] = float(array)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"after: {name} is a {type(value).__name__}: give a number, a picture [height, width] or "
                    "[height, width, 3], or texts {what it was made from: what was made}"
                ) from error
    return {"numbers": numbers, "pictures": pictures, "texts": texts}


def _png(array: np.ndarray[Any, Any]) -> str:
    if array.dtype != np.uint8:
        array = (255 * array.clip(0, 1)).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
