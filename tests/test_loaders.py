"""Data loaders: batch size, sampler and collate_fn; batches of different shapes, graphs, iterable datasets."""

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import gradprix as gp
from gradprix.explain.replay import watch
from gradprix.explain.tracing import TaskProblem
from gradprix.race import ENTRIES
from gradprix.race.efficiency import seconds_of_steps
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.rng import init_model, stream
from gradprix.tasks.task import called_with
from gradprix.text.execution import format_execution_mode
from gradprix.training import Callback, ModelStack, Trainer, train_stack
from gradprix.training.evaluation import BATCH_FACTOR, evaluate
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Trial

STACKED, SEQUENTIAL = ExecutionMode(), ExecutionMode(stacked=False)
RANDOM = torch.Generator().manual_seed(0)
TEXTS = [torch.randint(1, 9, (3 + i % 5,), generator=RANDOM) for i in range(60)]
LABELS = [int(text.sum()) % 2 for text in TEXTS]
PAIRS = list(zip(TEXTS, LABELS, strict=True))
TAGGED = [(text, text % 3) for text in TEXTS]
PADDING = -100


class Net(nn.Module):
    """Classifies texts in any of the forms below."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(9, 8, padding_idx=0), nn.Linear(8, 2)

    def forward(self, text: Any = None, ids: Any = None) -> Tensor:
        text = ids if text is None else text
        if isinstance(text, SimpleNamespace):
            text.ids = self.embedding(text.ids)  # changes the batch in place, as models of graphs do
            return self.layer(torch.zeros(len(text.y), 8).index_add(0, text.batch, text.ids))
        if isinstance(text, PackedSequence):
            padded, lengths = nn.utils.rnn.pad_packed_sequence(text, batch_first=True)
            return self.layer(self.embedding(padded).sum(1) / lengths[:, None])
        if isinstance(text, list):
            return self.layer(torch.stack([self.embedding(torch.tensor(list(map(int, x)))).mean(0) for x in text]))
        return self.layer(self.embedding(text).sum(1))


class Tagger(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, text: Tensor) -> Tensor:  # type: ignore[override]
        return self.layer(self.embedding(text))


def padded(items: list[Any]) -> Any:
    return pad_sequence([text for text, _ in items], batch_first=True), torch.tensor([label for _, label in items])


def fixed(items: list[Any]) -> Any:
    ids, labels = padded(items)
    return functional.pad(ids, (0, 8 - ids.shape[1])), labels


def mapping(items: list[Any]) -> Any:
    ids, labels = fixed(items)
    return {"ids": ids, "label": labels}


def strings(items: list[Any]) -> Any:
    return ["".join(map(str, text.tolist())) for text, _ in items], padded(items)[1]


def packed(items: list[Any]) -> Any:
    return pack_sequence([text for text, _ in items], enforce_sorted=False), padded(items)[1]


def joined(items: list[Any]) -> Any:
    numbers = torch.arange(len(items)).repeat_interleave(torch.tensor([len(text) for text, _ in items]))
    return SimpleNamespace(ids=torch.cat([text for text, _ in items]), batch=numbers, y=padded(items)[1])


def tagged(items: list[Any]) -> Any:
    ids, tags = zip(*items, strict=True)
    return pad_sequence(ids, batch_first=True), pad_sequence(tags, batch_first=True, padding_value=PADDING)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(-1) == targets).double().mean()


def token_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    is_token = targets != PADDING
    return (outputs.argmax(-1) == targets)[is_token].double().mean()


def tag_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=PADDING)


def task(data: Callable[[], Any], **given: Any) -> gp.Task:
    usual: dict[str, Any] = {
        "model": Net,
        "loss": functional.cross_entropy,
        "metric": gp.Metric("accuracy", accuracy, higher_is_better=True, margin=0.01),
        "epochs": 2,
    }
    return gp.Task(name="texts", baseline=0.5, data=data, **{**usual, **given})


def trial(seed: int = 3, name: str = "adam", lr: float = 0.05) -> Trial:
    entry = ENTRIES[name]
    return Trial(entry.rule, entry.values(lr), seed, 8, 2, "constant", True)


class Losses(Callback):
    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def on_step_end(self, trainer: Trainer, losses: Tensor) -> None:
        self.steps.append(losses.tolist())


def step_losses(of: gp.Task, mode: ExecutionMode, seed: int = 3) -> list[float]:
    losses = Losses()
    Trainer(of, [trial(seed)], mode, [losses]).run()
    return [step[0] for step in losses.steps]


def loop_losses(of: gp.Task, dataset: Any, orders: Iterator[Tensor], collate_fn: Any, seed: int = 3) -> list[float]:
    """Train with a DataLoader, in a plain loop over batches of 8 in the given order of each epoch."""
    model, losses = init_model(of.model, seed).train(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(2):
        batches = BatchSampler(next(orders).tolist(), 8, False)
        for batch in DataLoader(dataset, batch_sampler=batches, collate_fn=collate_fn):
            if isinstance(batch, dict):
                inputs, targets = {"ids": batch["ids"]}, batch["label"]
            elif isinstance(batch, SimpleNamespace):
                inputs, targets = batch, batch.y
            else:
                inputs, targets = batch
            args, kwargs = ((inputs,), {}) if isinstance(inputs, list) else called_with(inputs)
            optimizer.zero_grad()
            loss = of.loss(model(*args, **kwargs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def shuffled(data: gp.Data, seed: int = 3) -> Iterator[Tensor]:
    order, train = stream(seed, "order"), data.split(seed).train
    while True:
        yield train[torch.randperm(len(train), generator=order)]


COLLATED = {
    "padded": (padded, None, [SEQUENTIAL]),
    "fixed": (fixed, None, [SEQUENTIAL, STACKED]),
    "mapping": (mapping, "label", [SEQUENTIAL, STACKED]),
    "strings": (strings, None, [SEQUENTIAL]),
    "packed": (packed, None, [SEQUENTIAL]),
    "joined": (joined, None, [SEQUENTIAL]),
}


@pytest.mark.parametrize("kind", COLLATED)
def test_training_equals_a_plain_loop_with_the_loader(kind: str) -> None:
    collate_fn, targets, modes = COLLATED[kind]
    loader = DataLoader(PAIRS, batch_size=8, shuffle=True, collate_fn=collate_fn)
    of = task(lambda: gp.Data.from_loader(loader, targets=targets))
    expected = loop_losses(of, PAIRS, shuffled(of.loaded), collate_fn)
    assert of.batch_size == 8
    assert (of.loaded.ragged is None) == (STACKED in modes)
    for mode in modes:
        assert step_losses(of, mode) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("kind", ["padded", "joined"])
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    of = task(lambda: gp.Data.from_dataset(PAIRS, collate_fn=COLLATED[kind][0]), batch_size=8)
    trials = [trial(1), trial(2), trial(1, lr=0.01), trial(2, "minibatch")]
    together = train_stack(of, trials, mode=SEQUENTIAL)
    for each, own in zip(together, trials, strict=True):
        assert train_stack(of, [own], mode=SEQUENTIAL)[0].to_json() == each.to_json()


def test_rows_of_a_stack_equal_single_models() -> None:
    of = task(lambda: gp.Data.from_dataset(PAIRS, collate_fn=fixed), batch_size=8)
    trials = [trial(1), trial(2), trial(1, lr=0.01)]
    together = train_stack(of, trials)
    assert train_stack(of, trials[1:2])[0].to_json() == together[1].to_json()
    alone = [x.test_loss for x in train_stack(of, trials, mode=SEQUENTIAL)]
    assert [x.test_loss for x in together] == pytest.approx(alone, rel=1e-3)


def test_rows_with_one_seed_read_their_batches_once() -> None:
    calls: list[int] = []

    def counted(items: list[Any]) -> Any:
        calls.append(len(items))
        return padded(items)

    of = task(lambda: gp.Data.from_dataset(PAIRS, collate_fn=counted), batch_size=8)
    stack = ModelStack(of, [trial(1), trial(1), trial(2), trial(1, lr=0.1)], SEQUENTIAL)
    calls.clear()
    stack.step(stack.data.train[:, :8], 1.0)
    assert calls == [8, 8]


# Metrics


def test_a_metric_of_padded_outputs_is_the_mean_over_batches_weighted_by_examples() -> None:
    metric = gp.Metric("accuracy", token_accuracy, higher_is_better=True, margin=0.01)
    of = task(lambda: gp.Data.from_dataset(TAGGED, collate_fn=tagged), model=Tagger, loss=tag_loss, metric=metric)
    of = of.change(batch_size=1)  # evaluation batches of 8
    stack = ModelStack(
        of, [Trial(ENTRIES["adam"].rule, ENTRIES["adam"].values(0.1), 3, 1, 1, "constant", True)], SEQUENTIAL
    )
    index = stack.data.valid[0]
    index = index[torch.tensor([len(TEXTS[i]) for i in index.tolist()]).argsort()]
    losses, metrics = evaluate(stack, index[None])
    model = init_model(of.model, 3).eval()
    loader = DataLoader(Subset(TAGGED, index.tolist()), batch_size=BATCH_FACTOR, collate_fn=tagged)
    batches = [(len(x), tag_loss(model(x), y).item(), float(token_accuracy(model(x), y))) for x, y in loader]
    assert len({x.shape[1] for x, _ in loader}) > 1
    assert losses[0] == pytest.approx(sum(n * loss for n, loss, _ in batches) / len(index), rel=1e-5)
    assert metrics[0] == pytest.approx(sum(n * score for n, _, score in batches) / len(index), abs=1e-12)


def as_nodes(items: list[Any]) -> Any:
    """Labels of nodes: the first dimension is that of all nodes of the batch."""
    return torch.cat([text for text, _ in items]), torch.cat([tags for _, tags in items])


def as_lists(items: list[Any]) -> Any:
    """A list with the tokens of each example, and one with their tags."""
    return [text for text, _ in items], [tags for _, tags in items]


class Lists(Tagger):
    def forward(self, texts: list[Tensor]) -> list[Tensor]:  # type: ignore[override]
        return [self.layer(self.embedding(text)) for text in texts]


@pytest.mark.parametrize("kind", ["nodes", "lists"])
def test_outputs_of_different_lengths_are_concatenated_for_the_metric(kind: str) -> None:
    seen: list[int] = []

    def score(outputs: Any, targets: Any) -> float:
        seen.append(len(targets))
        if isinstance(outputs, list):
            outputs, targets = torch.cat(outputs), torch.cat(list(targets))
        return float(accuracy(outputs, targets))

    def loss(outputs: Any, targets: Any) -> Tensor:
        pairs = (torch.cat(outputs), torch.cat(targets)) if isinstance(outputs, list) else (outputs, targets)
        return functional.cross_entropy(*pairs)

    metric = gp.Metric("accuracy", score, higher_is_better=True, margin=0.01)
    collate_fn, model = (as_nodes, Tagger) if kind == "nodes" else (as_lists, Lists)
    data = partial(gp.Data.from_dataset, TAGGED, collate_fn=collate_fn)
    of = task(data, model=model, loss=loss, metric=metric, batch_size=1)
    stack = ModelStack(
        of, [Trial(ENTRIES["adam"].rule, ENTRIES["adam"].values(0.1), 3, 1, 1, "constant", True)], SEQUENTIAL
    )
    metrics = evaluate(stack, stack.data.valid)[1]
    examples = [TAGGED[i] for i in stack.data.valid[0].tolist()]
    outputs = init_model(Tagger, 3).eval()(torch.cat([text for text, _ in examples]))
    tags = torch.cat([tags for _, tags in examples])
    assert metrics == [pytest.approx(float(accuracy(outputs, tags)), abs=1e-12)]
    assert seen == [len(tags) if kind == "nodes" else len(examples)]


def test_a_metric_that_needs_an_unsupported_output_is_refused() -> None:
    def model() -> nn.Module:
        return WithCache()

    class WithCache(Net):
        def forward(self, text: Any = None, ids: Any = None) -> Any:
            return {"logits": super().forward(text), "cache": object()}

    metric = gp.Metric("size", lambda o, y: o["cache"].size, higher_is_better=True, margin=0.01)
    of = task(
        partial(gp.Data.from_dataset, PAIRS, collate_fn=padded),
        model=model,
        loss=lambda o, y: functional.cross_entropy(o["logits"], y),
        metric=metric,
        batch_size=8,
    )
    with pytest.raises(gp.race.TaskError, match="its metric fails.*has a object"):
        race(of)


# Races


def race(of: gp.Task, **given: Any) -> Any:
    return gp.race(of, "adam,minibatch", **{"trials": 1, "seeds": 6, "epochs": 1, "processes": 1, **given})


def ragged_task() -> gp.Task:
    return task(lambda: gp.Data.from_loader(DataLoader(PAIRS, batch_size=8, collate_fn=padded)))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("padded", "one at a time: its batches have different shapes."),
        ("strings", "one at a time: its batches hold values of the type str, which cannot be stacked."),
        ("joined", "one at a time: its batches hold values of the type SimpleNamespace, which cannot be stacked."),
        ("fixed", "in parallel stacks."),
    ],
)
def test_a_race_says_why_models_are_trained_one_at_a_time(kind: str, says: str) -> None:
    collate_fn = COLLATED[kind][0]
    result = race(task(lambda: gp.Data.from_loader(DataLoader(PAIRS, batch_size=8, collate_fn=collate_fn))))
    assert says in format_execution_mode(result.record.plan.mode)
    assert not result.record.failed
    assert result.record.plan.batch_size == 8


@pytest.mark.parametrize("kind", ["padded", "strings", "joined"])
def test_runs_with_batches_of_different_shapes_are_diagnosed(kind: str) -> None:
    of = task(lambda: gp.Data.from_dataset(PAIRS, collate_fn=COLLATED[kind][0]), batch_size=8)
    (run,) = watch(of, [trial()], SEQUENTIAL)
    assert run.points
    assert run.outcome.test_metric == train_stack(of, [trial()], mode=SEQUENTIAL)[0].test_metric
    assert next(TaskProblem(of, 3).losses())[0].item() == pytest.approx(step_losses(of, SEQUENTIAL)[0], rel=1e-5)
    assert all(seconds > 0 for seconds in seconds_of_steps(of, [trial()]))


def test_every_process_makes_the_same_batches() -> None:
    one, two = (race(ragged_task(), processes=processes).finals for processes in (1, 2))
    assert one.equals(two)


def test_batches_that_turn_out_to_have_different_shapes_end_a_stack_with_the_remedy() -> None:
    of = task(lambda: gp.Data.from_dataset(PAIRS, collate_fn=padded), batch_size=8)
    with pytest.raises(gp.race.TaskError, match="different shapes. Pad all batches to one shape in collate_fn"):
        train_stack(of, [trial(seed) for seed in range(4)])


# Fingerprints


def other_padded(items: list[Any]) -> Any:
    ids, labels = padded(items)
    return ids + 0, labels


def weighted(weights: Tensor) -> gp.Data:
    sampler = WeightedRandomSampler(weights, 60)
    return gp.Data.from_loader(DataLoader(PAIRS, batch_size=8, sampler=sampler, collate_fn=fixed))


def test_the_fingerprint_has_the_collate_fn_and_the_weights() -> None:
    data = {
        "padded": lambda: gp.Data.from_dataset(PAIRS, collate_fn=padded),
        "changed": lambda: gp.Data.from_dataset(PAIRS, collate_fn=other_padded),
        "bound": lambda: gp.Data.from_dataset(PAIRS, collate_fn=partial(other_padded)),
        "fixed": lambda: gp.Data.from_dataset(PAIRS, collate_fn=fixed),
        "weighted": lambda: weighted(torch.ones(60)),
        "other weights": lambda: weighted(torch.arange(60.0)),
        "other items": lambda: gp.Data.from_dataset(PAIRS[::-1], collate_fn=padded),
    }
    prints = {kind: task(make, batch_size=8).fingerprint for kind, make in data.items()}
    assert len(set(prints.values())) == len(data)
    assert prints == {kind: task(make, batch_size=16).fingerprint for kind, make in data.items()}


# Samplers and batch sizes

X = torch.rand(60, 4, generator=RANDOM)
Y = (X.sum(1) > 2).long()
VECTORS = TensorDataset(X, Y)


def linear(data: Callable[[], gp.Data], **given: Any) -> gp.Task:
    return task(data, model=lambda: nn.Linear(4, 2), **given)


@pytest.mark.parametrize("mode", [SEQUENTIAL, STACKED])
def test_a_weighted_sampler_draws_training_examples_with_replacement(mode: ExecutionMode) -> None:
    weights = torch.rand(60, generator=RANDOM)
    weights[:20] = 0
    loader = DataLoader(VECTORS, batch_size=8, sampler=WeightedRandomSampler(weights.tolist(), 60))
    of = linear(lambda: gp.Data.from_loader(loader))
    train = of.loaded.split(3).train

    def orders() -> Iterator[Tensor]:
        order = stream(3, "order")
        while True:
            yield train[torch.multinomial(weights.double()[train], len(train), True, generator=order)]

    assert step_losses(of, mode) == pytest.approx(loop_losses(of, VECTORS, orders(), None), rel=2e-4)
    drawn = torch.cat([next(x) for x in [orders()] for _ in range(50)])
    assert int(drawn.min()) >= 20
    counts = drawn.bincount(minlength=60)[train].double()
    expected = len(drawn) * weights.double()[train] / weights.double()[train].sum()
    assert float(((counts - expected).square() / expected.clamp(min=1)).mean()) < 2


def test_a_random_sampler_with_replacement_draws_with_replacement() -> None:
    loader = DataLoader(VECTORS, batch_size=8, sampler=RandomSampler(VECTORS, replacement=True))
    data = gp.Data.from_loader(loader)
    train = data.split(0).train
    assert len(set(data.shuffle(train, stream(0, "order")).tolist())) < len(train)


def test_a_subset_sampler_selects_examples() -> None:
    loader = DataLoader(VECTORS, batch_size=8, sampler=SubsetRandomSampler(range(10, 40)))
    data = gp.Data.from_loader(loader, DataLoader(VECTORS, batch_size=99, sampler=SubsetRandomSampler([3, 4, 5])))
    assert torch.equal(data.inputs, X[[*range(10, 40), 3, 4, 5]])
    assert data.split(0).test.tolist() == [30, 31, 32]
    assert data.batch_size == 8


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_without_a_sampler_of_its_own_equals_its_dataset(shuffle: bool) -> None:
    of = [
        linear(lambda: gp.Data.from_loader(DataLoader(VECTORS, batch_size=8, shuffle=shuffle))),
        linear(lambda: gp.Data.from_dataset(VECTORS), batch_size=8),
    ]
    assert of[0].fingerprint == of[1].fingerprint
    assert step_losses(of[0], STACKED) == step_losses(of[1], STACKED)


def test_a_task_takes_the_batch_size_of_its_loader() -> None:
    of = linear(
        lambda: gp.Data.from_loader(DataLoader(VECTORS, batch_sampler=BatchSampler(RandomSampler(VECTORS), 12, True)))
    )
    assert (of.batch_size, of.change(epochs=3).batch_size, of.change(batch_size=4).batch_size) == (12, 12, 4)
    data = {"data": lambda: gp.Data.from_loader(DataLoader(VECTORS, batch_size=6))}
    assert of.change(**data).batch_size == 6
    assert of.change(batch_size=4).change(**data).batch_size == 4
    assert race(of).record.plan.batch_size == 12
    with pytest.raises(gp.race.TaskError, match="it has no batch_size"):
        race(linear(lambda: gp.Data(X, Y)))
    with pytest.raises(TypeError, match="has no epochs"):
        gp.Task("x", Net, functional.cross_entropy, of.metric, 0.5, lambda: gp.Data(X, Y), 8)


class Backwards(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(59, -1, -1))

    def __len__(self) -> int:
        return 60


class OwnLoader(DataLoader[Any]):
    def __iter__(self) -> Any:
        return iter([])


class Lines(IterableDataset[Any]):
    def __init__(self, count: int = 60) -> None:
        self.count = count

    def __iter__(self) -> Any:
        return iter(PAIRS[: self.count])


class LabelFirst(NamedTuple):
    label: Any
    x: Any
    sum: Any


def loader(dataset: Any = VECTORS, **given: Any) -> gp.Data:
    return gp.Data.from_loader(DataLoader(dataset, **given))


REFUSED = {
    "a dataset": (lambda: gp.Data.from_loader(VECTORS), "a TensorDataset is not a .*DataLoader"),
    "own loader": (lambda: gp.Data.from_loader(OwnLoader(VECTORS)), "a OwnLoader makes batches in a way of its own"),
    "no batches": (lambda: loader(batch_size=None), "makes no batches"),
    "own batches": (lambda: loader(batch_sampler=[[0, 1], [2, 3]]), "batch sampler of its own, list"),
    "own sampler": (lambda: loader(sampler=Backwards()), "order of the loader's Backwards cannot be drawn by the seed"),
    "fewer draws": (lambda: loader(sampler=WeightedRandomSampler([1.0] * 60, 30)), "draws 30 of 60 examples"),
    "more draws": (lambda: loader(sampler=RandomSampler(VECTORS, num_samples=90)), "draws 90 of 60 examples"),
    "no replacement": (
        lambda: loader(sampler=WeightedRandomSampler([1.0] * 60, 60, replacement=False)),
        "replacement=False",
    ),
    "weights": (lambda: loader(sampler=WeightedRandomSampler([1.0] * 50, 60)), "50 weights for 60 examples"),
    "repetitions": (lambda: loader(sampler=SubsetRandomSampler([1, 2, 3, 4, 5, 5])), "are not distinct"),
    "weighted test": (
        lambda: gp.Data.from_loader(
            DataLoader(VECTORS), DataLoader(VECTORS, sampler=WeightedRandomSampler([1.0] * 60, 60))
        ),
        "test examples draws them with replacement",
    ),
    "other collate_fn": (
        lambda: gp.Data.from_loader(DataLoader(PAIRS, collate_fn=padded), DataLoader(PAIRS, collate_fn=fixed)),
        "have different collate_fn",
    ),
    "a loader as a dataset": (lambda: gp.Data.from_dataset(DataLoader(VECTORS)), r"gp.Data.from_loader\(loader\)"),
    "a loader as data": (lambda: gp.Data(DataLoader(VECTORS)), r"gp.Data.from_loader\(loader\)"),
    "different shapes": (lambda: gp.Data.from_dataset(PAIRS), "pad or crop them to one shape, or give .*collate_fn="),
    "no target": (lambda: gp.Data.from_dataset(PAIRS, collate_fn=lambda x: padded(x)[0]), "not \\(input, target\\)"),
    "key of a tuple": (lambda: gp.Data.from_dataset(VECTORS, targets="label"), "a tuple, whose parts have no names"),
    "no field": (lambda: gp.Data.from_dataset([LabelFirst(0, x, 1) for x in X], targets="y"), "has label, x, sum: tar"),
    "no key": (lambda: gp.Data.from_dataset(PAIRS, collate_fn=mapping), "ids, label: say which"),
    "no length": (lambda: gp.Data.from_dataset(Lines()), r"length=10_000"),
    "no length of a loader": (lambda: loader(Lines()), r"length=10_000"),
    "no length of an iterator": (lambda: gp.Data.from_dataset(iter(PAIRS)), "length=10_000"),
    "length of a list": (lambda: gp.Data.from_dataset(PAIRS, length=30), r"Subset\(dataset, range\(length\)\)"),
    "too long": (lambda: gp.Data.from_dataset(Lines(), length=30, memory=1e-7), "smaller length"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_with_the_remedy(kind: str) -> None:
    make, says = REFUSED[kind]
    with pytest.raises((TypeError, ValueError), match=says):
        make()


@pytest.mark.parametrize(("length", "count"), [(30, 30), (100, 60)])
def test_an_iterable_dataset_is_read_once_up_to_a_length(length: int, count: int) -> None:
    for data in (
        gp.Data.from_dataset(Lines(), length=length, collate_fn=fixed),
        gp.Data.from_loader(DataLoader(Lines(), batch_size=8, collate_fn=fixed), length=length),
        gp.Data.from_dataset(iter(PAIRS), length=length, collate_fn=fixed),
    ):
        assert len(data) == count
        inputs, targets = data.take(torch.arange(count)[None])
        assert torch.equal(inputs[0], fixed(PAIRS[:count])[0])
        assert targets[0].tolist() == LABELS[:count]
    rows = gp.Data.from_dataset(iter(VECTORS), iter(VECTORS), length=length)
    assert not isinstance(rows, Stream)
    assert torch.equal(rows.inputs, torch.cat([X[:count], X[:count]]))
    assert rows.split(0).test.tolist() == list(range(count, 2 * count))


def test_targets_are_a_field_of_named_tuples() -> None:
    items = [LabelFirst(y, x, x.sum()) for x, y in VECTORS]
    for options in ({}, {"collate_fn": torch.utils.data.default_collate}):
        data = gp.Data.from_dataset(items, targets="label", **options)
        (x, sums), labels = data.take(torch.arange(60)[None])
        assert (torch.equal(x[0], X), torch.equal(labels[0], Y), torch.equal(sums[0], X.sum(1))) == (True, True, True)
        x, targets = gp.Data.from_dataset(items, targets=["sum", "label"], **options).take(torch.arange(60)[None])
        assert torch.equal(x[0], X)
        assert torch.equal(targets["label"][0], Y)


def test_several_targets_are_named_by_a_list() -> None:
    items = [{"x": x, "class": y, "sum": x.sum()} for x, y in VECTORS]
    data = gp.Data.from_dataset(items, targets=["class", "sum"])
    assert list(data.inputs) == ["x"]
    assert torch.equal(data.targets["class"], Y)
    assert torch.equal(data.targets["sum"], torch.stack([x.sum() for x in X]))


def test_stratified_splits_of_collated_data() -> None:
    split = gp.Data.from_dataset(PAIRS, collate_fn=padded, stratify=True).split(0)
    share = sum(LABELS) / len(LABELS)
    assert sum(LABELS[i] for i in split.test.tolist()) / len(split.test) == pytest.approx(share, abs=0.1)


def test_batches_are_drawn_by_the_seed_of_the_run() -> None:
    def noisy(items: list[Any]) -> Any:
        ids, labels = fixed(items)
        return ids * (torch.rand(ids.shape) < 0.8), labels

    of = task(lambda: gp.Data.from_dataset(PAIRS, collate_fn=noisy), batch_size=8)
    torch.manual_seed(1)
    first = [x.to_json() for x in train_stack(of, [trial(1), trial(2)])]
    torch.manual_seed(2)
    assert [x.to_json() for x in train_stack(of, [trial(1), trial(2)])] == first
    assert train_stack(of, [trial(2)])[0].to_json() == first[1]


# torch_geometric


def graphs() -> list[Any]:
    from torch_geometric.data import Data

    made = []
    for text, label in PAIRS:
        path = torch.arange(len(text) - 1)
        made.append(Data(x=functional.one_hot(text, 9).float(), edge_index=torch.stack([path, path + 1]), y=label))
    return made


def gnn() -> nn.Module:
    from torch_geometric.nn import GCNConv, global_add_pool

    class Gnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.layer = GCNConv(9, 8), nn.Linear(8, 2)

        def forward(self, batch: Any) -> Tensor:
            batch.x = torch.tanh(self.conv(batch.x, batch.edge_index))
            return self.layer(global_add_pool(batch.x, batch.batch))

    return Gnn()


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore")
def test_graphs_of_torch_geometric_train_as_with_its_loader() -> None:
    pytest.importorskip("torch_geometric")
    from torch_geometric.loader import DataLoader as GraphLoader

    of = task(lambda: gp.Data.from_dataset(graphs()), model=gnn, batch_size=8)
    other = task(lambda: gp.Data.from_loader(GraphLoader(graphs(), batch_size=8, shuffle=True)), model=gnn)
    assert other.fingerprint == of.fingerprint
    orders, model, expected = shuffled(of.loaded), init_model(gnn, 3), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(2):
        order = next(orders).tolist()
        for batch in GraphLoader([graphs()[i] for i in order], batch_size=8, sampler=SequentialSampler(order)):
            loss = functional.cross_entropy(model(batch), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert step_losses(of, SEQUENTIAL) == pytest.approx(expected, rel=2e-4)
    result = race(other)
    assert "its batches hold values of the type DataBatch" in format_execution_mode(result.record.plan.mode)
    assert not result.record.failed
