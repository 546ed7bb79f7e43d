"""Decoders: language models that predict the next token."""

from ffmerge.models.architectures.entry import Architecture, FeedForward, one_tower


def _decoder(prefix: str, **names: str) -> Architecture:
    """An architecture with one tower. names: the fields of its FeedForward."""
    return one_tower(prefix, "decoder", FeedForward(**names))


_LLAMA = _decoder(
    "model",
    layers="layers.*",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    attention="self_attn.o_proj",
)

DECODERS: dict[str, Architecture] = {
    "gpt2": _decoder(
        "transformer",
        layers="h.*",
        up="mlp.c_fc",
        down="mlp.c_proj",
        attention="attn.c_proj",
        count="n_layer",
        layout="in_out",
    ),
    "gpt_neo": _decoder(
        "transformer",
        layers="h.*",
        up="mlp.c_fc",
        down="mlp.c_proj",
        attention="attn.attention.out_proj",
        count="num_layers",
    ),
    "gptj": _decoder(
        "transformer",
        layers="h.*",
        up="mlp.fc_in",
        down="mlp.fc_out",
        attention="attn.out_proj",
        count="n_layer",
    ),
    "gpt_neox": _decoder(  # Pythia too
        "gpt_neox",
        layers="layers.*",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
        attention="attention.dense",
    ),
    "opt": _decoder(
        "model", layers="decoder.layers.*", up="fc1", down="fc2", attention="self_attn.out_proj"
    ),
    "bloom": _decoder(
        "transformer",
        layers="h.*",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
        attention="self_attention.dense",
        count="n_layer",
    ),
    "llama": _LLAMA,  # SmolLM and SmolLM2 too
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "olmo3": _LLAMA,
    "smollm3": _LLAMA,
    "phi": _decoder(
        "model", layers="layers.*", up="mlp.fc1", down="mlp.fc2", attention="self_attn.dense"
    ),
    "phi3": _decoder(
        "model",
        layers="layers.*",
        gate="mlp.gate_up_proj",  # one map: the gate's rows, then those of up
        up="mlp.gate_up_proj",
        down="mlp.down_proj",
        attention="self_attn.o_proj",
    ),
}
