"""Logger for MLflow."""

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from filelock import FileLock

from gradprix.integrations.optional import require

from .logger import Logger, race_id
from .summary import answer_markdown, ranking

if TYPE_CHECKING:
    from gradprix.race.plan import Plan
    from gradprix.race.saved_result import SavedResult

    from .training_run import TrainingRun

RACE_TAG, RUN_TAG, PARENT_TAG, NOTE_TAG = "gradprix.race", "gradprix.run", "mlflow.parentRunId", "mlflow.note.content"
MOST_METRICS = 1_000
"""Maximum number of metrics in one request."""


class MLflow(Logger):
    """Logger for MLflow. Without the environment variable `MLFLOW_TRACKING_URI`, it writes an SQLite database.

    Each race is a run with the result, and each training run a run below it.

    Args:
        folder: folder of the database and of the artifacts. Default: `mlflow`, in the folder of the race.
        experiment: name of the experiment. Default: the name of the task.
        uri: address of a tracking server or database. Default: the environment variable `MLFLOW_TRACKING_URI`, or the
            database `mlflow.db` in the folder.
    """

    name: ClassVar[str] = "mlflow"

    def __init__(self, folder: str | Path | None = None, experiment: str | None = None, uri: str | None = None) -> None:
        require("mlflow", "logging")
        super().__init__(folder)
        self.experiment, self.given_uri = experiment, uri or os.environ.get("MLFLOW_TRACKING_URI")
        if self.given_uri is None:
            require("sqlalchemy", "logging")  # which mlflow-skinny does not install

    @property
    def uri(self) -> str:
        """Address of the tracking server or database."""
        return self.given_uri or f"sqlite:///{(self.root / 'mlflow.db').as_posix()}"

    @property
    def instructions(self) -> str:
        """Command that starts the user interface, or the address of the server."""
        return self.uri if self.uri.startswith("http") else f"mlflow ui --backend-store-uri {self.uri}"

    def on_race_start(self, plan: "Plan") -> None:
        """Create the run of the race, or find it and its training runs if the race is resumed."""
        from mlflow.tracking import MlflowClient

        if self.given_uri is None:
            self.root.mkdir(parents=True, exist_ok=True)
        with _database_lock(self.uri):
            self._client = MlflowClient(tracking_uri=self.uri)
            self._experiment = self._find_experiment(self.experiment or plan.task.name)
        race = race_id(plan, self.root)
        races = list(self._runs(RACE_TAG, race))
        self._race = races[0].info.run_id if races else self._create(f"race {plan.task.name}", {RACE_TAG: race})
        self._logged = {run.data.tags.get(RUN_TAG): run for run in self._runs(PARENT_TAG, self._race)}
        description = plan.description
        params = {key: description[key] for key in ("task", "trials", "seeds", "seed", "epochs")}
        self._log(self._race, tags={"entries": ", ".join(entry.name for entry in plan.entries), **_texts(params)})

    def on_run_end(self, run: "TrainingRun") -> None:
        """Write a run, unless there is one of an earlier call."""
        earlier = self._logged.get(run.id)
        if earlier is not None:
            if run.is_reused and earlier.info.status == "FINISHED":
                return
            self._client.delete_run(earlier.info.run_id)
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(key, value, now, math.ceil(point["epoch"]))
            for point in run.curve
            for key, value in point.items()
            if key != "epoch"
        ]
        metrics += [Metric(key, value, now, len(run.curve)) for key, value in run.test.items()]
        identifier = self._create(run.name, {RUN_TAG: run.id, PARENT_TAG: self._race, **run.tags})
        self._log(identifier, metrics, {"entry": run.entry, "phase": run.phase, **run.hyperparameters})
        self._client.set_terminated(identifier, "FINISHED" if run.error is None else "FAILED")

    def on_race_end(self, result: "SavedResult[Any]") -> None:
        """Write the answer as the description of the race's run, its ranking, and the recommended optimizer."""
        from mlflow.entities import Metric

        rows, now = ranking(result), int(1000 * time.time())
        metrics = [Metric(f"mean/{_safe(row['entry'])}", row["mean"], now, 0) for row in rows]
        tags = {"recommended": result.best.name, "code": result.best.code, NOTE_TAG: answer_markdown(result)}
        self._log(self._race, metrics, tags=tags)
        self._client.log_text(self._race, f"{result.text}\n", "answer.txt")
        self._client.log_dict(self._race, {"ranking": rows}, "ranking.json")
        self._client.set_terminated(self._race)

    def _find_experiment(self, name: str) -> str:
        """Return the identifier of an experiment, which is created if there is none with this name."""
        from mlflow.exceptions import MlflowException

        artifacts = (self.root.absolute() / "artifacts").as_uri() if self.given_uri is None else None
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:  # otherwise, another race has created it just now
                    raise
        return str(experiment.experiment_id)

    def _runs(self, tag: str, value: str) -> Iterator[Any]:
        """Yield the runs of the experiment with this value of a tag."""
        token = None
        while True:
            page = self._client.search_runs([self._experiment], f"tags.`{tag}` = '{value}'", page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        """Create a run and return its identifier."""
        return str(self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id)

    def _log(
        self,
        identifier: str,
        metrics: list[Any] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write metrics, parameters and tags of a run."""
        from mlflow.entities import Param, RunTag

        metrics = metrics or []
        self._client.log_batch(
            identifier,
            metrics=metrics[:MOST_METRICS],
            params=[Param(_safe(key), value) for key, value in _texts(params or {}).items()],
            tags=[RunTag(key, value[:5_000]) for key, value in (tags or {}).items()],
        )
        for start in range(MOST_METRICS, len(metrics), MOST_METRICS):
            self._client.log_batch(identifier, metrics=metrics[start : start + MOST_METRICS])


def _database_lock(uri: str) -> contextlib.AbstractContextManager[Any]:
    """Return a lock of an SQLite database, whose tables MLflow creates when it is first opened; of a server, none."""
    if not uri.startswith("sqlite:///"):
        return contextlib.nullcontext()
    return FileLock(f"{uri.removeprefix('sqlite:///').partition('?')[0]}.lock")


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value)[:500] for name, value in values.items()}


def _safe(name: str) -> str:
    """Return a name in which characters that MLflow refuses are replaced."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)
