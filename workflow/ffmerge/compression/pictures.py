"""Open pictures of any kind as a model takes them: upright, 8 bits, one channel or three."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {1: "L", 3: "RGB"}  # number of a model's channels -> mode of a picture


def opened(image: Path | bytes, place: str, n_channels: int = 3) -> "Image":
    """Open a file or its bytes.

    place: of the picture in the data, for messages. Raises ValueError naming it if it cannot be
    read, or is too large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(image if isinstance(image, Path) else io.BytesIO(image)) as picture:
            return as_taken(picture, n_channels)
    except Image.DecompressionBombError:
        most = 2 * Image.MAX_IMAGE_PIXELS
        raise ValueError(f"{place} has more than {most:,} pixels: make it smaller") from None
    except UnidentifiedImageError:
        raise ValueError(f"{place} cannot be read as an image: its format is not known") from None
    except Exception as error:  # each format's reader has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{place} cannot be read as an image: {reason}") from None


def as_taken(picture: "Image", n_channels: int) -> "Image":
    """Turn a picture as its EXIF says, scale 16 bits to 8, and give it a model's channels.

    Raises ValueError for another number of channels, and for 32 bits, whose range no format says.
    """
    from PIL import Image, ImageOps

    if n_channels not in MODES:
        raise ValueError(f"pictures have 1 or 3 channels here, but the model takes {n_channels}")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        values = numpy.asarray(picture)
        if picture.mode == "F" or values.min() < 0 or values.max() >= 2**16:
            raise ValueError("it has 32 bits a pixel: save it with 8 or 16")
        picture = Image.fromarray((values // 257).astype("uint8"))
    return picture.convert(MODES[n_channels])
