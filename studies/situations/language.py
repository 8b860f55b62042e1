"""Situations with language models and text."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp

from .registry import ACCURACY, Classes, integers, situation

VOCABULARY, LENGTH = 60, 12
OWN_LOSS = gp.Metric("loss", lambda output, target: output.loss, higher_is_better=False, margin=0.02, relative=True)


def sentences(examples: int = 128) -> Tensor:
    """Return random tokens, `[examples, LENGTH]`."""
    return integers(VOCABULARY, examples, LENGTH)


def bert() -> nn.Module:
    """Return a BERT classifier of Transformers with random weights."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        num_labels=4,
    )
    return BertForSequenceClassification(config)


def with_mask(**more: Any) -> dict[str, Tensor]:
    """Return the inputs of a model of Transformers, with padding in the second half of some sentences."""
    tokens = sentences()
    mask = torch.ones_like(tokens)
    mask[::2, LENGTH // 2 :] = 0
    return {"input_ids": tokens, "attention_mask": mask, **more}


def classes() -> Tensor:
    """Return a class for each sentence, which depends on its first token."""
    return sentences()[:, 0] % 4


@situation("transformers")
def bert_classifier() -> gp.Task:
    """BERT of Transformers, loss computed outside the model."""
    return Classes(
        name="bert",
        model=bert,
        loss=lambda output, target: functional.cross_entropy(output.logits, target),
        metric=gp.Metric("accuracy", lambda o, t: (o.logits.argmax(-1) == t).double().mean(), True, 0.01),
        data=lambda: gp.Data(with_mask(), classes()),
    )


@situation("transformers")
def bert_own_loss() -> gp.Task:
    """BERT of Transformers with its own loss: labels among the inputs."""
    return Classes(
        name="bert-own-loss",
        model=bert,
        loss=lambda output, target: output.loss,
        metric=OWN_LOSS,
        baseline=1.5,
        data=lambda: gp.Data(with_mask(labels=classes()), classes()),
    )


def causal(name: str, model: Any) -> gp.Task:
    """Return the task of a causal language model of Transformers, with its own loss."""
    return Classes(
        name=name,
        model=model,
        loss=lambda output, target: output.loss,
        metric=OWN_LOSS,
        baseline=5.0,
        data=lambda: gp.Data({"input_ids": sentences(), "labels": sentences()}, sentences()),
    )


def gpt2_model(**more: Any) -> nn.Module:
    """Return GPT-2 of Transformers with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LENGTH,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        **more,
    )
    return GPT2LMHeadModel(config)


@situation("transformers")
def gpt2() -> gp.Task:
    """GPT-2 of Transformers at its defaults, own loss, cache on."""
    return causal("gpt2", gpt2_model)


@situation("transformers")
def gpt2_without_cache() -> gp.Task:
    """GPT-2 of Transformers without a cache."""
    return causal("gpt2-no-cache", lambda: gpt2_model(use_cache=False))


@situation("transformers")
def gpt2_checkpointing() -> gp.Task:
    """GPT-2 of Transformers with activation checkpointing."""

    def model() -> nn.Module:
        network = gpt2_model(use_cache=False)
        network.gradient_checkpointing_enable()
        return network

    return causal("gpt2-checkpointing", model)


@situation("transformers")
def llama() -> gp.Task:
    """Llama of Transformers at its defaults, own loss."""

    def model() -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
        )
        return LlamaForCausalLM(config)

    return causal("llama", model)


@situation("transformers", "peft")
def lora() -> gp.Task:
    """LoRA of PEFT on BERT."""

    def model() -> nn.Module:
        from peft import LoraConfig, get_peft_model

        return get_peft_model(bert(), LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"]))

    task = bert_classifier()
    return task.change(name="lora", model=model)


class Tagger(nn.Module):
    """LSTM that classifies sequences of different lengths.

    Args:
        packs: pack the sequences, which are padded, by their lengths.
    """

    def __init__(self, packs: bool = False) -> None:
        super().__init__()
        self.packs = packs
        self.embedding, self.lstm = nn.Embedding(VOCABULARY, 16), nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.packs:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            x, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=LENGTH)
        else:
            x, _ = self.lstm(x)
        last = (lengths - 1)[:, None, None].expand(-1, 1, x.shape[-1])
        return self.head(x.gather(1, last).squeeze(1))


@situation()
def packed_sequences() -> gp.Task:
    """Packed sequences, with their lengths as inputs."""
    lengths = integers(LENGTH - 1, 128, seed=3) + 1
    return Classes(
        name="packed", model=lambda: Tagger(packs=True), data=lambda: gp.Data((sentences(), lengths), classes())
    )


class Ragged(torch.utils.data.Dataset[Any]):
    """Sentences of different lengths."""

    def __len__(self) -> int:
        return 128

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        tokens = sentences()[i][: 3 + i % (LENGTH - 3)]
        return tokens, int(tokens[0]) % 4


def pad(items: list[tuple[Tensor, int]]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Pad the sentences of a batch to the longest."""
    tokens = nn.utils.rnn.pad_sequence([item[0] for item in items], batch_first=True)
    return (tokens, torch.tensor([len(item[0]) for item in items])), torch.tensor([item[1] for item in items])


@situation()
def collated() -> gp.Task:
    """Sentences of different lengths, padded by a collate_fn."""
    return Classes(name="collated", model=Tagger, data=lambda: gp.Data.from_dataset(Ragged(), collate_fn=pad))


@situation()
def loader_collated() -> gp.Task:
    """A DataLoader with a collate_fn."""
    loader = torch.utils.data.DataLoader(Ragged(), batch_size=16, shuffle=True, collate_fn=pad)
    return Classes(name="loader-collated", model=Tagger, data=lambda: gp.Data.from_loader(loader))


@situation("datasets")
def huggingface_dataset() -> gp.Task:
    """A dataset of Hugging Face, with_format('torch')."""

    def data() -> gp.Data:
        import datasets

        columns = {"tokens": sentences().tolist(), "label": classes().tolist()}
        return gp.Data.from_dataset(datasets.Dataset.from_dict(columns).with_format("torch"), targets="label")

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(VOCABULARY, 16), nn.Linear(16, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embedding(tokens).mean(1))

    return Classes(name="hf-dataset", model=Bag, metric=ACCURACY, data=data)
