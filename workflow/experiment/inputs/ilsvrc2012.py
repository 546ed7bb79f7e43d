"""Read ImageNet-1k from the tar files of image-net.org.

`ILSVRC2012_img_train.tar` holds a tar of images for each class, `n01440764.tar` and so on;
`ILSVRC2012_img_val.tar` holds the 50,000 validation images, whose classes are in the development
kit. Columns and labels are those of ILSVRC/imagenet-1k on the hub: classes in the order of their
WordNet ids (n01440764 is 0), which is *not* the order of the kit's own ids.
"""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from experiment.inputs import check_size, whole
from experiment.inputs.parquet import Row

META, VALIDATION_LABELS = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Devkit:
    """WordNet ids in the order of the labels, and the labels of validation images 1, 2, …"""

    classes: list[str]
    validation: list[int]


def read_devkit(file: Path) -> Devkit:
    """Read the development kit, ILSVRC2012_devkit_t12.tar.gz.

    Raises ValueError if one of the two files is missing or unreadable, or they disagree.
    """
    from scipy.io import loadmat

    with _opened(file) as kit:
        members = {Path(m.name).name: m for m in kit if m.isfile()}
        if missing := {META, VALIDATION_LABELS} - set(members):
            raise ValueError(f"{file} does not hold {', '.join(sorted(missing))}")
        contents = {}
        for name in (META, VALIDATION_LABELS):
            check_size(file, name, members[name].size)
            contents[name] = kit.extractfile(members[name]).read()
    try:
        synsets = loadmat(io.BytesIO(contents[META]), squeeze_me=True)["synsets"]
        wordnet_id = {  # inner nodes of the hierarchy have ids above those of the classes
            int(synset["ILSVRC2012_ID"]): str(synset["WNID"])
            for synset in synsets
            if int(synset["num_children"]) == 0
        }
        truth = [int(line) for line in contents[VALIDATION_LABELS].splitlines()]
    except Exception as error:  # scipy raises many kinds for what is no such file
        raise ValueError(
            f"{file}: {META} or {VALIDATION_LABELS} is not that of the kit: {error}"
        ) from None
    classes = sorted(wordnet_id.values())
    if unknown := set(truth) - set(wordnet_id):
        raise ValueError(f"{file}: {VALIDATION_LABELS} has ids that {META} lacks: {unknown}")
    label = {name: i for i, name in enumerate(classes)}
    return Devkit(classes, [label[wordnet_id[i]] for i in truth])


def features(devkit: Devkit):
    """Feature types of the columns: `image` (the unchanged bytes of a file) and `label`."""
    from datasets import ClassLabel, Features, Image

    return Features({"image": Image(), "label": ClassLabel(names=devkit.classes)})


def training_images(archive: Path, devkit: Devkit) -> Iterator[Row]:
    """Yield the rows of ILSVRC2012_img_train.tar class by class, one image in memory at a time.

    Raises ValueError for a class that the kit lacks, a missing class or a damaged tar.
    """
    left = {name: label for label, name in enumerate(devkit.classes)}
    with _opened(archive) as outer:
        for member in outer:
            name = Path(member.name).stem
            if name not in left:
                raise ValueError(f"{archive}: {member.name} is no class of the kit, or comes twice")
            label = left.pop(name)
            with _opened(archive, outer.extractfile(member)) as inner:
                yield from (_row(inner, image, label) for image in inner if image.isfile())
    if left:
        raise ValueError(
            f"{archive} lacks {len(left)} classes, such as {min(left)}: is it cut off?"
        )


def validation_images(archive: Path, devkit: Devkit) -> Iterator[Row]:
    """Yield the rows of ILSVRC2012_img_val.tar (ILSVRC2012_val_00000001.JPEG, …) in its order.

    Raises ValueError for an image without a label, a label without an image or a damaged tar.
    """
    left = set(range(1, len(devkit.validation) + 1))
    with _opened(archive) as images:
        for image in images:
            if not image.isfile():
                continue
            digits = Path(image.name).stem.rpartition("_")[2]
            number = int(digits) if digits.isdecimal() else 0
            if number not in left:
                raise ValueError(f"{archive}: {image.name} has no label, or comes twice")
            left.remove(number)
            yield _row(images, image, devkit.validation[number - 1])
    if left:
        raise ValueError(f"{archive} lacks {len(left)} images, such as {min(left)}: is it cut off?")


def _row(archive: tarfile.TarFile, image: tarfile.TarInfo, label: int) -> Row:
    check_size(archive.name, image.name, image.size)
    content = archive.extractfile(image).read()
    return {"image": {"bytes": content, "path": Path(image.name).name}, "label": label}


@contextmanager
def _opened(archive: Path, stream: BinaryIO | None = None) -> Iterator[tarfile.TarFile]:
    """Open a tar file, or `stream`, a tar inside it. Raises ValueError if it is damaged."""
    with whole(archive), tarfile.open(archive, fileobj=stream) as tar:
        yield tar
