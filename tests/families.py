"""A pico model of every family in the table of architectures, and the sizes of its FF sublayers.

The sizes are written by hand, so that tests can check the table against them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pytest

D_MODEL, VOCABULARY, PAD, END = 8, 50, 0, 1
N_LAYERS = 3  # 4 in a decoder beside an encoder, or in an image tower beside a text tower


@dataclass(frozen=True)
class FF:
    """A tower's sublayers. width: d_ff. maps: 2, or 3 if gated (a fused map counts as two)."""

    width: int
    maps: int = 2
    bias: bool = True
    n_layers: int = N_LAYERS

    @property
    def n_parameters(self) -> int:
        biases = (self.maps - 1) * self.width + D_MODEL if self.bias else 0
        return self.maps * self.width * D_MODEL + biases


Batch = Literal["text", "images", "text and images", "text to text", "sound to text"]


@dataclass(frozen=True)
class Family:
    """One class of transformers, the keys of its configuration, and its towers."""

    model_type: str
    model_class: str
    settings: dict[str, Any]
    towers: dict[str, FF]
    batch: Batch = "text"

    @property
    def is_gated(self) -> bool:
        return any(ff.maps == 3 for ff in self.towers.values())


def _decoder(model_type: str, model_class: str, ff: FF, **settings) -> Family:
    return Family(model_type, model_class, {**_TEXT, **settings}, {"decoder": ff})


def _encoder(model_type: str, model_class: str, **settings) -> Family:
    return Family(model_type, model_class, {**_TEXT, **settings}, {"encoder": FF(16)})


def _vision(model_type: str, model_class: str, ff: FF, **settings) -> Family:
    return Family(model_type, model_class, {**_IMAGE, **settings}, {"encoder": ff}, "images")


def _bart(model_type: str, model_class: str, batch: Batch = "text to text", **settings) -> Family:
    towers = {"encoder": FF(16), "decoder": FF(24, n_layers=4)}
    return Family(model_type, model_class, {**_TWO_TOWERS, **settings}, towers, batch)


def _t5(model_type: str, model_class: str, maps: int = 2, **settings) -> Family:
    towers = {"encoder": FF(16, maps, bias=False), "decoder": FF(16, maps, bias=False, n_layers=4)}
    return Family(model_type, model_class, {**_T5, **settings}, towers, "text to text")


def _clip(model_type: str, model_class: str) -> Family:
    settings = {
        "text_config": {**_TEXT, "projection_dim": 8},
        "vision_config": {**_IMAGE, "num_hidden_layers": 4, "intermediate_size": 24},
        "projection_dim": 8,
    }
    towers = {"text": FF(16), "vision": FF(24, n_layers=4)}
    return Family(model_type, model_class, settings, towers, "text and images")


_SPECIAL = {"pad_token_id": PAD, "bos_token_id": END, "eos_token_id": END}
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": 16,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    **_SPECIAL,
}
_GROUPED = {"num_key_value_heads": 1, "head_dim": 4}  # grouped-query attention
_GPT2 = {"n_layer": N_LAYERS, "n_embd": D_MODEL, "n_inner": 16, "n_head": 2, "n_positions": 32}
_IMAGE = {
    "image_size": 8,
    "patch_size": 4,
    "num_hidden_layers": N_LAYERS,
    "hidden_size": D_MODEL,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_labels": 5,
}
_TWO_TOWERS = {
    "vocab_size": VOCABULARY,
    "d_model": D_MODEL,
    "encoder_layers": N_LAYERS,
    "decoder_layers": 4,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 32,
    "decoder_start_token_id": PAD,
    "forced_eos_token_id": END,
    **_SPECIAL,
}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": D_MODEL,
    "d_kv": 4,
    "d_ff": 16,
    "num_layers": N_LAYERS,
    "num_decoder_layers": 4,
    "num_heads": 2,
    "relative_attention_num_buckets": 4,
    "relative_attention_max_distance": 6,
    "decoder_start_token_id": PAD,
    **_SPECIAL,
}
_GATED = FF(16, maps=3, bias=False)
_SLIDING = {
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "sliding_window": 2,
}
_DEBERTA = {"relative_attention": True, "pos_att_type": "c2p|p2c"}

FAMILIES: dict[str, Family] = {
    # decoders
    "gpt2": Family(
        "gpt2",
        "GPT2LMHeadModel",
        {"vocab_size": VOCABULARY, **_GPT2, **_SPECIAL},
        {"decoder": FF(16)},
    ),
    "gpt_neo": _decoder(
        "gpt_neo",
        "GPTNeoForCausalLM",
        FF(16),
        num_layers=N_LAYERS,
        num_heads=2,
        window_size=2,
        attention_types=[[["global", "local"], 1], [["local"], 1]],
    ),
    "gptj": Family(
        "gptj",
        "GPTJForCausalLM",
        {"vocab_size": VOCABULARY, **_GPT2, "rotary_dim": 4, **_SPECIAL},
        {"decoder": FF(16)},
    ),
    "gpt_neox": _decoder("gpt_neox", "GPTNeoXForCausalLM", FF(16)),
    "opt": _decoder("opt", "OPTForCausalLM", FF(16), ffn_dim=16, word_embed_proj_dim=8),
    "bloom": _decoder("bloom", "BloomForCausalLM", FF(32), n_layer=N_LAYERS, n_head=2),
    "llama": _decoder("llama", "LlamaForCausalLM", _GATED, **_GROUPED),
    "llama, biases": _decoder(
        "llama", "LlamaForCausalLM", FF(16, maps=3), **_GROUPED, mlp_bias=True
    ),
    "mistral": _decoder("mistral", "MistralForCausalLM", _GATED, **_GROUPED, sliding_window=4),
    "qwen2": _decoder(
        "qwen2", "Qwen2ForCausalLM", _GATED, **_GROUPED, **_SLIDING, use_sliding_window=True
    ),
    "qwen3": _decoder(
        "qwen3", "Qwen3ForCausalLM", _GATED, **_GROUPED, **_SLIDING, use_sliding_window=True
    ),
    "gemma": _decoder("gemma", "GemmaForCausalLM", _GATED, **_GROUPED),
    "gemma2": _decoder("gemma2", "Gemma2ForCausalLM", _GATED, **_GROUPED, **_SLIDING),
    "gemma3_text": _decoder("gemma3_text", "Gemma3ForCausalLM", _GATED, **_GROUPED, **_SLIDING),
    "olmo": _decoder("olmo", "OlmoForCausalLM", _GATED, **_GROUPED),
    "olmo2": _decoder("olmo2", "Olmo2ForCausalLM", _GATED, **_GROUPED),
    "olmo3": _decoder("olmo3", "Olmo3ForCausalLM", _GATED, **_GROUPED, **_SLIDING),
    "smollm3": _decoder(
        "smollm3", "SmolLM3ForCausalLM", _GATED, **_GROUPED, no_rope_layers=[1, 0, 1]
    ),
    "phi": _decoder("phi", "PhiForCausalLM", FF(16)),
    "phi3": _decoder("phi3", "Phi3ForCausalLM", _GATED, **_GROUPED),
    # encoders
    "bert": _encoder("bert", "BertForMaskedLM"),
    "bert, no head": _encoder("bert", "BertModel"),
    "roberta": _encoder("roberta", "RobertaForMaskedLM"),
    "xlm-roberta": _encoder("xlm-roberta", "XLMRobertaForSequenceClassification"),
    "camembert": _encoder("camembert", "CamembertForMaskedLM"),
    "electra": _encoder("electra", "ElectraForPreTraining", embedding_size=4),
    "deberta": _encoder("deberta", "DebertaForMaskedLM", **_DEBERTA),
    "deberta-v2": _encoder("deberta-v2", "DebertaV2ForMaskedLM", **_DEBERTA, position_buckets=4),
    "distilbert": _encoder(
        "distilbert",
        "DistilBertForMaskedLM",
        dim=D_MODEL,
        hidden_dim=16,
        n_layers=N_LAYERS,
        n_heads=2,
    ),
    # images
    "vit": _vision("vit", "ViTForImageClassification", FF(16)),
    "deit": _vision("deit", "DeiTForImageClassification", FF(16)),
    "beit": _vision("beit", "BeitForImageClassification", FF(16), use_relative_position_bias=True),
    "dinov2": _vision("dinov2", "Dinov2ForImageClassification", FF(16), mlp_ratio=2),
    "dinov2, gated": _vision(
        "dinov2", "Dinov2ForImageClassification", FF(16, 3), mlp_ratio=3, use_swiglu_ffn=True
    ),
    "dinov2_with_registers": _vision(
        "dinov2_with_registers", "Dinov2WithRegistersForImageClassification", FF(16), mlp_ratio=2
    ),
    "swin": Family(
        "swin",
        "SwinForImageClassification",
        {
            "image_size": 8,
            "patch_size": 2,
            "embed_dim": D_MODEL,
            "depths": [3, 1],
            "num_heads": [2, 2],
            "window_size": 2,
            "mlp_ratio": 2.0,
            "num_labels": 5,
        },
        {"encoder": FF(16, n_layers=4)},  # the last one is 16 wide inside, 32 in its FF
        "images",
    ),
    "clip": _clip("clip", "CLIPModel"),
    "siglip": _clip("siglip", "SiglipModel"),
    # encoder-decoders
    "bart": _bart("bart", "BartForConditionalGeneration"),
    "mbart": _bart("mbart", "MBartForConditionalGeneration"),
    "marian": _bart("marian", "MarianMTModel", activation_function="swish"),
    "m2m_100": _bart("m2m_100", "M2M100ForConditionalGeneration"),
    "pegasus": _bart("pegasus", "PegasusForConditionalGeneration"),
    "t5": _t5("t5", "T5ForConditionalGeneration"),
    "t5, gated": _t5("t5", "T5ForConditionalGeneration", 3, feed_forward_proj="gated-gelu"),
    "mt5": _t5("mt5", "MT5ForConditionalGeneration", 3),
    "umt5": _t5("umt5", "UMT5ForConditionalGeneration", 3, feed_forward_proj="gated-gelu"),
    "whisper": _bart(
        "whisper",
        "WhisperForConditionalGeneration",
        "sound to text",
        num_mel_bins=4,
        max_source_positions=6,
        max_target_positions=32,
    ),
}

# One family for each way in which they differ: layout of a map, gate (apart and fused), biases,
# norms before or after, stages, images, sound, two towers, an encoder beside a decoder.
IN_SHORT = {
    *("gpt2", "llama", "phi3", "bert", "vit", "swin", "clip"),
    *("marian", "t5, gated", "whisper"),
}


def in_short(names: Iterable[str] = FAMILIES) -> list:
    """Parameters of a test: some families for `make test`, all of them for `make test-all`."""
    return [n if n in IN_SHORT else pytest.param(n, marks=pytest.mark.long) for n in names]


def pico(family: Family):
    """The family's model, in which every weight, bias and layer norm matters."""
    import torch
    import transformers

    model_class = getattr(transformers, family.model_class)
    model = model_class(model_class.config_class(**family.settings)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if not parameter.requires_grad:
                continue  # sinusoidal positions
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)  # of a layer norm
            else:
                parameter.copy_(0.4 * noise)
    return model


def batch_of(family: Family, seed: int = 0) -> dict:
    """A batch for the model's forward, with texts of different lengths."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    batch = {}
    if "text" in family.batch.split(" to ")[0].split(" and "):
        batch["input_ids"], batch["attention_mask"] = _padded([9, 6, 2], generator)
    if "images" in family.batch:
        side = 8
        batch["pixel_values"] = torch.randn(3, 3, side, side, generator=generator)
    if family.batch.startswith("sound"):
        batch["input_features"] = torch.randn(3, 4, 12, generator=generator)
    if family.batch.endswith("to text"):
        ids, mask = _padded([3, 8, 5], generator)
        batch |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    return batch


def output_of(model, batch: dict):
    """A model's logits, embeddings of both sides, or last states, at positions with tokens."""
    import torch

    with torch.inference_mode():
        output = model.eval()(**batch)
    if "logits_per_image" in output:
        return torch.cat([output.text_embeds, output.image_embeds])
    values = output.logits if "logits" in output else output.last_hidden_state
    mask = batch.get("decoder_attention_mask", batch.get("attention_mask"))
    return values[mask.bool()] if mask is not None and values.shape[:2] == mask.shape else values


def _padded(lengths: list[int], generator):
    import torch

    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(END + 1, VOCABULARY, mask.shape, generator=generator)
    return ids.masked_fill(mask == 0, PAD), mask
