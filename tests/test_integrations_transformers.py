"""Models of transformers train with their own loss, and are scored over all tokens."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradprix as gp

transformers = pytest.importorskip("transformers", reason="scripts/test --integrations has transformers")
pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
task_of = gp.integrations.transformers.task


def ids(count: int = 40, length: int = 6, vocabulary: int = 20) -> Tensor:
    return torch.randint(1, vocabulary, (count, length), generator=torch.Generator().manual_seed(0))


def bert(kind: str, **given: Any) -> Any:
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.BertConfig(vocab_size=20, **no_dropout, **SMALL, **given)
    return getattr(transformers, f"BertFor{kind}")(config)


def llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=20, bos_token_id=0, eos_token_id=0, **SMALL)
    )


def evaluated(task: gp.Task, batches: int = 3) -> tuple[float, nn.Module]:
    """Return the metric over all examples, of outputs from several batches, and the model."""
    from gradprix.training.outputs import Output, combine

    model, data = task.network(0).eval(), task.loaded
    parts = torch.arange(len(data)).tensor_split(batches)
    with torch.no_grad():
        outputs = [Output.from_value(model(**{k: v[part] for k, v in data.inputs.items()})) for part in parts]
    whole = combine(outputs, [len(part) for part in parts]).whole
    return float(task.metric.score(whole, data.targets)), model.model


def test_a_model_trains_with_its_own_loss() -> None:
    data = {"input_ids": ids(), "labels": ids()[:, 0] % 2}
    task = task_of(lambda: bert("SequenceClassification"), data)
    ours, plain = task.network(0).train(), task.network(0).model.train()
    task.loss(ours(**data), data["labels"]).backward()
    plain(**data).loss.backward()

    for mine, other in zip(ours.model.parameters(), plain.parameters(), strict=True):
        assert mine.grad is None or torch.equal(mine.grad, other.grad)
    assert (task.name, task.batch_size, task.epochs, task.schedule) == ("bert", 8, 3, "linear")


def test_the_perplexity_is_that_of_all_tokens() -> None:
    lengths = torch.arange(40)[:, None] % 5 + 2
    mask = (torch.arange(6) < lengths).long()
    task = task_of(llama, {"input_ids": ids(), "attention_mask": mask})
    labels = ids().masked_fill(mask == 0, -100)
    score, model = evaluated(task)
    with torch.no_grad():
        loss = model(input_ids=ids(), attention_mask=mask, labels=labels).loss

    assert torch.equal(task.loaded.targets, labels)
    assert score == pytest.approx(math.exp(loss), rel=1e-5)
    _, counts = torch.unique(labels[:, 1:][labels[:, 1:] != -100], return_counts=True)
    shares = counts / counts.sum()
    assert task.baseline == pytest.approx(math.exp(-float((shares * shares.log()).sum())))


@pytest.mark.parametrize("kind", ["MaskedLM", "TokenClassification"])
def test_a_score_counts_the_tokens_that_have_a_label(kind: str) -> None:
    given = {"num_labels": 20} if kind == "TokenClassification" else {}
    labels = ids().masked_fill(ids() % 3 > 0, -100)
    task = task_of(lambda: bert(kind, **given), {"input_ids": ids(), "labels": labels})
    score, model = evaluated(task)
    with torch.no_grad():
        logits, counted = model(input_ids=ids()).logits, labels != -100
    if kind == "MaskedLM":
        expected = nn.functional.cross_entropy(logits[counted], labels[counted]).exp()
    else:
        expected = (logits.argmax(-1) == labels)[counted].float().mean()

    assert score == pytest.approx(float(expected), rel=1e-5)


def test_classification_and_regression_have_scores_and_chance_levels() -> None:
    classes, values = (ids()[:, 0] > 15).long(), ids()[:, 0] / 20
    task = task_of(lambda: bert("SequenceClassification"), {"input_ids": ids(), "labels": classes})
    score, model = evaluated(task)
    with torch.no_grad():
        assert score == pytest.approx(float((model(input_ids=ids()).logits.argmax(-1) == classes).float().mean()))
    assert task.baseline == pytest.approx(max(float((classes == 0).float().mean()), float(classes.float().mean())))

    task = task_of(lambda: bert("SequenceClassification", num_labels=1), {"input_ids": ids(), "labels": values})
    score, model = evaluated(task)
    with torch.no_grad():
        assert score == pytest.approx(float((model(input_ids=ids()).logits[:, 0] - values).square().mean()))
    assert task.baseline == pytest.approx(float(values.var(correction=0)))


def test_a_dataset_of_items_gives_the_same_examples() -> None:
    labels = ids()[:, 0] % 2
    items = [{"input_ids": x.tolist(), "label": int(y), "text": "ignored"} for x, y in zip(ids(), labels, strict=True)]
    one = task_of(lambda: bert("SequenceClassification"), items[:30], items[30:])
    other = task_of(
        lambda: bert("SequenceClassification"),
        {"input_ids": ids()[:30], "labels": labels[:30]},
        lambda: {"input_ids": ids()[30:], "labels": labels[30:]},
    )

    for task in (one, other):
        assert torch.equal(task.loaded.inputs["input_ids"], ids())
        assert torch.equal(task.loaded.inputs["labels"], labels)
        assert torch.equal(task.loaded.targets, labels)
        assert task.loaded.test.tolist() == list(range(30, 40))


def test_a_collator_pads_each_batch() -> None:
    def pad(items: list[dict[str, Any]]) -> dict[str, Tensor]:
        words = nn.utils.rnn.pad_sequence([x["input_ids"] for x in items], batch_first=True)
        return {"input_ids": words, "labels": torch.tensor([x["labels"] for x in items])}

    items = [{"input_ids": x[: 2 + i % 5], "label": int(x[0]) % 2} for i, x in enumerate(ids())]
    task = task_of(lambda: bert("SequenceClassification"), items, collate_fn=pad, baseline=0.5)
    inputs, targets = task.loaded.take(torch.tensor([[0, 1, 2]]))

    assert inputs["input_ids"].shape == (1, 3, 4)
    assert torch.equal(inputs["labels"], targets)
    assert targets.tolist() == [[item["label"] for item in items[:3]]]


def test_a_metric_of_your_own_gets_the_whole_output() -> None:
    metric = gp.Metric(
        "confidence", lambda out, y: out["logits"].softmax(-1).amax(), higher_is_better=True, margin=0.01
    )
    data = {"input_ids": ids(), "labels": ids()[:, 0] % 2}
    task = task_of(lambda: bert("SequenceClassification"), data, metric=metric, baseline=0.5)

    assert 0.5 <= evaluated(task)[0] <= 1
    with pytest.raises(ValueError, match="needs a baseline"):
        task_of(lambda: bert("SequenceClassification"), data, metric=metric)


def test_mistakes_are_named() -> None:
    data = {"input_ids": ids(), "labels": ids()}
    with pytest.raises(TypeError, match="every run needs new initial weights"):
        task_of(bert("MaskedLM"), data)
    with pytest.raises(TypeError, match="returns a Linear, not a PreTrainedModel"):
        task_of(lambda: nn.Linear(2, 2), data)
    with pytest.raises(ValueError, match="no default metric for BertForQuestionAnswering"):
        task_of(lambda: bert("QuestionAnswering"), data)
    with pytest.raises(TypeError, match="the data is a DataLoader: give its dataset"):
        task_of(lambda: bert("MaskedLM"), torch.utils.data.DataLoader([data]))
    with pytest.raises(ValueError, match="test examples of a gradprix.Data belong to it"):
        task_of(lambda: bert("MaskedLM"), gp.Data(data, data["labels"]), data)
    with pytest.raises(ValueError, match="the examples have input_ids, and no labels"):
        task_of(lambda: bert("MaskedLM"), {"input_ids": ids()})


@pytest.fixture
def trainer(tmp_path: Any) -> Any:
    items = [{"input_ids": x, "labels": x[0] % 2} for x in ids()]
    settings = {"eval_strategy": "epoch", "save_strategy": "no", "report_to": "none", "logging_strategy": "no"}
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=50, use_cpu=True, disable_tqdm=True, **settings
    )
    model = bert("SequenceClassification")
    optimizers = (torch.optim.SGD(model.parameters(), lr=0.1), None)
    return transformers.Trainer(
        model, arguments, train_dataset=items[:24], eval_dataset=items[24:], optimizers=optimizers
    )


def test_a_trainer_yields_each_evaluation(trainer: Any) -> None:
    trainer.args.num_train_epochs = 2
    reports = list(gp.integrations.transformers.train(trainer, test="test_loss", test_dataset=trainer.eval_dataset[:8]))

    evaluations = [each["eval_loss"] for each in trainer.state.log_history if "eval_loss" in each]
    assert [report["valid"] for report in reports] == evaluations
    assert reports[-1]["test"] == trainer.evaluate(trainer.eval_dataset[:8])["eval_loss"]


def test_a_trainer_ends_when_the_loop_does(trainer: Any) -> None:
    reports = gp.integrations.transformers.train(trainer)
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    assert trainer.state.epoch == 1

    with pytest.raises(ValueError, match="valid='eval_accuracy': the trainer evaluates .*eval_loss"):
        list(gp.integrations.transformers.train(trainer, valid="eval_accuracy"))


def test_a_test_score_needs_test_examples(trainer: Any) -> None:
    with pytest.raises(ValueError, match="test='test_loss' needs test_dataset"):
        gp.integrations.transformers.train(trainer, test="test_loss")
