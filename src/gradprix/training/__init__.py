"""Training of many models as one.

`Trainer` trains the models of several trials on a task. `ModelStack` holds these models with their examples and
optimizers, and can be stepped and inspected directly. `choose_layout` measures how many models to train together.
"""

from .autotune import MemoryTooSmallError, StackLayout, choose_layout, seconds_of_one
from .callbacks import Callback, Progress
from .evaluation import compute_metrics, compute_outputs, evaluate
from .execution_mode import STACKED, ExecutionMode
from .first_step import FirstStep, known_first_step, measure_first_step
from .model_stack import ModelStack
from .optimizers import StackedOptimizers
from .runtime_settings import runtime_settings
from .stack_sizes import MIN_STACK, capacities
from .stacking_errors import explain as explain_stacking_error
from .torch_optimizer_adapter import TorchOptimizerAdapter
from .trainer import Trainer, train_stack
from .trial import Outcome, Trial
from .update_cost import UpdateCost, is_costly, measure_updates, without_update

__all__ = [
    "MIN_STACK",
    "STACKED",
    "Callback",
    "ExecutionMode",
    "FirstStep",
    "MemoryTooSmallError",
    "ModelStack",
    "Outcome",
    "Progress",
    "StackLayout",
    "StackedOptimizers",
    "TorchOptimizerAdapter",
    "Trainer",
    "Trial",
    "UpdateCost",
    "capacities",
    "choose_layout",
    "compute_metrics",
    "compute_outputs",
    "evaluate",
    "explain_stacking_error",
    "is_costly",
    "known_first_step",
    "measure_first_step",
    "measure_updates",
    "runtime_settings",
    "seconds_of_one",
    "train_stack",
    "without_update",
]
