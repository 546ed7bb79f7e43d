"""What a model's forward is given: a batch without its labels, with what a decoder needs."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ffmerge.compression.data.text import Batch
from ffmerge.models.format import IGNORED


def inputs_of(model: nn.Module, batch: Batch) -> Batch:
    """What to call a model with. Labels are left out, for a loss is computed apart.

    An encoder-decoder's decoder gets the labels moved by one, behind its first token, and a mask.
    """
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    labels = batch.get("labels")
    if model.config.is_encoder_decoder and labels is not None:
        mask = labels != IGNORED
        inputs.setdefault("decoder_input_ids", _moved(model.config, labels.masked_fill(~mask, 0)))
        inputs.setdefault("decoder_attention_mask", mask.long())
    takes = inspect.signature(model.forward).parameters
    return {key: value for key, value in inputs.items() if key in takes}


def on_device_of(model: nn.Module, batch: Batch) -> Batch:
    """A batch where the model is, and in the dtype that it computes in."""
    parameter = next(model.parameters())
    return {
        key: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
        for key, value in batch.items()
    }


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Let a decoder not keep the keys and values of all layers, which only generation needs."""
    config = model.config.get_text_config()
    before = getattr(config, "use_cache", None)
    if before is None:
        yield
        return
    config.use_cache = False
    try:
        yield
    finally:
        config.use_cache = before


def _moved(config, labels: Tensor) -> Tensor:
    start = config.decoder_start_token_id
    if start is None:
        start = config.pad_token_id if config.bos_token_id is None else config.bos_token_id
    first = torch.full_like(labels[:, :1], start or 0)
    return torch.cat([first, labels[:, :-1]], dim=1)
