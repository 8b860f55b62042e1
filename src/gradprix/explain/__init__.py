"""Why an optimizer did what it did: terms, equations, landscapes."""

from ._descend import descend, tuned
from ._equations import Equation, equations, number
from ._landscape import LANDSCAPES, Landscape
from ._trace import Layer, Trace, named, step, trace

__all__ = [
    "LANDSCAPES",
    "Equation",
    "Landscape",
    "Layer",
    "Trace",
    "descend",
    "equations",
    "named",
    "number",
    "step",
    "trace",
    "tuned",
]
