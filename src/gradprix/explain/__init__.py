"""Explanations of optimizers: terms, equations, landscapes."""

from ._why import check_explainable, why
from .descent import descend, learning_rate_grid, tuned
from .diagnosis import Reason
from .gradient_noise import draw_noise
from .landscape import Landscape
from .landscapes import LANDSCAPES
from .loss_plane import (
    SLICES,
    Plane,
    digits_path,
    digits_plane,
    interpolate_plane,
    loss_planes,
    plane_through,
    principal_plane,
    training_path,
)
from .preconditioner import classify_state, gain, settles_below
from .resolve import ExplainedOptimizer, resolve_optimizer
from .step_equations import Equation, equations, number
from .step_response import StepResponse, measure_step_response
from .tensor_history import TensorHistory
from .tracing import Trace, step, trace

# Former names.
Character, Layer, Subject = StepResponse, TensorHistory, ExplainedOptimizer
character, explainable, kinds, subject = measure_step_response, check_explainable, classify_state, resolve_optimizer
nearest, path, sampled, through = principal_plane, training_path, interpolate_plane, plane_through

__all__ = [
    "LANDSCAPES",
    "SLICES",
    "Equation",
    "ExplainedOptimizer",
    "Landscape",
    "Plane",
    "Reason",
    "StepResponse",
    "TensorHistory",
    "Trace",
    "check_explainable",
    "classify_state",
    "descend",
    "digits_path",
    "digits_plane",
    "draw_noise",
    "equations",
    "gain",
    "interpolate_plane",
    "learning_rate_grid",
    "loss_planes",
    "measure_step_response",
    "number",
    "plane_through",
    "principal_plane",
    "resolve_optimizer",
    "settles_below",
    "step",
    "trace",
    "training_path",
    "tuned",
    "why",
]
