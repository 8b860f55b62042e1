"""Number of training runs and estimated duration of a race, before it is started."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from gradprix.race import Plan, estimate, make_plan
from gradprix.race.cost import Cost
from gradprix.text.plan import format_effort
from gradprix.training import StackLayout, UpdateCost
from gradprix.utils.files import cache_folder, write_atomically

from .race_request import RaceRequest


class Estimator:
    """Estimates durations from the measured cost of each task, which is measured once per machine.

    Attributes:
        costs: measured cost by task and size; None while it is being measured, or if that failed.
    """

    def __init__(self) -> None:
        self.costs: dict[tuple[str, str], Cost | None] = {}
        self.process: subprocess.Popen[str] | None = None
        self.lock = threading.Lock()

    def describe(self, request: RaceRequest, may_measure: bool) -> dict[str, Any]:
        """Return the number of training runs and the duration as a sentence.

        Args:
            request: race to estimate.
            may_measure: begin to measure the cost of the task if it is not known.

        Returns:
            The sentence as `text`, and as `is_complete` False if the cost is being measured.
        """
        plan = make_plan(request.task, request.names, preset=request.size, trials=request.trials, seeds=request.seeds)
        cost, is_measuring = self._cost(request.task, request.size, may_measure)
        seconds = None if cost is None else estimate(plan, cost)
        return {"text": _format_plan(plan, seconds, is_measuring), "is_complete": not is_measuring}

    def _cost(self, task: str, size: str, may_measure: bool) -> tuple[Cost | None, bool]:
        """Return the cost of a task, and True if it is being measured."""
        key = task, size
        with self.lock:
            if self.costs.get(key) is None and (saved := _read(key)) is not None:
                self.costs[key] = saved
            if key in self.costs:
                return self.costs[key], self.costs[key] is None and self._is_measuring
            if not may_measure or self._is_measuring:
                return None, self._is_measuring
            self.costs[key] = None
            command = [sys.executable, "-m", "gradprix.app.cost_process", task, size]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            threading.Thread(target=self._wait, args=(key, self.process), daemon=True).start()
        return None, True

    @property
    def _is_measuring(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _wait(self, key: tuple[str, str], process: "subprocess.Popen[str]") -> None:
        output = process.communicate()[0]
        if process.returncode == 0:
            self.costs[key] = _parse(output)
            if (path := _path(key)) is not None:
                write_atomically(path, output.encode())

    def close(self) -> None:
        """Stop the measurement, if there is one. It begins again with the next request."""
        with self.lock:
            if self._is_measuring:
                assert self.process is not None
                self.process.terminate()
                self.process.wait()
                self.costs = {key: cost for key, cost in self.costs.items() if cost is not None}


def _format_plan(plan: Plan, seconds: float | None, is_measuring: bool) -> str:
    quarter = max(plan.quarter_runs.values(), default=0)
    return format_effort(plan.runs, len(plan.entries), plan.trials, plan.seeds, quarter, seconds, is_measuring)


def _path(key: tuple[str, str]) -> Path | None:
    folder = cache_folder("cost")
    return None if folder is None else folder / f"{'-'.join(key)}-{os.cpu_count()}.json"


def _read(key: tuple[str, str]) -> Cost | None:
    path = _path(key)
    try:
        return None if path is None else _parse(path.read_text())
    except (OSError, ValueError, TypeError):
        return None


def _parse(text: str) -> Cost:
    data = json.loads(text)
    updates = {name: UpdateCost(**update) for name, update in data.get("updates", {}).items()}
    return Cost(**{**data, "shape": StackLayout(**data["shape"]), "updates": updates})
