"""Explanations of optimizers: terms, equations, landscapes."""

from ._why import explainable, why
from .descent import descend, tuned
from .diagnosis import Reason
from .landscapes import LANDSCAPES, Landscape
from .loss_plane import SLICES, Plane, digits_path, digits_plane, nearest, path, sampled, through
from .preconditioner import gain, kinds, settles_below
from .resolve import Subject, subject
from .step_equations import Equation, equations, number
from .step_response import Character, character
from .tensor_history import Layer
from .tracing import Trace, step, trace

__all__ = [
    "LANDSCAPES",
    "SLICES",
    "Character",
    "Equation",
    "Landscape",
    "Layer",
    "Plane",
    "Reason",
    "Subject",
    "Trace",
    "character",
    "descend",
    "digits_path",
    "digits_plane",
    "equations",
    "explainable",
    "gain",
    "kinds",
    "nearest",
    "number",
    "path",
    "sampled",
    "settles_below",
    "step",
    "subject",
    "through",
    "trace",
    "tuned",
    "why",
]
