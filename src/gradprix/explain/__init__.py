"""Why an optimizer did what it did: terms, equations, landscapes."""

from ._character import Character, character
from ._descend import descend, tuned
from ._equations import Equation, equations, number
from ._gain import gain, kinds, settles_below
from ._landscape import LANDSCAPES, Landscape
from ._layer import Layer
from ._names import Subject, subject
from ._reasons import Reason
from ._slice import SLICES, Plane, digits_path, digits_plane, nearest, path, sampled, through
from ._trace import Trace, step, trace
from ._why import explainable, why

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
