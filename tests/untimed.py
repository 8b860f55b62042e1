"""Executor for tests that count training runs."""

from collections.abc import Callable
from typing import Any

from gradprix.race import Local
from gradprix.race.efficiency import seconds_of_steps


class Untimed(Local):
    """Executor that times no steps, so that no runs in equal time depend on the load of the machine."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        if function is seconds_of_steps:
            raise RuntimeError("steps are not timed here")
        return super().call(function, *args)
