"""Global variables that the body of a class uses, if a function defines the class.

Functions of a script or a notebook are sent to worker processes with the global variables that they use. cloudpickle
finds these by the instructions that read global variables. It looks into the bodies of classes that a function defines,
but these read names by other instructions, so that a class whose annotations, decorators or attributes use a variable
that nothing else uses raises a NameError in the worker. cloudpickle 3.1 has no option for this.
"""

import contextlib
import dis
import importlib
from typing import Any

CLASS_BODY_OPS = {"LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
"""Names of the instructions by which class bodies read names; the second exists since Python 3.12."""
PICKLERS = ("cloudpickle.cloudpickle", "joblib.externals.cloudpickle.cloudpickle")
"""Modules of cloudpickle: the package, and the copy in those versions of joblib that have one."""


def include_class_bodies() -> None:
    """Let cloudpickle send the global variables that class bodies use."""
    ops = {dis.opmap[name] for name in CLASS_BODY_OPS & dis.opmap.keys()}
    for name in PICKLERS:
        with contextlib.suppress(ImportError):
            module: Any = importlib.import_module(name)
            module.GLOBAL_OPS = tuple(sorted(ops.union(module.GLOBAL_OPS)))
