"""Artifacts of a trained model that a task returns from `after`, as JSON: numbers, images and texts."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor


def encode_artifacts(artifacts: Mapping[str, Any]) -> dict[str, Any]:
    """Encode artifacts as JSON: numbers, images as base64 PNG, and generated texts by their source.

    Args:
        artifacts: what a task's `after` returned.

    Raises:
        TypeError: for a value of another type.
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
