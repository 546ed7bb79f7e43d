"""Encoder-decoders: two towers, whose layers are counted and merged separately."""

from dataclasses import replace

from ffmerge.models.architectures.entry import Architecture, FeedForward

_BART_ENCODER = FeedForward(
    layers="encoder.layers.*",
    up="fc1",
    down="fc2",
    attention="self_attn.out_proj",
    count="encoder_layers",
)
_BART_DECODER = replace(
    _BART_ENCODER,
    layers="decoder.layers.*",
    count="decoder_layers",
    mask="decoder_attention_mask",
)
_BART = Architecture("model", {"encoder": (_BART_ENCODER,), "decoder": (_BART_DECODER,)})

_T5_ENCODER = FeedForward(
    layers="encoder.block.*",
    up="layer.1.DenseReluDense.wi",
    down="layer.1.DenseReluDense.wo",
    attention="layer.0.SelfAttention.o",
    count="num_layers",
)
_T5_DECODER = replace(
    _T5_ENCODER,
    layers="decoder.block.*",
    up="layer.2.DenseReluDense.wi",  # after attention to the encoder, layer.1
    down="layer.2.DenseReluDense.wo",
    count="num_decoder_layers",
    mask="decoder_attention_mask",
)


def _plain_or_gated(form: FeedForward) -> tuple[FeedForward, FeedForward]:
    """T5's plain form, and the gated one of T5 v1.1, Flan-T5 and mT5: φ(wi_0 x) · wi_1 x."""
    return form, replace(form, gate=f"{form.up}_0", up=f"{form.up}_1")


_T5 = Architecture(
    "transformer",  # of a classifier
    {"encoder": _plain_or_gated(_T5_ENCODER), "decoder": _plain_or_gated(_T5_DECODER)},
)

ENCODER_DECODERS: dict[str, Architecture] = {
    "bart": _BART,
    "mbart": _BART,
    "marian": _BART,
    "m2m_100": _BART,  # NLLB too
    "pegasus": _BART,
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "whisper": Architecture(
        "model",
        # 30 s of sound: all positions count, silence included, and are half as many as the input's
        {"encoder": (replace(_BART_ENCODER, mask=None),), "decoder": (_BART_DECODER,)},
    ),
}
