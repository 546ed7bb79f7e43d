"""Fashion-MNIST, in the role of ImageNet-1k.

Source: Debian package dataset-fashion-mnist (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747).
Licence: MIT, Copyright (c) 2017 Zalando SE. Columns as in ImageNet's parquet files on the hub.
"""

import gzip
import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from corpora import Row, order_key, read_member

CLASS_NAMES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]

# Image counts of the splits that are subsets; validation and test share the official test images.
N_TRAIN = 12_000
N_VALIDATION = 2_000
N_TEST = 8_000


def features():
    """Feature types of the columns: `image` (PNG) and `label` (one of the ten class names)."""
    from datasets import ClassLabel, Features
    from datasets import Image as ImageFeature

    return Features({"image": ImageFeature(), "label": ClassLabel(names=CLASS_NAMES)})


def build_splits(package: Path) -> dict[str, list[Row]]:
    """Rows of train, validation, test and train_full from the Debian package.

    train_full is the official training set in its own order; train is a subset of it. validation
    and test are disjoint subsets of the official test set. The subsets are class-balanced and
    shuffled, so that a prefix is a fair sample, too.
    """
    training_pixels, training_labels = _read_official(package, "train")
    test_pixels, test_labels = _read_official(package, "t10k")
    train = balanced_subsets(training_labels, [N_TRAIN], name="train")[0]
    validation, test = balanced_subsets(test_labels, [N_VALIDATION, N_TEST], name="t10k")
    train_full = _rows(training_pixels, training_labels, range(len(training_labels)))
    return {
        "train": [train_full[index] for index in train],
        "validation": _rows(test_pixels, test_labels, validation),
        "test": _rows(test_pixels, test_labels, test),
        "train_full": train_full,
    }


def balanced_subsets(labels: np.ndarray, sizes: Sequence[int], name: str) -> list[list[int]]:
    """Draw disjoint subsets of the indices of `labels` with equally many of each class.

    sizes: sizes of the subsets, multiples of the number of classes. name: key of the fixed choice.
    Raises ValueError if a class has too few members.
    """
    classes = np.unique(labels).tolist()
    by_class = {
        label: sorted(
            np.flatnonzero(labels == label).tolist(), key=lambda i: order_key(f"{name} {i}")
        )
        for label in classes
    }
    subsets, start = [], 0
    for size in sizes:
        n_per_class, remainder = divmod(size, len(classes))
        if remainder or any(len(members) < start + n_per_class for members in by_class.values()):
            raise ValueError(f"cannot take {size} images, equally many of {len(classes)} classes")
        chosen = [i for members in by_class.values() for i in members[start : start + n_per_class]]
        subsets.append(sorted(chosen, key=lambda i: order_key(f"{name} {i}")))
        start += n_per_class
    return subsets


def _read_official(package: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 28, 28) and labels (n,), both uint8, of the official "train" or "t10k" part."""
    return (
        _parse_idx(gzip.decompress(read_member(package, f"*/{part}-images-idx3-ubyte.gz"))),
        _parse_idx(gzip.decompress(read_member(package, f"*/{part}-labels-idx1-ubyte.gz"))),
    )


def _parse_idx(data: bytes) -> np.ndarray:
    """Parse an IDX file of unsigned bytes (the format of MNIST)."""
    zeros, type_code, n_dimensions = struct.unpack(">HBB", data[:4])
    if zeros != 0 or type_code != 0x08:
        raise ValueError("not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{n_dimensions}I", data[4 : 4 + 4 * n_dimensions])
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * n_dimensions).reshape(shape)


def _rows(pixels: np.ndarray, labels: np.ndarray, indices: Sequence[int]) -> list[Row]:
    return [
        {"image": {"bytes": _png(pixels[i]), "path": None}, "label": int(labels[i])}
        for i in indices
    ]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
