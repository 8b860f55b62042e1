"""Other libraries: models and trainers that race. Each module needs its library only when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["lightning", "loggers", "optuna", "transformers"]

if TYPE_CHECKING:
    from . import lightning, loggers, optuna, transformers


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"gradprix.integrations.{name}")
    raise AttributeError(f"module 'gradprix.integrations' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
