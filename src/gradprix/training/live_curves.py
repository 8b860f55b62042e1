"""Learning curves of a stack while it trains, in a file that other processes read."""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradprix.utils.files import write_atomically

from .callbacks import Callback
from .trial import Trial

if TYPE_CHECKING:
    from .trainer import Trainer

INTERVAL = 1.0
"""Minimum number of seconds between two writes."""


class LiveCurves(Callback):
    """Writes the learning curves of all trials of a stack to a file, at the end of epochs, at most once a second.

    The file is a list with the `key`, the `identity` and the `curve` of each trial; see `Trial` and `Outcome`.

    Args:
        file: JSON file. If it cannot be written, training continues without it.
        trials: trials of the stack, in the order in which the trainer got them.
    """

    def __init__(self, file: Path, trials: Sequence[Trial]) -> None:
        self.file, self.trials = file, trials
        self.last = -INTERVAL

    def on_epoch_end(self, trainer: "Trainer") -> None:
        """Write the curves, unless they were written within the last second."""
        if time.monotonic() - self.last < INTERVAL:
            return
        runs = [
            {"key": self.trials[i].key, "identity": self.trials[i].identity, "curve": curve}
            for i, curve in zip(trainer.order, trainer.curves, strict=True)
        ]
        with contextlib.suppress(OSError):  # the disk may be full
            write_atomically(self.file, json.dumps(runs).encode())
        self.last = time.monotonic()
