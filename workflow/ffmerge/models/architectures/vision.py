"""Encoders of images, and CLIP's pair; each patch is a token, and so is the class token."""

from dataclasses import replace

from ffmerge.models.architectures.entry import Architecture, FeedForward, one_tower

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

VISION: dict[str, Architecture] = {
    "vit": one_tower("vit", "encoder", _VIT),
    "deit": one_tower("deit", "encoder", _VIT),
    "beit": one_tower("beit", "encoder", _VIT),
    "dinov2": one_tower("dinov2", "encoder", _DINOV2, _DINOV2_GIANT),
    "dinov2_with_registers": one_tower("dinov2_with_registers", "encoder", _DINOV2, _DINOV2_GIANT),
    "swin": one_tower(  # widths agree within a stage: merge layers of one
        "swin",
        "encoder",
        # attention puts positions out window by window, and every other layer shifts the windows:
        # its rows are not the same positions in two layers
        replace(_VIT, layers="encoder.layers.*.blocks.*", attention=None, count=None),
    ),
    "clip": _CLIP,
    "siglip": _CLIP,
    # one tower alone
    "clip_text_model": one_tower("text_model", "text", _CLIP_TEXT),
    "clip_vision_model": one_tower("vision_model", "vision", _CLIP_IMAGE),
    "siglip_text_model": one_tower("text_model", "text", _CLIP_TEXT),
    "siglip_vision_model": one_tower("vision_model", "vision", _CLIP_IMAGE),
}
