"""Logger for Weights & Biases."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gradprix.integrations.optional import require

from .logger import Logger, race_id
from .summary import answer_markdown, ranking

if TYPE_CHECKING:
    from gradprix.race.plan import Plan
    from gradprix.race.saved_result import SavedResult

    from .training_run import TrainingRun

MARKER = "gradprix-complete"
"""File in the folder of a run that is complete."""


class WandB(Logger):
    """Logger for Weights & Biases. Without the environment variable `WANDB_MODE`, it logs offline.

    Each training run is a run, in a group for the race, with its phase as job type. The run `verdict` has the result.

    Args:
        folder: folder of the runs, whose last part must be `wandb`. Default: `wandb`, in the folder of the race.
        project: project of the runs. Default: `gradprix-TASK`.
        mode: `"offline"` or `"online"`. Default: the environment variable `WANDB_MODE`, or offline.
    """

    name: ClassVar[str] = "wandb"

    def __init__(self, folder: str | Path | None = None, project: str | None = None, mode: str | None = None) -> None:
        require("wandb", "logging")
        super().__init__(folder)
        if self.folder is not None and self.folder.name != "wandb":
            self.folder /= "wandb"  # as wandb does
        self.project, self.mode = project, mode or os.environ.get("WANDB_MODE") or "offline"

    @property
    def instructions(self) -> str:
        """Command that uploads the runs."""
        return f"wandb sync {self.root}/offline-run-*" if self.mode == "offline" else "see the project at wandb.ai"

    def on_race_start(self, plan: "Plan") -> None:
        """Choose the names of project and group, which differ between races in different folders."""
        self._race = race_id(plan, self.root)
        self._project = self.project or f"gradprix-{plan.task.name}".replace("/", "-")[:128]
        self._group = f"{plan.task.name} {self._race}"
        self._config = {"task": plan.task.name, "metric": plan.task.metric.name}

    def on_run_end(self, run: "TrainingRun") -> None:
        """Write a run, unless there is one of an earlier call."""
        identifier = f"{self._race}-{run.id}"
        if run.is_reused and any((folder / MARKER).exists() for folder in self._folders(identifier)):
            return
        about = {"name": run.name, "job_type": run.phase, "tags": [f"{key}: {run.tags[key]}"[:64] for key in run.tags]}
        with self._start(identifier, **about, config={**self._config, **run.tags, **run.hyperparameters}) as wandb_run:
            wandb_run.define_metric("*", step_metric="epoch")
            for point in run.curve:
                wandb_run.log(point)
            wandb_run.summary.update(run.last)
        self._mark(identifier)

    def on_race_end(self, result: "SavedResult[Any]") -> None:
        """Write the answer, the ranking as a table, and the recommended optimizer."""
        import wandb

        best, rows = result.best, ranking(result)
        identifier = f"{self._race}-verdict"
        about = {"name": "verdict", "job_type": "verdict", "tags": ["verdict"], "notes": result.text}
        with self._start(identifier, **about, config=self._config) as wandb_run:
            wandb_run.summary.update({"recommended": best.name, "code": best.code, "answer": answer_markdown(result)})
            table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
            wandb_run.log({"ranking": table})
        self._mark(identifier)

    def _start(self, identifier: str, **about: Any) -> Any:
        """Begin a run, after deleting an offline run with the same identifier."""
        import wandb

        if self.mode == "offline":
            for folder in self._folders(identifier):
                shutil.rmtree(folder)
        self.root.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            silent=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        return wandb.init(
            project=self._project,
            group=self._group,
            id=identifier,
            dir=str(self.root.parent),
            mode=self.mode,
            reinit="create_new",
            resume=None if self.mode == "offline" else "allow",
            settings=settings,
            **about,
        )

    def _folders(self, identifier: str) -> list[Path]:
        return [path for path in self.root.glob(f"*run-*-{identifier}") if path.is_dir() and not path.is_symlink()]

    def _mark(self, identifier: str) -> None:
        for folder in self._folders(identifier):
            (folder / MARKER).touch()
