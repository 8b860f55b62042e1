"""Logger for TensorBoard."""

import contextlib
import math
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gradprix.integrations.optional import require

from .logger import Logger
from .summary import answer_markdown

if TYPE_CHECKING:
    from gradprix.race.saved_result import SavedResult

    from .training_run import TrainingRun


class TensorBoard(Logger):
    """Logger for TensorBoard.

    Each training run is a run of TensorBoard, with curves against epochs and, with the suffix `_by_examples`, against
    training examples; hyperparameters and final numbers are in the tab HParams. The run `verdict` has the result.
    """

    name: ClassVar[str] = "tensorboard"
    folder_per_task: ClassVar[bool] = True

    def __init__(self, folder: str | Path | None = None) -> None:
        require("tensorboard", "logging")
        super().__init__(folder)

    @property
    def instructions(self) -> str:
        """Command that starts TensorBoard."""
        return f"tensorboard --logdir {shlex.quote(str(self.root))}"

    def on_run_end(self, run: "TrainingRun") -> None:
        """Write a run, unless there is one of an earlier call."""
        name = re.sub(r"[^\w.=-]+", "_", f"{run.name}-{run.id[:8]}")
        folder = self.root / re.sub(r"\W+", "_", run.phase) / name
        if run.is_reused and folder.exists():
            return
        from torch.utils.tensorboard.summary import hparams

        with self._writer(folder) as writer:
            for point in run.curve:
                for key in (key for key in point if "/" in key):
                    writer.add_scalar(key, point[key], math.ceil(point["epoch"]))
                    if "examples" in point:
                        writer.add_scalar(f"{key}_by_examples", point[key], int(point["examples"]))
            for key, value in run.test.items():
                writer.add_scalar(key, value, len(run.curve))
            values = {**run.tags, **run.hyperparameters}
            shown = {
                key: value if isinstance(value, str | int | float) else str(value) for key, value in values.items()
            }
            for summary in hparams(shown, run.last):
                writer.file_writer.add_summary(summary)

    def on_race_end(self, result: "SavedResult[Any]") -> None:
        """Write the answer with the ranking, and the recommended optimizer, as text."""
        with self._writer(self.root / "verdict") as writer:
            writer.add_text("answer", answer_markdown(result))
            writer.add_text("recommended", f"**{result.best.name}**: `{result.best.code}`")

    @contextlib.contextmanager
    def _writer(self, folder: Path) -> Iterator[Any]:
        """Context manager with a writer of a run, whose folder appears, or is replaced, when the run is complete."""
        from torch.utils.tensorboard import SummaryWriter

        parent = self.root.with_name(f"{self.root.name}.partial")  # TensorBoard does not read it
        partial = parent / folder.name
        shutil.rmtree(partial, ignore_errors=True)
        writer = SummaryWriter(str(partial))
        try:
            yield writer
        finally:
            writer.close()
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(folder)
        with contextlib.suppress(OSError):  # another race, which logs to the same folder, writes a run
            parent.rmdir()
