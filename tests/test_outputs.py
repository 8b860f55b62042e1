"""Outputs that loss and metric ignore, and how outputs of evaluation batches are combined."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp
from gradprix.race import ENTRIES, TaskError
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trainer import train_stack
from gradprix.training.trial import Trial

X = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()
FEW: dict[str, Any] = {"trials": 1, "seeds": 6, "epochs": 1, "processes": 1}
STACKED, SEQUENTIAL = ExecutionMode(), ExecutionMode(stacked=False)


class Pair(NamedTuple):
    logits: Tensor
    rest: Any


@dataclass
class Record:
    logits: Tensor
    loss: Any = None


@dataclass
class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As in `transformers`, but not registered with torch's pytree."""

    logits: Any = None
    loss: Any = None
    past: Any = None

    def __post_init__(self) -> None:
        for name in ("logits", "loss", "past"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


class Cache:
    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


class Net(nn.Module):
    """Returns what `output` makes of its logits."""

    def __init__(self, output: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.output = nn.Linear(4, 2), output

    def forward(self, x: Tensor) -> Any:
        return self.output(self.layer(x))


def logits(output: Any) -> Tensor:
    found: Tensor = output["logits"] if isinstance(output, dict) else getattr(output, "logits", output)
    return found[0] if isinstance(found, tuple | list) else found


def task(model: Callable[[], nn.Module], score: Any = None, **given: Any) -> gp.Task:
    def accuracy(output: Any, target: Tensor) -> Tensor:
        return (logits(output).argmax(-1) == target).double().mean()

    metric = gp.Metric("score", score or accuracy, higher_is_better=score is None, margin=0.01)
    usual: dict[str, Any] = {
        "loss": lambda o, y: functional.cross_entropy(logits(o), y),
        "data": lambda: gp.Data(X, Y),
        "batch_size": 5,  # evaluation batches of 40
    }
    return gp.Task(name="mine", model=model, metric=metric, baseline=0.5, epochs=2, **{**usual, **given})


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "number of torch": lambda o: {"logits": o, "extra": o.mean()},
    "none": lambda o: {"logits": o, "extra": None},
    "object": lambda o: {"logits": o, "extra": object()},
    "text, flag and numbers": lambda o: {"logits": o, "extra": ("kind", True, 3, 0.5, torch.float32)},
    "cache": lambda o: {"logits": o, "extra": [Cache(o), {"deep": Cache(o)}]},
    "named tuple": lambda o: Pair(o, (None, o.sum())),
    "tuple": lambda o: (o, o[None].expand(3, -1, -1), None),
    "hidden states": lambda o: {"logits": o, "hidden": o[None].repeat(2, 1, 1), "means": o.mean(0)},
    "dataclass": lambda o: Record(o, o.mean()),
    "output of transformers": lambda o: ModelOutput(o, o.mean(), Cache(o)),
    "dataclass in a dictionary": lambda o: {"logits": o, "aux": Record(o, Record(o, None))},
    "namespace": lambda o: SimpleNamespace(logits=o, loss=o.mean(), name="x"),
    "complex and integers": lambda o: {"logits": o, "extra": (torch.complex(o, o), o.argmax(-1), o.argmax())},
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_loss_and_metric_ignore_changes_no_number(kind: str) -> None:
    nets = [lambda: Net(OUTPUTS[kind]), lambda: Net(lambda o: {"logits": o})]
    for how in (STACKED, SEQUENTIAL):
        (found,), (plain,) = (train_stack(task(net), [trial(3, 5)], mode=how) for net in nets)
        assert (found.curve, found.test_metric) == (plain.curve, plain.test_metric)


def test_such_a_task_races_stacked() -> None:
    every = lambda: Net(lambda o: ModelOutput(o, o.mean(), [Cache(o), Record(o, None), "text", o[None]]))  # noqa: E731
    result = gp.race(task(every), "adam,minibatch", **FEW)
    assert result.record.plan.mode.stacked
    assert not result.record.failed


class OwnLoss(nn.Module):
    """Computes its own loss, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor, labels: Tensor) -> ModelOutput:
        output = self.layer(x)
        return ModelOutput(output, functional.cross_entropy(output, labels), Cache(output))


def trial(seed: int, batch_size: int) -> Trial:
    entry = ENTRIES["minibatch"]
    return Trial(entry.rule, entry.values(0.1), seed, batch_size, 2, "constant", True)


def trained_by_a_loop(data: gp.Data, seed: int, batch_size: int) -> tuple[nn.Module, Tensor]:
    """The same run as a plain loop, and the test examples."""
    from gradprix.tasks.rng import init_model, stream

    model, split, order = init_model(OwnLoss, seed), data.split(seed), stream(seed, "order")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for index in split.train[torch.randperm(len(split.train), generator=order)].split(batch_size):
            optimizer.zero_grad()
            model(X[index], Y[index]).loss.backward()
            optimizer.step()
    return model.eval(), split.test


@pytest.mark.parametrize("how", [STACKED, SEQUENTIAL], ids=["stacked", "sequential"])
@pytest.mark.parametrize("batch_size", [1, 5, 50])
@pytest.mark.parametrize("score", ["loss", "perplexity"])
def test_a_models_own_loss_is_its_mean_over_all_examples(how: ExecutionMode, batch_size: int, score: str) -> None:
    """Evaluation batches have 8, 40 and 400 examples, of 18: the last one is short."""
    scores = {"loss": lambda out, y: out.loss, "perplexity": lambda out, y: out.loss.exp()}
    data = gp.Data({"x": X, "labels": Y}, Y)
    own = task(OwnLoss, scores[score], data=lambda: data, loss=lambda out, y: out.loss)
    outcomes = train_stack(own, [trial(seed, batch_size) for seed in (3, 4)], mode=how)

    for seed, outcome in zip((3, 4), outcomes, strict=True):
        model, test = trained_by_a_loop(data, seed, batch_size)
        with torch.no_grad():
            each = functional.cross_entropy(model.layer(X[test]), Y[test], reduction="none").double()
        mean = each.mean().exp() if score == "perplexity" else each.mean()
        assert outcome.test_metric == pytest.approx(float(mean), rel=1e-5)
        assert outcome.test_loss == pytest.approx(float(each.mean()), rel=1e-5)


def test_a_loss_of_whole_batches_has_no_value_on_parts_of_an_official_test_set() -> None:
    data = gp.Data({"x": X, "labels": Y}, Y, test=torch.arange(60, 90))
    own = task(OwnLoss, lambda out, y: out.loss, data=lambda: data, loss=lambda out, y: out.loss)
    by_example = task(OwnLoss, lambda out, y: functional.cross_entropy(out.logits, y), data=lambda: data, loss=own.loss)
    (whole,), (each,) = (train_stack(t, [trial(3, 5)]) for t in (own, by_example))

    assert whole.test_parts is None
    assert each.test_parts is not None
    assert len(each.test_parts) == 20
    assert whole.test_metric == pytest.approx(each.test_metric, rel=1e-5)
    assert whole.test_metric == pytest.approx(whole.test_loss, rel=1e-6)


class Recurrent(nn.Module):
    """Returns the states of its layers, whose batch is the second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.LSTM(2, 3, num_layers=2, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        output, states = self.layers(x.view(-1, 2, 2))
        return {"logits": self.head(output[:, -1]), "states": states}


def test_states_of_layers_may_be_returned() -> None:
    result = gp.race(task(Recurrent), "adam,minibatch", **FEW)
    assert not result.record.failed


@pytest.mark.parametrize("how", [STACKED, SEQUENTIAL], ids=["stacked", "sequential"])
def test_tokens_of_all_examples_in_one_dimension_are_concatenated(how: ExecutionMode) -> None:
    def score(output: Tensor, target: Tensor) -> Tensor:
        assert output.shape == (len(target) * 4, 2)
        return functional.cross_entropy(output, target.flatten())

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Any:
            return self.layer(x.reshape(-1, 1))

    data = gp.Data(X, (X > 0).long(), test=torch.arange(60, 90))
    own = task(Tokens, score, data=lambda: data, loss=lambda o, y: functional.cross_entropy(o, y.flatten()))
    (outcome,) = train_stack(own, [trial(3, 5)], mode=how)
    assert outcome.test_metric == pytest.approx(outcome.test_loss, rel=1e-5)
    assert outcome.test_parts is not None
    assert sum(outcome.test_parts) / 20 == pytest.approx(outcome.test_metric, rel=0.2)


USED: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Any]]] = {
    "states": (lambda o: {"logits": o, "states": o[None].repeat(2, 1, 1)}, lambda out: out["states"].mean()),
    "cache": (lambda o: {"logits": o, "states": Cache(o)}, lambda out: out["states"].keys.mean()),
    "function of torch": (lambda o: {"logits": o, "states": o.mean(0)}, lambda out: torch.mean(out["states"])),
    "own class": (lambda o: Cache(o), lambda out: out.keys.mean()),
}


@pytest.mark.parametrize("kind", USED)
def test_a_metric_of_what_cannot_be_combined_is_refused_before_the_race(kind: str) -> None:
    output, score = USED[kind]
    loss: Any = lambda o, y: functional.cross_entropy(o.keys if isinstance(o, Cache) else o["logits"], y)  # noqa: E731
    with pytest.raises(TaskError, match=r"its metric fails: the model's output has a .* put together"):
        gp.race(task(lambda: Net(output), lambda out, y: score(out), loss=loss), "adam,minibatch", **FEW)
