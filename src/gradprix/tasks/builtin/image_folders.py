"""Image data sets in the user's folders, as stored by torchvision, the datasets library or their authors.

torchvision's files are read without torchvision, which must match the installed build of torch.
"""

import gzip
import hashlib
import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprix.tasks.archive_reader import READ_ERRORS, DataError
from gradprix.tasks.data import Data

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

HUB_NAMES = {
    "MNIST": "ylecun/mnist",
    "FashionMNIST": "zalando-datasets/fashion_mnist",
    "CIFAR10": "uoft-cs/cifar10",
}
"""Name in the datasets library of each data set, by its name in torchvision."""
CIFAR10_MD5 = {
    "c99cafc152244af753f735de768cd75f",
    "d4bba439e000b95fd0a9bffe97cbabec",
    "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a",
    "482c414d41f54cd18b22e5b47cb7c3cb",
    "40351d587109b95175f43aff81a1287e",
}
"""Hashes of the official pickle files of CIFAR-10. No others are loaded, because a pickle can run arbitrary code."""


def load_image_folder(dataset: str, path: Path | None, max_images: int | None) -> Data:
    """Load images from the folder of torchvision or of the datasets library, with their official test set.

    Args:
        dataset: name of the data set in torchvision.
        path: `root` in torchvision, or the argument of `save_to_disk`.
        max_images: load only the first images for training and validation; all if None.

    Raises:
        DataError: if the folder does not hold the data set, with instructions.
    """
    instructions = (
        f"Fetch it by torchvision.datasets.{dataset}('FOLDER', download=True), or by "
        f"datasets.load_dataset('{HUB_NAMES[dataset]}').save_to_disk('FOLDER'), and race it with --data FOLDER."
    )
    if path is None:
        raise DataError(f"{dataset} is not part of any package. {instructions}")
    is_saved = (path / "dataset_dict.json").exists()
    read = _read_saved_dataset if is_saved else _read_cifar10 if dataset == "CIFAR10" else _read_idx
    try:
        images, labels = read(path, dataset, "train", max_images)
        test_images, test_labels = read(path, dataset, "test", None)
        inputs = np.concatenate([images, test_images])
        targets = np.concatenate([labels, test_labels]).astype(np.int64)
    except ImportError as error:
        raise DataError(f"{path} is read by the datasets library: pip install datasets.") from error
    except (KeyError, OSError, ValueError, *READ_ERRORS) as error:
        raise DataError(f"{path} holds no {dataset}: {str(error).rstrip('.')}. {instructions}") from error
    return Data(inputs, targets, test=np.arange(len(labels), len(targets)), stratify=True)


def _read_idx(path: Path, dataset: str, part: str, limit: int | None) -> tuple[Images, Labels]:
    stem = {"train": "train", "test": "t10k"}[part]
    images, labels = (_read_idx_array(path, dataset, f"{stem}-{x}-ubyte") for x in ("images-idx3", "labels-idx1"))
    return images[:limit, None], labels[:limit]


def _read_idx_array(path: Path, dataset: str, name: str) -> Any:
    """Read an array in MNIST's IDX format: two zeros, 8 for bytes, number of dimensions, shape, bytes."""
    candidates = [folder / f"{name}{end}" for folder in (path / dataset / "raw", path) for end in ("", ".gz")]
    content = next((file for file in candidates if file.exists()), candidates[0]).read_bytes()
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    dimensions = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(content, ">u4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _read_cifar10(path: Path, dataset: str, part: str, limit: int | None) -> tuple[Images, Labels]:
    stems = [f"data_batch_{i}" for i in range(1, 6)] if part == "train" else ["test_batch"]
    batches = [_read_cifar10_batch(path, stem) for stem in stems]
    images, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
    return images.reshape(-1, 3, 32, 32)[:limit], labels[:limit]


def _read_cifar10_batch(path: Path, stem: str) -> tuple[Any, Any]:
    binary = path / "cifar-10-batches-bin" / f"{stem}.bin"  # the binary version: rows of a label and 3072 bytes
    if binary.exists():
        rows = np.fromfile(binary, np.uint8).reshape(-1, 3073)
        return rows[:, 1:], rows[:, 0]
    content = (path / "cifar-10-batches-py" / stem).read_bytes()
    if hashlib.md5(content).hexdigest() not in CIFAR10_MD5:
        raise ValueError(f"{stem} is not the official file")
    batch = pickle.loads(content, encoding="bytes")
    return batch[b"data"], batch[b"labels"]


def _read_saved_dataset(path: Path, dataset: str, part: str, limit: int | None) -> tuple[Images, Labels]:
    rows = import_module("datasets").load_from_disk(str(path))[part][:limit]
    images = np.stack([np.asarray(image) for image in rows["img" if dataset == "CIFAR10" else "image"]])
    return images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2), rows["label"]
