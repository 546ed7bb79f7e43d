"""Encoders of text and of images, and CLIP's pair of both."""

from dataclasses import replace

from ffmerge.models.architectures.entry import Architecture, FeedForward, one_tower

_BERT = FeedForward(
    layers="encoder.layer.*",
    up="intermediate.dense",
    down="output.dense",
    attention="attention.output.dense",
)

# no mask: every patch of an image is a token, and so is the class token
_VIT = FeedForward(
    layers="layers.*", up="mlp.fc1", down="mlp.fc2", attention="attention.o_proj", mask=None
)
_DINOV2 = replace(_VIT, layers="encoder.layer.*")
_DINOV2_GIANT = replace(_DINOV2, gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")

_CLIP_IMAGE = FeedForward(
    layers="encoder.layers.*",
    up="mlp.fc1",
    down="mlp.fc2",
    attention="self_attn.out_proj",
    mask=None,
)
_CLIP_TEXT = replace(_CLIP_IMAGE, mask="attention_mask")
_CLIP = Architecture(
    "",
    {
        "text": (
            replace(
                _CLIP_TEXT,
                layers="text_model.encoder.layers.*",
                count="text_config.num_hidden_layers",
            ),
        ),
        "vision": (
            replace(
                _CLIP_IMAGE,
                layers="vision_model.encoder.layers.*",
                count="vision_config.num_hidden_layers",
            ),
        ),
    },
)

ENCODERS: dict[str, Architecture] = {
    # text
    "bert": one_tower("bert", "encoder", _BERT),
    "roberta": one_tower("roberta", "encoder", _BERT),
    "xlm-roberta": one_tower("roberta", "encoder", _BERT),
    "camembert": one_tower("roberta", "encoder", _BERT),
    "electra": one_tower("electra", "encoder", _BERT),
    "deberta": one_tower("deberta", "encoder", _BERT),
    "deberta-v2": one_tower("deberta", "encoder", _BERT),  # DeBERTa-v3 and mDeBERTa too
    "distilbert": one_tower(
        "distilbert",
        "encoder",
        FeedForward(
            layers="transformer.layer.*",
            up="ffn.lin1",
            down="ffn.lin2",
            attention="attention.out_lin",
            count="n_layers",
        ),
    ),
    # images
    "vit": one_tower("vit", "encoder", _VIT),
    "deit": one_tower("deit", "encoder", _VIT),
    "beit": one_tower("beit", "encoder", _VIT),
    "dinov2": one_tower("dinov2", "encoder", _DINOV2, _DINOV2_GIANT),
    "dinov2_with_registers": one_tower("dinov2_with_registers", "encoder", _DINOV2, _DINOV2_GIANT),
    "swin": one_tower(  # widths agree within a stage only: merge layers of one stage
        "swin",
        "encoder",
        # no attention: it outputs positions window by window, and every other layer shifts the
        # windows, so that a row is not the same position in two layers
        replace(_VIT, layers="encoder.layers.*.blocks.*", attention=None, count=None),
    ),
    # pairs of both, and one tower of a pair
    "clip": _CLIP,
    "siglip": _CLIP,
    "clip_text_model": one_tower("text_model", "text", _CLIP_TEXT),
    "clip_vision_model": one_tower("vision_model", "vision", _CLIP_IMAGE),
    "siglip_text_model": one_tower("text_model", "text", _CLIP_TEXT),
    "siglip_vision_model": one_tower("vision_model", "vision", _CLIP_IMAGE),
}
