"""Pictures of ten kinds where the user has them: as torchvision, the datasets library or their authors keep them.

torchvision's files are read as they are: its package goes with one build of torch only, and is not needed for that.
"""

import gzip
import hashlib
import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprix.tasks.archive_reader import BROKEN, DataError
from gradprix.tasks.data import Data

Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]

KEPT_BY = {
    "MNIST": "ylecun/mnist",
    "FashionMNIST": "zalando-datasets/fashion_mnist",
    "CIFAR10": "uoft-cs/cifar10",
}
"""What torchvision calls a set of pictures, and what the datasets library calls it."""
MD5 = {
    "c99cafc152244af753f735de768cd75f",
    "d4bba439e000b95fd0a9bffe97cbabec",
    "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a",
    "482c414d41f54cd18b22e5b47cb7c3cb",
    "40351d587109b95175f43aff81a1287e",
}
"""Of CIFAR-10's files for Python, which are pickles: no other is loaded, for a pickle can run anything."""


def kept_pictures(kind: str, path: Path | None, most: int | None) -> Data:
    """Pictures from the folder where torchvision or the datasets library keeps them, with their official test set.

    Args:
        kind: torchvision's name.
        path: what torchvision calls `root`, or what was given to `save_to_disk`.
        most: how many to train and tune on, the first; None for all.

    Raises:
        DataError: when there are none, with what to do.
    """
    how = (
        f"Fetch it by torchvision.datasets.{kind}('FOLDER', download=True), or by "
        f"datasets.load_dataset('{KEPT_BY[kind]}').save_to_disk('FOLDER'), and race it with --data FOLDER."
    )
    if path is None:
        raise DataError(f"{kind} ships in no package. {how}")
    read = _saved if (path / "dataset_dict.json").exists() else _cifar if kind == "CIFAR10" else _idx
    try:
        (pictures, labels), (judged, truth) = read(path, kind, "train", most), read(path, kind, "test", None)
        everything = np.concatenate([pictures, judged]), np.concatenate([labels, truth]).astype(np.int64)
    except ImportError as error:
        raise DataError(f"{path} is read by the datasets library: pip install datasets.") from error
    except (KeyError, OSError, ValueError, *BROKEN) as error:
        raise DataError(f"{path} holds no {kind}: {str(error).rstrip('.')}. {how}") from error
    return Data(*everything, test=np.arange(len(labels), len(everything[1])), stratify=True)


def _idx(path: Path, kind: str, part: str, most: int | None) -> tuple[Bytes, Labels]:
    stem = {"train": "train", "test": "t10k"}[part]
    pictures, labels = (_array(path, kind, f"{stem}-{what}-ubyte") for what in ("images-idx3", "labels-idx1"))
    return pictures[:most, None], labels[:most]


def _array(path: Path, kind: str, name: str) -> Any:
    """An array in MNIST's own format: two zeros, 8 for bytes, how many dimensions, how long each is, the bytes."""
    places = [folder / f"{name}{end}" for folder in (path / kind / "raw", path) for end in ("", ".gz")]
    file = next((place for place in places if place.exists()), places[0]).read_bytes()
    file = gzip.decompress(file) if file.startswith(b"\x1f\x8b") else file
    dimensions = file[3] if file[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(file, ">u4", dimensions, 4)
    return np.frombuffer(file, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _cifar(path: Path, kind: str, part: str, most: int | None) -> tuple[Bytes, Labels]:
    stems = [f"data_batch_{i}" for i in range(1, 6)] if part == "train" else ["test_batch"]
    batches = [_batch(path, stem) for stem in stems]
    pictures, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
    return pictures.reshape(-1, 3, 32, 32)[:most], labels[:most]


def _batch(path: Path, stem: str) -> tuple[Any, Any]:
    plain = path / "cifar-10-batches-bin" / f"{stem}.bin"  # CIFAR's other format: a label and 3072 bytes, and again
    if plain.exists():
        rows = np.fromfile(plain, np.uint8).reshape(-1, 3073)
        return rows[:, 1:], rows[:, 0]
    file = (path / "cifar-10-batches-py" / stem).read_bytes()
    if hashlib.md5(file).hexdigest() not in MD5:
        raise ValueError(f"{stem} is not the official file")
    batch = pickle.loads(file, encoding="bytes")
    return batch[b"data"], batch[b"labels"]


def _saved(path: Path, kind: str, part: str, most: int | None) -> tuple[Bytes, Labels]:
    rows = import_module("datasets").load_from_disk(str(path))[part][:most]
    pictures = np.stack([np.asarray(each) for each in rows["img" if kind == "CIFAR10" else "image"]])
    return pictures.reshape(*pictures.shape[:3], -1).transpose(0, 3, 1, 2), rows["label"]
