"""Tasks of language: characters of Shakespeare, sentences of reviews, English into French."""

import contextlib
import math
import shutil
import sqlite3
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradprix as gp
from gradprix.race import ENTRIES
from gradprix.tasks import Task
from gradprix.tasks.archive_reader import read_nested
from gradprix.tasks.archives import DataError, archive
from gradprix.tasks.builtin import charlm, sentiment, translate
from gradprix.tasks.builtin.text import BOS, EOS, PAD, UNK, Vocabulary, chrf, tokenize
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.tasks.task import TaskError
from gradprix.training import ModelStack, evaluate
from gradprix.training.artifacts import encode_artifacts
from gradprix.training.runtime_settings import runtime_settings
from gradprix.training.trial import Trial

TASKS: dict[str, tuple[Any, str]] = {
    "charlm": (charlm, "shakespeare"),
    "sentiment": (sentiment, "reviews"),
    "translate": (translate, "phrases"),
}
BEATS = {"charlm": 0.4, "sentiment": 0.1, "translate": 0.5}
"""By how much the best of a race in seconds must be better than the best constant answer."""


def fetched(name: str) -> Path:
    try:
        return archive(TASKS[name][1]).fetch()
    except DataError as error:
        pytest.skip(str(error))


def made(name: str, preset: str = "small", path: Path | None = None) -> Task:
    fetched(name)
    task: Task = TASKS[name][0].make_task(preset, path)
    return task


def rows(x: Tensor) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in x.tolist()]


# The data


def test_shakespeare_is_whole_and_alone() -> None:
    fetched("charlm")
    learnt, tested = charlm.load_texts(None)

    assert len(learnt) + len(tested) == 5_057_198 + 42
    assert sum(text.count("by William Shakespeare") for text in (learnt, tested)) == 42
    assert "milton" not in (learnt + tested).lower()
    assert tested.count("by William Shakespeare") == 4
    for line, text in (
        ("To be, or not to be,--that is the question", learnt),
        ("Is this a dagger which I see", tested),
    ):
        assert (line in learnt, line in tested) == (text is learnt, text is tested)


def test_windows_are_the_text_cut_to_pieces() -> None:
    fetched("charlm")
    data, (learnt, _) = charlm.load_data(None, charlm.ALPHABET, 80_000), charlm.load_texts(None)
    some = "".join(charlm.ALPHABET[i] for i in data.inputs[:100].flatten().tolist())

    assert some == "".join(each for each in learnt if each in charlm.ALPHABET)[: len(some)]
    assert torch.equal(data.inputs[1:, 0][:1000], data.targets[:-1, -1][:1000])
    assert torch.equal(data.inputs[:, 1:], data.targets[:, :-1])
    assert list(charlm.ALPHABET) == sorted(charlm.ALPHABET)
    assert len(charlm.encode(learnt, charlm.ALPHABET)) > 0.9999 * len(learnt)


def test_sentences_have_clear_ratings_and_occur_once() -> None:
    fetched("sentiment")
    texts, tokens, ratings = sentiment.load_sentences(None, 1)

    assert len(texts) == len(tokens) == len(set(rows(tokens)))
    assert 10_000 < len(texts) <= 10_041
    assert ratings.abs().min() > 0.5
    assert ratings.abs().max() <= 4
    assert float((ratings > 0).double().mean()) == pytest.approx(0.496, abs=0.001)
    assert sentiment.sentiment.baseline == pytest.approx(float((ratings < 0).double().mean()), abs=0.001)
    assert tokens.max() < sentiment.VOCABULARY_SIZE
    assert (tokens[:, 0] != PAD).all()
    assert ratings[[text.startswith("The Rock is destined") for text in texts].index(True)] == pytest.approx(
        2.2667, 1e-3
    )


def test_phrases_are_pairs_and_no_source_occurs_twice() -> None:
    fetched("translate")
    pairs, sources, targets, vocabulary = translate.load_corpus("phrases", None, 1_024, 16)

    assert 2_600 < len(pairs) == len(sources) == len(set(rows(sources)))
    assert ("Interrupt Kernel", "Interrompre le noyau") in pairs
    at = pairs.index(("Interrupt Kernel", "Interrompre le noyau"))
    assert targets[at, 0] == BOS
    assert targets[at, 4] == EOS
    assert vocabulary.decode(targets[at, 1:].tolist()) == "interrompre le noyau"
    assert (targets == UNK).double().sum() / (targets != PAD).double().sum() < 0.06
    assert max(int(sources.max()), int(targets.max())) < 1_024


@pytest.mark.parametrize("name", TASKS)
def test_no_test_example_is_learnt_from(name: str) -> None:
    data = made(name, "default").loaded
    for seed in range(2):
        split = data.split(seed)
        inputs = data.inputs[0] if isinstance(data.inputs, tuple) else data.inputs
        parts = [set(rows(inputs[part])) for part in (split.train, split.valid, split.test)]
        shared = parts[2] & (parts[0] | parts[1])
        # Windows of other plays may be alike by chance, though none is.
        assert not shared


def entropy(numbers: Tensor) -> float:
    counts = numbers.flatten().bincount().double()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log2()).sum())


@pytest.mark.parametrize("preset", ["small", "default"])
def test_the_baseline_is_the_best_constant_answer(preset: str) -> None:
    lm, mt = made("charlm", preset), made("translate", preset)
    windows = lm.loaded.targets[lm.loaded.split(0).test]
    tokens = mt.loaded.targets

    assert lm.baseline == pytest.approx(entropy(windows), abs=0.01)
    assert mt.baseline == pytest.approx(entropy(tokens[tokens != PAD]), abs=0.01)


# The networks


def test_a_character_sees_what_came_before_alone() -> None:
    torch.manual_seed(0)
    network = charlm.GPT(20, 32, 2, 2)
    text = torch.randint(20, (3, charlm.CONTEXT))
    other = text.clone()
    other[:, 30] = (other[:, 30] + 1) % 20
    before, after = network(text), network(other)

    torch.testing.assert_close(after[:, :30], before[:, :30])
    assert not torch.isclose(after[:, 30:], before[:, 30:]).all(-1).any()
    torch.testing.assert_close(network(text[:, :9]), before[:, :9])


def test_a_target_is_told_from_the_source_and_the_tokens_before_it_alone() -> None:
    torch.manual_seed(0)
    network = translate.Translator(20, 8, 32, 2, 2)
    source, target = torch.randint(4, 20, (3, 8)), torch.randint(4, 20, (3, 9))
    likely = network(source, target)
    scores = network.logits(source, target[:, :-1])
    other, elsewhere = target.clone(), source.clone()
    other[:, 5] = 3
    elsewhere[:, 7] = 3

    for place in range(8):
        wanted = torch.nn.functional.cross_entropy(scores[:, place], target[:, place + 1], reduction="none")
        torch.testing.assert_close(likely[:, place], -wanted)
    torch.testing.assert_close(network(source, other)[:, :4], likely[:, :4])
    assert not torch.isclose(network(source, other)[:, 4:], likely[:, 4:]).any()
    assert not torch.isclose(network(elsewhere, target), likely).any()


def test_padding_is_not_seen() -> None:
    torch.manual_seed(0)
    reader, translator = sentiment.TransformerClassifier(32, 2, 2), translate.Translator(20, 8, 32, 2, 2)
    tokens = torch.randint(4, 20, (3, 8))
    padded = torch.cat([tokens[:, :5], torch.full((3, 3), PAD)], 1)

    torch.testing.assert_close(reader(padded), reader(tokens[:, :5]))
    torch.testing.assert_close(translator(padded, tokens), translator(tokens[:, :5], tokens))


def test_losses_leave_padding_out_and_metrics_are_their_bits() -> None:
    likely = torch.tensor([[-1.0, -2.0, -50.0], [-3.0, -50.0, -50.0]])
    targets = torch.tensor([[7, EOS, PAD], [EOS, PAD, PAD]])

    assert translate.cross_entropy(likely, targets) == 2
    assert translate.bits_per_token(likely, targets) == pytest.approx(2 / math.log(2))
    even = torch.zeros(2, 5, 64)
    assert charlm.bits_per_character(even, torch.zeros(2, 5).long()) == pytest.approx(6)
    scores = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    assert sentiment.sign_accuracy(scores, torch.tensor([-2.0, 0.6, -3.0])) == pytest.approx(2 / 3)


class Double:
    def __init__(self, model: Callable[[], nn.Module]) -> None:
        self.model = model

    def __call__(self) -> nn.Module:
        return self.model().double()


@pytest.mark.parametrize("name", TASKS)
def test_ten_steps_are_those_of_a_plain_loop(name: str) -> None:
    task = made(name)
    task = task.change(model=Double(task.model))
    entry, data = ENTRIES["adam"], task.loaded
    trials = [Trial(entry.rule, entry.values(lr), seed, 16, 1, "cosine", True) for lr, seed in ((1e-3, 1), (5e-3, 2))]
    stack = ModelStack(task, trials)
    with runtime_settings():
        for batch in islice(stack.data.shuffled_batches(16), 10):
            stack.step(batch, 1.0)
        losses, metrics = evaluate(stack, stack.data.test[:, :70])

    for row, trial in enumerate(trials):
        model, split = init_model(task.model, trial.seed), data.split(trial.seed)
        index = split.train[torch.randperm(len(split.train), generator=stream(trial.seed, "order"))]
        optimizer = torch.optim.Adam(model.parameters(), lr=trial.values["lr"])
        for at in index.split(16)[:10]:
            inputs, targets = data.take(at)
            outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
            loss = task.loss(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        inputs, targets = data.take(split.test[:70])
        with torch.no_grad():
            outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        assert losses[row] == pytest.approx(float(task.loss(outputs, targets)), rel=1e-9)
        assert metrics[row] == pytest.approx(float(task.metric.score(outputs, targets)), rel=1e-9)


# A race


LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("charlm", "translate")]


@pytest.mark.parametrize("name", ["sentiment", *LONG])
def test_a_race_in_seconds_is_stacked_and_beats_the_trivial_answer(name: str) -> None:
    task = made(name)
    result = gp.race(task, "adamw,nesterov", trials=2, seeds=6)
    means = [entry.final.mean for entry in result.record.entries]
    gain = max(means) - task.baseline if task.metric.higher_is_better else task.baseline - min(means)

    assert result.record.plan.mode.stacked
    assert gain > BEATS[name]


def test_what_charlm_writes() -> None:
    task = made("charlm")
    data = task.loaded
    inputs, targets = data.take(data.split(0).test)
    texts = []
    for seed in (1, 1, 2):
        with runtime_settings(), RngState(stream(seed, "after")), torch.no_grad():
            texts.append(
                encode_artifacts(task.after(init_model(task.model, 0), inputs, targets))["texts"]["continuations"]
            )

    assert texts[0] == texts[1] != texts[2]
    assert list(texts[0]) == list(charlm.PROMPTS)
    assert {len(text) for text in texts[0].values()} == {charlm.SAMPLE_LENGTH}


def test_what_sentiment_finds() -> None:
    task = made("sentiment")
    data = task.loaded
    inputs, targets = data.take(data.split(0).test)

    class Knows(nn.Module):
        """Says what people said of the hard ones, and the opposite of the others."""

        def forward(self, tokens: Tensor) -> Tensor:
            right = torch.where(targets.abs() <= 1.5, targets, -targets)[: len(tokens)]
            return torch.stack([-right, right], 1)

    found = task.after(Knows(), inputs, targets)
    assert [float(found[name]) for name in found if name != "sentences"] == [1, 0]
    texts, tokens, ratings = sentiment.load_sentences(None, 5)
    assert len(found["sentences"]) == 4
    for i, (text, answer) in enumerate(found["sentences"].items()):
        at = texts.index(text)
        assert torch.equal(tokens[at], inputs[i])
        assert ratings[at] == targets[i]
        assert answer.startswith("positive" if (targets[i] > 0) == (targets[i].abs() <= 1.5) else "negative")
        assert 50 <= int(answer.split()[-1].rstrip("%")) <= 100


def test_what_translate_makes() -> None:
    task = made("translate")
    data = task.loaded
    inputs, targets = data.take(data.split(0).test)

    class Knows(nn.Module):
        """Writes the reference, but for the third text, of which it writes nothing."""

        def logits(self, source: Tensor, made: Tensor) -> Tensor:
            wanted = targets[: len(source), : made.shape[1]].clone()
            wanted[2] = EOS
            return torch.nn.functional.one_hot(wanted, 512).float()

    found = encode_artifacts(task.after(Knows(), inputs, targets))
    ((name, value),) = found["numbers"].items()
    assert name == "chrF of 50 translations"
    assert 0.75 < value < 1
    shown = list(found["texts"]["translations"].items())
    assert len(shown) == 5
    for i, (source, text) in enumerate(shown):
        reference = source.split(" → ")[1]
        assert text == ("" if i == 2 else text)
        if UNK not in targets[i] and i != 2:
            assert tokenize(text) == tokenize(reference)
    untrained = encode_artifacts(task.after(init_model(task.model, 0), inputs, targets))
    assert 0 <= untrained["numbers"][name] < 0.3


# Words


def test_texts_become_numbers_and_texts_again() -> None:
    texts = [tokenize("L’État, c'est moi (%1) !"), tokenize("moi, moi ! {name}")]

    assert texts == [["l'", "état", ",", "c'", "est", "moi", "(", "%1", ")", "!"], ["moi", ",", "moi", "!", "{name}"]]
    vocabulary = Vocabulary(texts, 6)
    assert vocabulary.words[4:] == ("moi", "!")
    assert vocabulary.encode(texts, 4, add_bos_eos=True).tolist() == [
        [BOS, UNK, UNK, UNK, UNK, EOS],
        [BOS, 4, UNK, 4, 5, EOS],
    ]
    whole = Vocabulary(texts, 100, min_count=1)
    assert whole.encode(texts, 12)[1].tolist()[5:] == [PAD] * 7
    assert whole.decode(whole.encode(texts, 12, add_bos_eos=True)[0, 1:].tolist()) == "l'état, c'est moi (%1) !"
    assert vocabulary.decode([4, UNK, EOS, 5]) == "moi ⁇"


@pytest.mark.parametrize(
    ("made", "wanted", "score"),
    [  # sacrebleu 2.6.0: CHRF().corpus_score(made, [wanted]).score
        (["le chat est sur la table"], ["le chat est sous la table"], 68.91128365839705),
        (["ouvrir le fichier", "fermer"], ["ouvrir un fichier", "fermer la fenêtre"], 47.33630347367555),
        (["ab", "", "le noyau"], ["abcdefg", "rien", "noyau"], 36.3025547059871),
        (["abc"], ["abd"], 38.888888888888886),
        (["abc"], ["xyz"], 0.0),
        ([""], ["abc"], 0.0),
        (["même texte"], ["même  texte"], 100.0),
    ],
)
def test_chrf_is_that_of_sacrebleu(made: list[str], wanted: list[str], score: float) -> None:
    assert 100 * chrf(made, wanted) == pytest.approx(score, abs=1e-9)


# A copy of one's own


@pytest.mark.parametrize("name", TASKS)
def test_a_copy_of_the_archive_is_the_same_task(name: str, tmp_path: Path) -> None:
    copy = Path(shutil.copy(fetched(name), tmp_path))
    for one, other in zip((made(name).loaded.inputs,), (made(name, path=copy).loaded.inputs,), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_copy_of_a_file_in_it_will_do(tmp_path: Path) -> None:
    fetched("sentiment")
    inner = archive("reviews").read(sentiment.ARCHIVE)
    (tmp_path / "hutto.tar.gz").write_bytes(inner)
    (tmp_path / "reviews.txt").write_bytes(read_nested(inner, sentiment.FILE))
    for file in ("hutto.tar.gz", "reviews.txt"):
        task = made("sentiment", path=tmp_path / file)
        assert torch.equal(task.loaded.inputs, made("sentiment").loaded.inputs)

    fetched("translate")
    with archive("phrases").files() as files:
        (file,) = (each for each in files.names if each.endswith("/jupyterlab_git.mo"))
        (tmp_path / "git.mo").write_bytes(files.read(file))
    assert 100 < len(made("translate", path=tmp_path / "git.mo").loaded) < 528


def test_charlm_reads_a_text_of_ones_own(tmp_path: Path) -> None:
    text = tmp_path / "faust.txt"
    text.write_text("Habe nun, ach! Philosophie, Juristerei und Medizin, Und leider auch Theologie! Größe.\n" * 900)
    task = charlm.make_task("small", text)
    data = task.loaded

    assert len(data.split(0).test) * 8 < len(data) < len(data.split(0).test) * 12
    assert int(data.inputs.max()) < task.model().out.out_features < 40
    assert task.baseline == pytest.approx(entropy(data.targets[data.split(0).test]), abs=0.1)
    written = task.after(init_model(task.model, 0), *data.take(data.split(0).test))["continuations"]
    assert {len(made) for made in written.values()} == {charlm.SAMPLE_LENGTH}


@pytest.mark.parametrize("name", TASKS)
def test_nonsense_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "nonsense.bin").write_bytes(bytes(range(256)))
    (tmp_path / "broken.tar.gz").write_bytes(b"\x1f\x8b" + bytes(50))
    for file in ("nonsense.bin", "broken.tar.gz", "nowhere"):
        with pytest.raises((TaskError, DataError)) as caught:
            made(name, path=tmp_path / file).loaded  # noqa: B018
        assert "\n" not in str(caught.value)
        assert file in str(caught.value)


def test_verses_are_paired_and_cleaned(tmp_path: Path) -> None:
    copy = tmp_path / "bible.db"
    texts = {"4": "`Wake up, [man] {}!`", "l": "(44:{}) Réveille-toi, homme {}!", "k": "Awake, thou man {}!"}
    with contextlib.closing(sqlite3.connect(copy)) as database:
        database.execute("CREATE TABLE bible (id, bbName, bNumber, cNumber, vNumber, vText)")
        for verse in range(30):
            for key, text in texts.items():
                content = text.replace("{}", str(verse)) if verse else " ".join([text] * 9)
                database.execute("INSERT INTO bible VALUES (?, ?, 1, 1, ?, ?)", (verse, key, verse, content))
        database.commit()
    pairs, task = translate.load_verses(copy), translate.make_task("large", copy)

    assert len(pairs) == 30
    assert pairs[7] == ("'Wake up, man 7!'", "Réveille-toi, homme 7!")
    # All but the first, which is too long; without the rare numbers they would be one and the same.
    with pytest.raises(TaskError, match="there are 1 examples"):
        task.loaded  # noqa: B018
