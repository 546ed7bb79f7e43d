"""Load any model from its directory, a merged one with its layers tied: `ffmerge.load`."""

from pathlib import Path
from typing import Any

from torch import nn

from ffmerge.models.format import GROUPS, INT8
from ffmerge.models.pretrained import configured
from ffmerge.models.tied_model import tied_model_class


def load(path: str | Path, device: str = "cpu", **options: Any) -> nn.Module:
    """Load a model as the class that its config.json names, in evaluation mode.

    options: as `from_pretrained` takes them, such as dtype.
    Raises ValueError if config.json does not name one class of transformers.
    """
    config, model_class = configured(Path(path), known=False)
    if hasattr(config, INT8):
        from ffmerge.method import quantization  # importing bitsandbytes takes seconds

        return quantization.load(Path(path), device)
    if hasattr(config, GROUPS):
        model_class = tied_model_class(model_class)
    return model_class.from_pretrained(path, **options).to(device).eval()
