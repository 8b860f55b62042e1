"""Import of libraries that gradprix can use but does not install."""

from importlib import import_module
from typing import Any


def require(module: str, extra: str) -> Any:
    """Import a module of an optional library.

    Args:
        module: name of the module, such as `"lightning.pytorch"`.
        extra: extra of gradprix that installs the library.

    Returns:
        The module.

    Raises:
        ImportError: if the library is not installed; the message has the command that installs it.
    """
    library = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise ImportError(f"{library} is not installed: pip install 'gradprix[{extra}]'.", name=library) from error
