"""Loggers: they write the training runs of a race to an experiment tracker while the race runs.

gp.race("digits", log="tensorboard")
gp.race("digits", log=["csv", gp.integrations.loggers.MLflow(experiment="optimizers")])
"""

from .csv_files import CSV
from .dispatch import Loggers, make_loggers
from .logger import Logger
from .mlflow import MLflow
from .tensorboard import TensorBoard
from .training_run import TrainingRun
from .wandb import WandB

__all__ = ["CSV", "Logger", "Loggers", "MLflow", "TensorBoard", "TrainingRun", "WandB", "make_loggers"]
