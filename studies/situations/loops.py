"""Situations with training loops: rewards, recurrent state, trainers of other libraries."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import gradprix as gp

from .registry import situation, table
from .tables import mlp

Reports = Iterator[dict[str, float]]


def fit(make_optimizer: Callable[..., Any], scheduler: Callable[[Any], Any] | None = None, **groups: Any) -> Reports:
    """Train a network on `table` for three epochs, with a scheduler that is stepped after each batch."""
    x, y = table()
    model = mlp()
    optimizer = make_optimizer(model.parameters() if not groups else groups["params"](model))
    schedule = scheduler(optimizer) if scheduler is not None else None
    for _ in range(3):
        for index in torch.randperm(160).split(16):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        with torch.no_grad():
            yield {"valid": (model(x[160:]).argmax(1) == y[160:]).float().mean().item()}


@situation()
def template_loop() -> Any:
    """The file that `gradprix new loop.py --loop` writes."""
    from gradprix.tasks.templates.loop import train

    return train


@situation()
def one_cycle() -> Any:
    """A loop with OneCycleLR that follows the learning rate of the trial."""

    def train(make_optimizer: Any, seed: int) -> Reports:
        def scheduler(optimizer: Any) -> Any:
            return torch.optim.lr_scheduler.OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps=30)

        return fit(make_optimizer, scheduler)

    return train


@situation(is_mistake=True)
def one_cycle_fixed() -> Any:
    """A loop with OneCycleLR(max_lr=0.01), a mistake."""

    def train(make_optimizer: Any, seed: int) -> Reports:
        return fit(make_optimizer, lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, 30))

    return train


@situation()
def loop_groups() -> Any:
    """A loop with a learning rate per layer."""

    def train(make_optimizer: Any, seed: int) -> Reports:
        def groups(model: nn.Module) -> list[dict[str, Any]]:
            first, *rest = model
            return [
                {"params": list(first.parameters()), "lr_factor": 0.1},
                {"params": [x for layer in rest for x in layer.parameters()]},
            ]

        return fit(make_optimizer, params=groups)

    return train


@situation()
def reinforcement() -> Any:
    """Reinforcement learning: REINFORCE on a bandit with a context."""

    def train(make_optimizer: Any, seed: int) -> Reports:
        x, best = table()
        policy = mlp()
        optimizer = make_optimizer(policy.parameters())
        for _ in range(3):
            for index in torch.randperm(160).split(16):
                choice = torch.distributions.Categorical(logits=policy(x[index]))
                action = choice.sample()
                reward = (action == best[index]).float()
                optimizer.zero_grad()
                (-choice.log_prob(action) * (reward - reward.mean())).mean().backward()
                optimizer.step()
            yield {"valid": policy(x[160:]).argmax(1).eq(best[160:]).float().mean().item()}

    return train


@situation()
def carried_state() -> Any:
    """A recurrent network whose state is carried from batch to batch."""

    def train(make_optimizer: Any, seed: int) -> Reports:
        series = torch.sin(torch.arange(641) / 5.0)
        cell, head = nn.LSTM(1, 16, batch_first=True), nn.Linear(16, 1)
        optimizer = make_optimizer([*cell.parameters(), *head.parameters()])
        for _ in range(3):
            state = None
            for start in range(0, 640, 16):
                x, y = series[start : start + 16][None, :, None], series[start + 1 : start + 17][None, :, None]
                h, state = cell(x, state)
                state = tuple(s.detach() for s in state)
                loss = functional.mse_loss(head(h), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield {"valid": -loss.item()}

    return train


@situation()
def loop_options() -> Any:
    """A loop with accumulation, clipping, averaged weights and autocast."""

    def train(make_optimizer: Any, seed: int) -> Reports:
        x, y = table()
        model = mlp()
        optimizer = make_optimizer(model.named_parameters())
        averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
        for _ in range(3):
            for step, index in enumerate(torch.randperm(160).split(16)):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = functional.cross_entropy(model(x[index]), y[index]) / 2
                loss.backward()
                if step % 2:
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                    averaged.update_parameters(model)
            yield {"valid": (averaged(x[160:]).argmax(1) == y[160:]).float().mean().item()}

    return train


@situation("lightning")
def lightning_module() -> gp.Task:
    """A LightningModule as a task."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = mlp()

        def training_step(self, batch, batch_index):  # type: ignore[no-untyped-def]
            return functional.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch, batch_index):  # type: ignore[no-untyped-def]
            self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

    x, y = table()
    parts = [torch.utils.data.TensorDataset(x[part], y[part]) for part in (slice(160), slice(160, 200))]
    loaders = [torch.utils.data.DataLoader(part, batch_size=16) for part in parts]
    return gp.integrations.lightning.task(Module, loaders, metric="accuracy", baseline=0.25, epochs=2)


@situation("lightning")
def lightning_loop() -> Any:
    """A Trainer of Lightning in a loop."""

    def train(make_optimizer: Any, seed: int) -> dict[str, float]:
        import lightning

        x, y = table()

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = mlp()

            def training_step(self, batch, batch_index):  # type: ignore[no-untyped-def]
                return functional.cross_entropy(self.model(batch[0]), batch[1])

            def configure_optimizers(self):  # type: ignore[no-untyped-def]
                return make_optimizer(self.parameters())

        module = Module()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[:160], y[:160]), 16, shuffle=True)
        parts = "logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"
        lightning.Trainer(max_epochs=3, accelerator="cpu", **dict.fromkeys(parts, False)).fit(module, loader)
        return {"valid": (module.model(x[160:]).argmax(1) == y[160:]).float().mean().item()}

    return train


@situation("transformers", "accelerate")
def trainer_loop() -> Any:
    """A Trainer of Transformers in a loop."""

    def train(make_optimizer: Any, seed: int) -> dict[str, float]:
        import tempfile

        from transformers import Trainer, TrainingArguments

        from .language import bert, classes, sentences

        items = [{"input_ids": x, "labels": y} for x, y in zip(sentences(), classes(), strict=True)]
        model = bert()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(folder, num_train_epochs=1, use_cpu=True, report_to=[], save_strategy="no")
            optimizers = make_optimizer(model.parameters()), None
            trainer = Trainer(
                model, arguments, train_dataset=items[:96], eval_dataset=items[96:], optimizers=optimizers
            )
            trainer.train()
            return {"valid": -trainer.evaluate()["eval_loss"]}

    return train


@situation("accelerate")
def accelerate_loop() -> Any:
    """Accelerate in a loop."""

    def train(make_optimizer: Any, seed: int) -> Reports:
        from accelerate import Accelerator

        x, y = table()
        accelerator = Accelerator(cpu=True)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[:160], y[:160]), 16, shuffle=True)
        model = mlp()
        model, optimizer, loader = accelerator.prepare(model, make_optimizer(model.parameters()), loader)
        for _ in range(3):
            for inputs, targets in loader:
                optimizer.zero_grad()
                accelerator.backward(functional.cross_entropy(model(inputs), targets))
                optimizer.step()
            yield {"valid": (model(x[160:]).argmax(1) == y[160:]).float().mean().item()}

    return train


@situation("skorch")
def skorch_loop() -> Any:
    """Skorch in a loop."""

    def train(make_optimizer: Any, seed: int) -> dict[str, float]:
        from skorch import NeuralNetClassifier

        x, y = table()
        net = NeuralNetClassifier(
            mlp(),
            criterion=nn.CrossEntropyLoss,
            optimizer=lambda params, lr: make_optimizer(params),
            max_epochs=3,
            batch_size=16,
            train_split=None,
            verbose=0,
        )
        net.fit(x[:160], y[:160])
        return {"valid": float((net.predict(x[160:]) == y[160:].numpy()).mean())}

    return train
