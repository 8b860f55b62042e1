"""Why an optimizer did what it did: terms, equations, landscapes."""

from ._character import Character, character
from ._descend import descend, tuned
from ._equations import Equation, equations, number
from ._landscape import LANDSCAPES, Landscape
from ._names import Subject, subject
from ._reasons import Reason
from ._trace import Layer, Trace, step, trace
from ._why import settles_below, why

__all__ = [
    "LANDSCAPES",
    "Character",
    "Equation",
    "Landscape",
    "Layer",
    "Reason",
    "Subject",
    "Trace",
    "character",
    "descend",
    "equations",
    "number",
    "settles_below",
    "step",
    "subject",
    "trace",
    "tuned",
    "why",
]
