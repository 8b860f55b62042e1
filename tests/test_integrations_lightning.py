"""LightningModules train as tasks what `Trainer` trains, and what needs a `Trainer` is refused."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

import gradprix as gp
from gradprix.tasks.task import TaskError

pl = pytest.importorskip("lightning.pytorch", reason="scripts/test --integrations has Lightning")
pytestmark = [
    pytest.mark.integrations,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning", "ignore::UserWarning:lightning"),
]
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
CPU = {"accelerator": "cpu", **QUIET}


class Net(pl.LightningModule):  # type: ignore[misc]
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        outputs = self(batch[0])
        accuracy = (outputs.argmax(-1) == batch[1]).float().mean()
        self.log_dict({"val_acc": accuracy, "val_loss": nn.functional.cross_entropy(outputs, batch[1])})

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def examples(count: int, seed: int) -> TensorDataset:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :3].argmax(-1))


def loaders(batch_size: int = 10) -> tuple[DataLoader[Any], DataLoader[Any]]:
    return DataLoader(examples(70, 0), batch_size), DataLoader(examples(25, 1), batch_size)


class Points(pl.LightningDataModule):  # type: ignore[misc]
    def setup(self, stage: str) -> None:
        self.sets = {part: examples(count, count) for part, count in (("train", 60), ("val", 20), ("test", 25))}

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.sets["train"], batch_size=10)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.sets["val"], batch_size=10)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.sets["test"], batch_size=10)


make_task = partial(gp.integrations.lightning.task, metric="val_acc", baseline=1 / 3, epochs=2)


def batch_of(dataset: TensorDataset, index: slice) -> tuple[Tensor, ...]:
    return tuple(dataset[index])


def test_a_task_trains_as_a_trainer_does() -> None:
    task, (train, _) = make_task(Net, loaders()), loaders()
    ours, theirs = task.network(0), task.network(0).module
    trainer = pl.Trainer(max_epochs=2, **CPU)
    trainer.fit(theirs, train)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    ours.train()
    for _ in range(2):
        for x, y in train:
            optimizer.zero_grad()
            task.loss(ours((x, y)), y).backward()
            optimizer.step()

    for mine, other in zip(ours.module.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_race_reports_the_value_that_a_trainer_validates() -> None:
    task, (_, valid) = make_task(Net, loaders()), loaders()
    model = task.network(0).eval()
    (validated,) = pl.Trainer(**CPU).validate(model.module, valid, verbose=False)
    scores = [task.metric.score(model((x, y)), y) * len(y) / 25 for x, y in valid]  # the last batch is smaller

    assert sum(scores) == pytest.approx(validated["val_acc"])


def test_a_data_module_gives_its_test_set_and_its_batch_size() -> None:
    task = make_task(Net, Points())

    assert task.batch_size == 10
    assert len(task.loaded) == 60 + 20 + 25
    assert task.loaded.test.tolist() == list(range(80, 105))
    assert make_task(Net, loaders()).loaded.test.tolist() == list(range(70, 95))


def test_the_collate_fn_of_a_loader_makes_the_batches() -> None:
    def collate(items: list[Any]) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in items]) * 2, torch.stack([y for _, y in items])

    train = DataLoader(examples(70, 0), 10, collate_fn=collate)
    inputs, targets = make_task(Net, (train, loaders()[1])).loaded.take(torch.tensor([[3, 5]]))
    x, y = batch_of(examples(70, 0), slice(3, 6, 2))

    assert torch.equal(inputs["batch"][0][0], 2 * x)
    assert inputs["batch"][1].tolist() == targets.tolist() == [y.tolist()]


def test_samplers_are_kept_or_refused() -> None:
    weights = torch.arange(70.0)
    train = DataLoader(examples(70, 0), 10, sampler=WeightedRandomSampler(weights, 70))
    data = make_task(Net, (train, loaders()[1])).loaded

    assert torch.equal(data.weights, torch.cat([weights, torch.zeros(25)]).to(data.weights.dtype))
    with pytest.raises(TaskError, match="has a WeightedRandomSampler.*lightning\\.fit"):
        _ = make_task(Net, (train, *loaders())).loaded


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(examples(70, 0))


@pytest.mark.parametrize("train", [DataLoader(Endless(), 10), [1, 2, 3]], ids=["iterable", "list"])
def test_loaders_without_numbers_are_refused(train: Any) -> None:
    with pytest.raises(TaskError, match="has no numbered examples.*lightning\\.fit"):
        _ = make_task(Net, (train, loaders()[1]), batch_size=10).loaded


def test_a_metric_of_all_examples_gets_outputs_and_targets() -> None:
    accuracy = gp.Metric(
        "accuracy", lambda out, y: gp.tasks.accuracy(out["outputs"], y), higher_is_better=True, margin=0.01
    )
    task = make_task(Net, loaders(), metric=accuracy)
    model = task.network(0).eval()
    x, y = batch_of(examples(25, 1), slice(None))

    assert task.metric.score(model((x, y)), y) == gp.tasks.accuracy(model.module(x), y)


def test_torchmetrics_are_computed_for_each_batch() -> None:
    from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy

    class Measured(Net):
        def __init__(self, meter: Any) -> None:
            super().__init__()
            self.meter = meter

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.meter(self(batch[0]).argmax(-1), batch[1])
            self.log("val_acc", self.meter)

    model = make_task(lambda: Measured(MulticlassAccuracy(3, average="micro")), loaders()).network(0).eval()
    for x, y in loaders()[1]:
        assert model((x, y))["metric"] == pytest.approx(float(gp.tasks.accuracy(model.module(x), y)))
    model = make_task(lambda: Measured(BinaryF1Score()), loaders()).network(0).eval()
    with pytest.raises(ValueError, match="val_acc is logged as BinaryF1Score of torchmetrics"):
        model((torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64)))


class Manual(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Two(Net):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.layers[0], self.layers[2])]


class Groups(Net):
    def configure_optimizers(self) -> Any:
        groups = [{"params": self.layers[0].parameters(), "lr": 0.01}, {"params": self.layers[2].parameters()}]
        return {"optimizer": torch.optim.SGD(groups, lr=0.1)}


class Partly(Net):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.layers[2].parameters(), lr=0.1)], []


class Hooked(Net):
    def on_train_batch_end(self, *_: Any) -> None:
        self.layers[0].weight.data.clamp_(-1, 1)


class Epochs(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + self.current_epoch)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Manual, "Manual uses manual optimization"),
        (Two, "configure_optimizers of Two returns 2 optimizers"),
        (Groups, "configure_optimizers of Groups makes 2 parameter groups"),
        (Partly, r"configure_optimizers of Partly leaves out layers\.0\.weight"),
        (Hooked, r"Hooked overrides on_train_batch_end.*ignore_hooks=\('on_train_batch_end',\)"),
        (Epochs, r"training_step of Epochs uses self\.current_epoch"),
    ],
)
def test_what_needs_a_trainer_is_refused(module: type[Net], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"{reason}.*gradprix\.integrations\.lightning\.fit"):
        make_task(module, loaders())


class Counting(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (2 if batch_idx % 4 == 0 else 1)


class Helped(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * self.weight()

    def weight(self) -> int:
        return 1 + self.global_step


class Summed(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_acc", (self(batch[0]).argmax(-1) == batch[1]).float().sum(), reduce_fx="sum")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Counting, "training_step of Counting uses batch_idx"),
        (Helped, "training_step of Helped uses global_step of the Trainer"),
        (Summed, "val_acc is logged with reduce_fx=sum, and a task takes the mean over batches"),
    ],
)
def test_what_a_step_needs_of_a_trainer_is_refused(module: type[Net], reason: str) -> None:
    model, batch = make_task(module, loaders()).network(0), (torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=reason):
        [model.train(is_training)(batch) for is_training in (True, False)]


class Predicting(Net):
    """Module without `batch_idx` that returns its predictions, logs more than the metric, and asks for a logger."""

    def __init__(self) -> None:
        from torchmetrics.classification import MulticlassF1Score

        super().__init__()
        self.f1 = MulticlassF1Score(3)

    def training_step(self, batch: Any) -> Tensor:
        assert not self.find_logger()
        self.log("f1", self.f1)
        return super().training_step(batch, 0)

    def validation_step(self, batch: Any) -> Tensor:
        self.f1(self(batch[0]), batch[1])
        self.log("val_f1", self.f1)
        super().validation_step(batch, 0)
        return self(batch[0])

    def find_logger(self) -> Any:
        return self.logger


def test_steps_may_leave_out_the_index_return_predictions_and_log_more() -> None:
    model, plain = (make_task(module, loaders()).network(0) for module in (Predicting, Net))
    for x, y in loaders()[1]:
        for is_training in (True, False):
            ours, theirs = (each.train(is_training)((x, y)) for each in (model, plain))
            assert ours == theirs
    assert model.module._trainer is None


def test_other_mistakes_are_named() -> None:
    with pytest.raises(TypeError, match="every run needs new initial weights"):
        make_task(Net(), loaders())
    with pytest.raises(TypeError, match="returns a Linear, not a LightningModule"):
        make_task(lambda: nn.Linear(4, 3), loaders())
    with pytest.raises(TaskError, match="logs val_acc, val_loss, and not accuracy"):
        gp.race(make_task(Net, loaders(), metric="accuracy"), "adam,nesterov", trials=1, seeds=6)


@pytest.mark.parametrize("test", [None, "val_loss"])
def test_a_trainer_yields_each_epoch(test: str | None) -> None:
    net = Net()
    reports = list(
        gp.integrations.lightning.fit(
            pl.Trainer(max_epochs=3, **CPU),
            net,
            lambda params: torch.optim.SGD(params, lr=0.1),
            Points(),
            valid="val_acc",
            test=test,
        )
    )
    points = Points()
    points.setup("test")
    (tested,) = pl.Trainer(**CPU).test(net, points, verbose=False)

    assert [set(report) for report in reports] == [{"valid"}, {"valid"}, {"valid"} | ({"test"} if test else set())]
    assert test is None or reports[-1]["test"] == pytest.approx(tested["val_loss"])


@pytest.mark.parametrize(
    ("data", "test", "says"),
    [(loaders(), "val_acc", "needs a loader of test examples"), (Points(), "acc", "test_step logs val_acc, val_loss")],
)
def test_a_test_score_needs_test_examples_and_its_name(data: Any, test: str, says: str) -> None:
    trainer = pl.Trainer(max_epochs=1, **CPU)
    with pytest.raises(ValueError, match=f"test='{test}'.*{says}"):
        list(
            gp.integrations.lightning.fit(
                trainer, Net(), lambda params: torch.optim.SGD(params, lr=0.1), data, valid="val_acc", test=test
            )
        )


def test_a_trainer_ends_when_the_loop_does() -> None:
    trainer, net = pl.Trainer(max_epochs=1_000, **CPU), Net()
    fit = gp.integrations.lightning.fit
    reports = fit(trainer, net, lambda params: torch.optim.SGD(params, lr=0.1), loaders(), valid="val_acc")
    next(reports)
    reports.close()  # type: ignore[attr-defined]

    assert trainer.current_epoch == 1
    with pytest.raises(ValueError, match="valid='accuracy': Net logs train_loss, val_acc, val_loss"):
        list(fit(pl.Trainer(max_epochs=1, **CPU), Net(), None, loaders(), valid="accuracy"))
