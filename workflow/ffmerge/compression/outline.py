"""A model without its weights: its modules, their shapes, and so all that may be refused early."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ffmerge.compression.source import Source
from ffmerge.models.pretrained import configured


def outline(
    source: Source, architecture: Mapping[str, Any] | None, known: bool = True
) -> nn.Module:
    """The model on torch's meta device, which holds no values.

    architecture: an entry of the table of architectures. known: whether it has to be in the table.
    Raises ValueError as `pretrained.configured`.
    """
    config, model_class = configured(source.directory, architecture, known)
    with torch.device("meta"):
        model = model_class(config)
    model.tie_weights()
    return model.eval()
