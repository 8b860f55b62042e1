"""Request for a race, as the form of the app sends it."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gradprix import tasks
from gradprix.race import ENTRIES
from gradprix.race.entry_registry import BRACKETS
from gradprix.tasks.registry import PRESETS

FEWEST, MOST = {"trials": 2, "seeds": 6}, 300
"""Smallest and largest number of tuning trials and final seeds."""


class RequestError(ValueError):
    """Raised if the form has invalid fields.

    Args:
        messages: message of each invalid field, by its name.
    """

    def __init__(self, messages: dict[str, str]) -> None:
        super().__init__(" ".join(messages.values()))
        self.messages = messages


@dataclass(frozen=True)
class RaceRequest:
    """Race that was requested with the form.

    Only built-in tasks and optimizers can be requested: a URL must not make the app execute a file.

    Args:
        task: name of a built-in task.
        names: names of the optimizers.
        size: preset of the task.
        trials: tuning trials of each optimizer; None for the task's number.
        seeds: final seeds of each optimizer; None for the task's number.
    """

    task: str = "digits"
    names: tuple[str, ...] = tuple(BRACKETS["rules"])
    size: str = "small"
    trials: int | None = None
    seeds: int | None = None

    @property
    def base_name(self) -> str:
        """Name of the race's folder, the same as in `gradprix race`, unless it is taken."""
        return self.task if self.size == "default" else f"{self.task}-{self.size}"

    @property
    def arguments(self) -> list[str]:
        """Arguments of `gradprix race`, without the folder."""
        arguments = [self.task, "--optimizers", ",".join(self.names), "--preset", self.size]
        for option, value in (("--trials", self.trials), ("--seeds", self.seeds)):
            arguments += [] if value is None else [option, str(value)]
        return arguments

    def to_json(self) -> str:
        """Serialize to JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RaceRequest":
        """Parse the output of `to_json`, with the checks of `read_request`.

        Raises:
            RequestError: if a field is invalid.
        """
        data = json.loads(text)
        if not isinstance(data, dict):
            raise RequestError({"names": "The saved request is damaged."})
        fields = {name: "" if value is None else str(value) for name, value in data.items() if name != "names"}
        return read_request(fields, data["names"])


def read_request(fields: Mapping[str, str], names: Iterable[str]) -> RaceRequest:
    """Read the fields of the form.

    Args:
        fields: text of each field; empty or missing for its default.
        names: names of the selected optimizers.

    Raises:
        RequestError: if a field is invalid.
    """
    messages: dict[str, str] = {}

    def read(name: str, convert: Callable[[str, str], Any], default: Any) -> Any:
        text = fields.get(name, "").strip()
        if not text:
            return default
        try:
            return convert(name, text)
        except ValueError as error:
            messages[name] = str(error)
            return default

    chosen = tuple(dict.fromkeys(names))
    if unknown := [name for name in chosen if name not in ENTRIES]:
        messages["names"] = f"Unknown optimizer: {', '.join(unknown)}."
    elif len(chosen) < 2:
        messages["names"] = "Choose at least two optimizers: a race compares them."
    request = RaceRequest(
        read("task", _read_choice(tasks.ALL), RaceRequest.task),
        chosen,
        read("size", _read_choice(PRESETS), RaceRequest.size),
        read("trials", _read_count, None),
        read("seeds", _read_count, None),
    )
    if messages:
        raise RequestError(messages)
    return request


def _read_choice(known: Iterable[str]) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text not in known:
            raise ValueError(f"There is no {name} {text!r}. Choose one of {', '.join(known)}.")
        return text

    return read


def _read_count(name: str, text: str) -> int:
    label, fewest = {"trials": "Tuning trials", "seeds": "Final seeds"}[name], FEWEST[name]
    if not text.isdecimal() or not fewest <= int(text) <= MOST:
        raise ValueError(f"{label}: {text!r} is not a whole number from {fewest} to {MOST}.")
    return int(text)
