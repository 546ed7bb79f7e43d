"""Load any model from its directory, a merged one with its layers tied: `ffmerge.load`."""

from pathlib import Path
from typing import Any

import transformers
from torch import nn

from ffmerge.models import checkpoint, tied_model
from ffmerge.models.format import GROUPS, INT8


def load(path: str | Path, device: str = "cpu", **options: Any) -> nn.Module:
    """Load a model as the class that its config.json names, in evaluation mode.

    options: as `from_pretrained` takes them, such as dtype.
    Raises ValueError if config.json does not name one class of transformers.
    """
    config = checkpoint.read_configuration(path)
    if hasattr(config, INT8):
        from ffmerge.method import quantization  # importing bitsandbytes takes seconds

        return quantization.load(Path(path), device)
    names = config.architectures or []
    if len(names) != 1 or not hasattr(transformers, names[0]):
        raise ValueError(f"architectures {names}: has to be one class of transformers")
    classes = tied_model if hasattr(config, GROUPS) else transformers
    model = getattr(classes, names[0]).from_pretrained(path, **options)
    return model.to(device).eval()
