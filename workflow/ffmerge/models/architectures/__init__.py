"""The table of architectures: names of the modules that hold each one's sublayers, data only.

A family is an entry in one of this package's modules, under the `model_type` of its configuration.
Families whose modules have the same names share an entry.
"""

from collections.abc import Mapping
from typing import Any

from ffmerge.models.architectures.decoders import DECODERS
from ffmerge.models.architectures.encoder_decoders import ENCODER_DECODERS
from ffmerge.models.architectures.encoders import ENCODERS
from ffmerge.models.architectures.entry import Architecture, FeedForward
from ffmerge.models.format import OWN_ENTRY, STOCK_TYPE

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "FeedForward",
    "architecture_of",
]

ARCHITECTURES: dict[str, Architecture] = {**DECODERS, **ENCODERS, **ENCODER_DECODERS}


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The entry for a model.

    config: keys of its config.json: `model_type`, or the entry itself under OWN_ENTRY.
    Raises ValueError, naming the known architectures and what to add, if there is no entry.
    """
    if config.get(OWN_ENTRY):
        return Architecture.from_entry(config[OWN_ENTRY])
    model_type = config.get(STOCK_TYPE) or config["model_type"]
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ValueError(
            f"architecture {model_type!r} has no entry in ffmerge.models.architectures "
            f"(known: {known}); "
            f"add one to the model's config.json under {OWN_ENTRY}: prefix and towers, and of each "
            "tower its layers, up and down, and what else differs from the defaults "
            "(`ffmerge inspect --propose` looks for them)"
        ) from None
