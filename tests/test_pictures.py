"""The tasks of images: segmentation, flow matching and the variational autoencoder."""

import gzip
import itertools
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.utils._pytree import tree_map

from gradprix import race
from gradprix.race import ENTRIES
from gradprix.tasks import Data, DataError, Task
from gradprix.tasks.archives import archive
from gradprix.tasks.builtin import generate, mnist, segment
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.tasks.task import called_with
from gradprix.training import ModelStack, evaluate
from gradprix.training.runtime_settings import runtime_settings
from gradprix.training.trial import Trial

MAKERS = {"segment": segment.make_task, "generate": generate.make_flow, "generate-vae": generate.make_vae}
OF = {"segment": "earth", "generate": "mnist", "generate-vae": "mnist"}
STEPS = 10


@pytest.fixture(scope="module")
def here() -> Callable[[str], Path]:
    """Where an archive is, or a reason to skip."""

    def path(name: str) -> Path:
        try:
            return archive(name).fetch()
        except DataError as error:
            pytest.skip(str(error))

    return path


@pytest.fixture(params=MAKERS)
def small(request: pytest.FixtureRequest, here: Callable[[str], Path]) -> Task:
    here(OF[request.param])
    return MAKERS[request.param]("small")


# Training


def plain(of: Task, t: Trial) -> tuple[dict[str, Tensor], float, float]:
    """Weights, and loss and metric on test examples, after some steps of a plain loop under the trial's seed."""
    data, cut = of.loaded, of.loaded.split(t.seed)
    model, order = init_model(of.model, t.seed), stream(t.seed, "order")
    index = cut.train[torch.randperm(len(cut.train), generator=order)]
    optimizer = torch.optim.SGD(model.parameters(), lr=t.values["lr"], momentum=0.9)

    def output(at: Tensor) -> tuple[Any, Any]:
        inputs, targets = (tree_map(lambda x: x[at], part) for part in (data.inputs, data.targets))
        return model(*called_with(inputs)[0]), targets

    with RngState(stream(t.seed, "noise")):
        for step in range(STEPS):
            optimizer.zero_grad()
            of.loss(*output(index[step * of.batch_size :][: of.batch_size])).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        found = output(cut.test)
        return (
            dict([*model.named_parameters(), *model.named_buffers()]),
            float(of.loss(*found)),
            float(of.metric.score(*found)),
        )


def test_a_stack_trains_as_a_plain_loop_does(small: Task) -> None:
    # float64 leaves no room for other noise to hide behind rounding.
    single = small.loaded
    inputs, targets = tree_map(lambda x: x.double(), (single.inputs, single.targets))
    double = small.change(
        data=lambda: Data(inputs, targets, test=single.test), model=lambda: small.model().double(), after=None
    )
    entry = ENTRIES["momentum"]
    trials = [
        Trial(entry.rule, entry.values(lr), seed, small.batch_size, 1, "constant", True)
        for seed, lr in ((1, 1e-3), (1, 1e-2), (2, 1e-2))
    ]
    stack = ModelStack(double, trials)
    with runtime_settings():
        for batch in islice(stack.data.shuffled_batches(small.batch_size), STEPS):
            stack.step(batch, 1.0)
        losses, metrics = evaluate(stack, stack.data.test)
    for row, t in enumerate(trials):
        weights, loss, metric = plain(double, t)
        for name, x in (stack.parameters | stack.buffers).items():
            torch.testing.assert_close(x[row], weights[name].detach(), rtol=1e-7, atol=1e-9, msg=name)
        assert losses[row] == pytest.approx(loss, rel=1e-8)
        assert metrics[row] == pytest.approx(metric, rel=1e-8)
    assert len({round(x, 6) for x in losses}) == 3, "rates and seeds differ"


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("name", "margin"),
    [pytest.param("segment", 0.1, marks=pytest.mark.slow), ("generate", 0.3), ("generate-vae", 1.0)],
)
def test_a_small_race_is_trained_stacked_and_beats_the_best_constant_answer(
    name: str, margin: float, here: Callable[[str], Path], tmp_path: Path
) -> None:
    here(OF[name])
    task = MAKERS[name]("small")
    result = race.race(task, "adamw,nadam", trials=2, seeds=6, out=tmp_path)
    assert result.record.plan.mode.stacked
    means = [entry.final.mean for entry in result.record.entries]
    best = max(means) - task.baseline if task.metric.higher_is_better else task.baseline - min(means)
    print(name, means, task.baseline)
    assert best > margin


@pytest.mark.parametrize("name", MAKERS)
def test_presets_load_and_step(name: str, here: Callable[[str], Path]) -> None:
    here(OF[name])
    for preset in ("default", "large"):
        task = MAKERS[name](preset)
        inputs, targets = task.loaded.take(torch.arange(4))
        model = init_model(task.model, 0)
        loss = task.loss(model(*called_with(inputs)[0]), targets)
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        assert set(task.entries) <= set(ENTRIES)


def test_evaluation_draws_no_noise_and_training_does(small: Task) -> None:
    inputs, targets = small.loaded.take(torch.arange(50))
    model = init_model(small.model, 0)

    def losses() -> set[float]:
        return {small.loss(model(*called_with(inputs)[0]), targets).item() for _ in range(3)}

    assert len(losses()) == 3
    model.eval()
    assert len(losses()) == 1


# Segmentation


@pytest.mark.parametrize(("scale", "rest", "test"), [(3, 291, 80), (6, 295, 82), (12, 301, 83)])
def test_tiles_are_coastal_and_do_not_overlap(scale: int, rest: int, test: int, here: Callable[[str], Path]) -> None:
    here("earth")
    _, land = segment.load_earth(scale, None)
    data, size, tiles = segment.load_data(scale), 16 * scale // 3, segment.find_tiles(land, scale)
    used = np.zeros(land.shape, int)
    for top, left in itertools.chain(*tiles):
        used[top : top + size, left : left + size] += 1
    between = slice((180 - 12) * scale, (180 + 45) * scale)

    assert [len(part) for part in tiles] == [rest, test]
    assert used.max() == 1
    assert used[:, between].sum() == test * size**2
    assert not used[: 15 * scale].any()
    assert not used[150 * scale :].any()
    assert data.inputs.shape == data.targets.shape == (rest + test, size, size)
    assert data.test.tolist() == list(range(rest, rest + test))
    assert data.targets.unique().tolist() == [0, 1]
    assert 0.1 <= data.targets.mean((1, 2)).min() <= data.targets.mean((1, 2)).max() <= 0.9
    assert abs(data.inputs.mean()) < 0.1
    assert data.inputs.std() == pytest.approx(1, abs=0.1)
    call_workers = torch.ones_like(data.targets[data.test])
    assert segment.BASELINES[scale] == pytest.approx(
        max(float(segment.mean_iou(sign * call_workers, data.targets[data.test])) for sign in (1, -1)), abs=1e-3
    )


def test_north_is_on_top_and_the_photo_lies_under_its_mask(here: Callable[[str], Path]) -> None:
    here("earth")
    photo, land = segment.load_earth(6, None)

    def at(latitude: float, longitude: float) -> tuple[int, int]:
        return int((90 - latitude) * 6), int((180 + longitude) * 6)

    for known, place in ((1, (42.9, 12.5)), (0, (40.0, 12.0)), (1, (-25, 135)), (0, (-1, 33)), (0, (47.7, -87.5))):
        assert land[at(*place)] == known, f"Umbria, Tyrrhenian Sea, Australia, Lake Victoria, Lake Superior: {place}"
    # The edges of the one lie on those of the other: moved by a pixel, they fit less well.
    edges = np.abs(np.diff(land, axis=1))
    fits = {
        move: float((edges * np.abs(np.diff(np.roll(photo, move, (0, 1)), axis=1)))[90:900, 10:-10].sum())
        for move in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    }
    assert max(fits, key=fits.__getitem__) == (0, 0)


def test_mean_iou_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import jaccard_score

    luck = torch.Generator().manual_seed(1)
    outputs, targets = torch.randn(5, 8, 8, generator=luck), (torch.rand(5, 8, 8, generator=luck) < 0.3).float()
    expected = jaccard_score(targets.flatten().numpy(), (outputs > 0).flatten().numpy(), average="macro")

    assert float(segment.mean_iou(outputs, targets)) == pytest.approx(expected)


def test_near_a_coast_is_what_lies_within_two_pixels_of_the_other_kind() -> None:
    targets = (torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(2)) < 0.03).float()
    near = segment.find_coast(targets)
    for tile, row, column in itertools.product(range(3), range(12), range(12)):
        around = targets[tile, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        assert bool(near[tile, row, column]) == bool((around != targets[tile, row, column]).any())
    assert 0 < near.double().mean() < 1


class Knows(nn.Module):
    """A network whose answer is its input: whether it is above 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_after_segmentation_there_are_coastlines_and_what_is_wrong() -> None:
    truth = torch.zeros(60, 32, 32)
    truth[:, :, 16:] = 1
    found = segment.analyze_predictions(Knows(), truth - 0.5, truth)
    assert found["wrong pixels within two of a coast"] == found["wrong pixels elsewhere"] == 0
    picture = found[segment.PICTURE]
    assert picture.shape == (4 * 32 + 3 * 7, 3 * 32 + 2 * 7, 3)
    assert torch.equal(picture[:32, 39:71], picture[:32, 78:110]), "the predicted mask is the true one"
    assert torch.equal(picture[0, 39], torch.tensor(segment.WATER))
    assert torch.equal(picture[0, 70], torch.tensor(segment.LAND))

    moved = truth.roll(-1, 2)  # the columns before the coast and at the right edge are wrong
    found = segment.analyze_predictions(Knows(), moved - 0.5, truth)
    assert found["wrong pixels within two of a coast"] == pytest.approx(1 / 4)
    assert found["wrong pixels elsewhere"] == pytest.approx(1 / 28)
    differs = (found[segment.PICTURE][:32, 39:71] != found[segment.PICTURE][:32, 78:110]).any(-1)
    assert differs.nonzero()[:, 1].unique().tolist() == [15, 31]
    assert segment.analyze_predictions(Knows(), truth[:2] - 0.5, truth[:2])[segment.PICTURE].shape[1] == 110, (
        "few tiles"
    )


# Generation


@pytest.mark.parametrize("size", [14, 28])
def test_the_digits_are_those_of_mnist(size: int, here: Callable[[str], Path]) -> None:
    images = generate.load_digits(size, here("mnist"))

    assert images.shape == (5000, size * size)
    assert (images.min(), images.max()) == (0, 1)
    assert float(images.mean()) == pytest.approx(0.1313, abs=1e-3)  # MNIST's own is 0.1307
    assert len(images.unique(dim=0)) == 5000
    # Means over squares of the first digit, a 0, whose middle is empty.
    with zipfile.ZipFile(here("mnist")) as wheel:
        first = np.array(gzip.decompress(wheel.read(mnist.MEMBER)).splitlines()[0].split(b","), float)
    assert first[-1] == 0
    side = 28 // size
    expected = first[:-1].reshape(size, side, size, side).mean((1, 3)) / 255
    np.testing.assert_allclose(images[0].view(size, size), expected, atol=1e-6)


@pytest.mark.parametrize("preset", ["default", "large"])
def test_the_baselines_are_the_best_constant_answers(preset: str, here: Callable[[str], Path]) -> None:
    here("mnist")
    flow, vae = generate.make_flow(preset), generate.make_vae(preset)
    (_, noise, _), images = flow.loaded.inputs, flow.loaded.targets
    constant = (images - noise).mean(0).expand_as(images)
    assert float(flow.metric.score((constant, noise), images)) == pytest.approx(flow.baseline, rel=5e-3)
    grey = vae.loaded.targets
    nothing = torch.zeros(len(grey), 1)
    constant = grey.mean(0).clamp(1e-7, 1 - 1e-7).logit().expand_as(grey)
    assert float(vae.metric.score((constant, nothing, nothing), grey)) == pytest.approx(vae.baseline, rel=1e-3)


def test_the_loss_of_flow_matching_is_the_error_of_the_velocity(here: Callable[[str], Path]) -> None:
    here("mnist")
    task = generate.make_flow("small")
    (images, noise, times), targets = task.loaded.take(torch.arange(64))
    model = init_model(task.model, 3).eval()
    velocity, used = model(images, noise, times)

    assert torch.equal(images, targets)
    assert torch.equal(used, noise)
    torch.testing.assert_close(velocity, model.velocity(noise + times * (images - noise), times))
    assert float(task.loss((images - noise, noise), targets)) == 0
    assert float(task.loss((images - noise + 2, noise), targets)) == pytest.approx(4, rel=1e-5)
    assert float(times.mean()) == pytest.approx(0.5, abs=0.15)
    assert 0 <= times.min() < times.max() <= 1


def test_the_loss_of_the_vae_is_the_bound_of_torchs_distributions() -> None:
    luck = torch.Generator().manual_seed(4)
    logits, mean, log_variance = (torch.randn(6, n, generator=luck) for n in (9, 4, 4))
    ink = (torch.rand(6, 9, generator=luck) < 0.5).float()
    divergence = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    expected = (divergence - Bernoulli(logits=logits).log_prob(ink).sum(1)).mean()

    torch.testing.assert_close(generate.negative_elbo((logits, mean, log_variance), ink), expected)
    # With grey levels it is the mean over black and white images drawn with them as probabilities.
    pixel, nothing = torch.tensor([[0.7]]), torch.zeros(1, 1)
    black, white, grey = (
        float(generate.negative_elbo((pixel, nothing, nothing), torch.tensor([[x]]))) for x in (0.0, 1.0, 0.3)
    )
    assert grey == pytest.approx(0.7 * black + 0.3 * white)


def test_the_energy_distance_is_zero_between_halves_and_large_to_noise(here: Callable[[str], Path]) -> None:
    images = generate.load_digits(14, here("mnist"))
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(5))]
    one, other = images[:500], images[500:1500]
    noise = torch.rand(500, 196, generator=torch.Generator().manual_seed(6))
    distance = [float(generate.energy_distance(x, other)) for x in (one, one.mean(0).expand(500, -1), noise)]

    assert abs(distance[0]) < 0.02
    assert distance[1] > 1
    assert distance[2] > 4
    # Between single points it is what it says: twice the distance between, less those within.
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0], [11.0], [12.0]])
    between = np.mean([abs(x - y) for x in (0, 2) for y in (10, 11, 12)])
    assert float(generate.energy_distance(a, b)) == pytest.approx(2 * between - 2 - 4 / 3)


class Rising(generate.Flow):
    """A velocity that is known: twice the time in each pixel, so that in the end noise has moved by 1."""

    def velocity(self, x: Tensor, times: Tensor) -> Tensor:
        return (2 * times).expand_as(x)


def test_the_way_from_noise_to_an_image_is_that_of_the_velocity() -> None:
    flow = Rising(196, 8, 1)
    with RngState(torch.Generator().manual_seed(7)):
        made = flow.sample(40)
    noise = torch.randn(40, 196, generator=torch.Generator().manual_seed(7))

    torch.testing.assert_close(made, ((noise + 1) / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("maker", [generate.make_flow, generate.make_vae])
def test_after_generation_there_are_digits_and_their_distance(maker: Any, here: Callable[[str], Path]) -> None:
    here("mnist")
    task = maker("small")
    inputs, targets = task.loaded.take(task.loaded.split(0).test)
    model = init_model(task.model, 0).eval()
    with torch.no_grad(), RngState(torch.Generator().manual_seed(8)):
        found = task.after(model, inputs, targets)
    with torch.no_grad(), RngState(torch.Generator().manual_seed(8)):
        made = model.sample(generate.SAMPLES)

    assert found["digits made"].shape == (4 * 14, 8 * 14)
    assert torch.equal(found["digits made"][14:28, 28:42].flatten(), made[8 + 2]), "second row, third column"
    assert 0 <= made.min() <= made.max() <= 1
    assert float(found["energy distance to real digits"]) > 0.5, "untrained"
    real = (targets - targets.min()) / (targets.max() - targets.min())
    torch.testing.assert_close(found["energy distance to real digits"], generate.energy_distance(made, real))


# Copies of one's own


def test_a_copy_of_the_earth_is_taken(here: Callable[[str], Path], tmp_path: Path) -> None:
    wheel = here("earth")
    known = segment.load_data(3)
    with zipfile.ZipFile(wheel) as files:
        for name in (segment.PHOTO, segment.MASK):
            (tmp_path / name).write_bytes(files.read(f"{segment.FOLDER}/{name}"))
    for path in (wheel, tmp_path):
        taken = segment.make_task("small", path).loaded
        assert torch.equal(taken.inputs, known.inputs)
        assert torch.equal(taken.targets, known.targets)


def test_a_copy_of_the_digits_is_taken(here: Callable[[str], Path], tmp_path: Path) -> None:
    wheel = here("mnist")
    known = generate.load_digits(14)
    with zipfile.ZipFile(wheel) as files:
        packed = files.read(mnist.MEMBER)
    (tmp_path / "digits.csv.gz").write_bytes(packed)
    (tmp_path / "digits.csv").write_bytes(gzip.decompress(packed))
    for path in (wheel, tmp_path / "digits.csv.gz", tmp_path / "digits.csv"):
        assert torch.equal(generate.make_vae("small", path).loaded.targets, known)


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("readme.txt", "nothing")
    return path


NONSENSE: dict[str, Callable[[Path], Path]] = {
    "nothing": lambda folder: folder / "none",
    "another archive": lambda folder: zipped(folder / "other.whl"),
    "text": lambda folder: written(folder / "text.csv", b"label,pixel\n1,2\n"),
    "half a gzip": lambda folder: written(folder / "half.csv.gz", gzip.compress(b"1,2,3\n" * 999)[:-9]),
    "too few columns": lambda folder: written(folder / "few.csv", b"1,2,3\n4,5,6\n"),
    "a folder": lambda folder: folder,
    "not a photo": lambda folder: (
        written(folder / segment.MASK, gzip.compress(bytes(9))) and written(folder / segment.PHOTO, b"no photo").parent
    ),
}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", NONSENSE)
@pytest.mark.parametrize("name", MAKERS)
def test_nonsense_is_refused_with_one_message(name: str, kind: str, tmp_path: Path) -> None:
    path = NONSENSE[kind](tmp_path)
    with pytest.raises(DataError) as error:
        MAKERS[name]("small", path).data()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
