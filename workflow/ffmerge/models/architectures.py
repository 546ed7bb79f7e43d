"""The table of architectures: names of the modules that hold each one's sublayers.

An entry, from Python, JSON or YAML, lists the towers of a model by the names of their modules in
`transformers` 5. A tower is a stack of layers whose FF sublayers may be merged with each other:
GPT-2 and ViT have one tower, an encoder-decoder has two. A family is an entry of ARCHITECTURES,
under the `model_type` of its configuration.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from ffmerge.models.format import OWN_ENTRY, STOCK_TYPE


@dataclass(frozen=True)
class FeedForward:
    """One tower's feed-forward sublayers, `x_out = W_out φ(W_in x + b_in) + b_out` (Section 3.3).

    layers: path of the tower's layers in the base model, with `*` for a number: `h.*`.
    up, down: the linear maps W_in and W_out, relative to a layer.
    gate: W_gate of a gated sublayer, `W_out (φ(W_gate x) · W_in x)`; None for a plain one. The same
        name as `up` if one map outputs the gate's values followed by those of W_in.
    attention: the output projection of self-attention, relative to a layer.
    count: the configuration's key for the number of layers, with `.` between nested keys; None if
        layers are counted stage by stage.
    layout: how weights are stored: `out_in` (nn.Linear) or `in_out` (GPT-2's Conv1D).
    mask: the key of a batch that masks the positions with tokens; None if all positions have one.
    """

    layers: str
    up: str
    down: str
    gate: str | None = None
    attention: str | None = None
    count: str | None = "num_hidden_layers"
    layout: Literal["out_in", "in_out"] = "out_in"
    mask: str | None = "attention_mask"

    @property
    def fused(self) -> bool:
        """Whether gate and up are one linear map."""
        return self.gate == self.up

    @property
    def maps(self) -> tuple[str, ...]:
        """The linear maps of a sublayer, by the names of these fields; a fused one once."""
        return ("gate", "up", "down") if self.gate and not self.fused else ("up", "down")


ALLOWED = {  # key -> its values
    "layout": ("out_in", "in_out"),
    "mask": ("attention_mask", "decoder_attention_mask", None),
}


@dataclass(frozen=True)
class Architecture:
    """The towers of an architecture, by name.

    prefix: name of the base model within a model with a head; empty if there is none.
    towers: the forms of each tower, tried in turn (T5's sublayers are gated or not).
    """

    prefix: str
    towers: dict[str, tuple[FeedForward, ...]]

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Architecture":
        """Parse JSON or YAML values: `prefix`, and `towers` with the keys of FeedForward.

        A tower is one mapping, or a list of mappings if it comes in several forms.
        Raises ValueError naming a key that is missing or unknown.
        """
        if not entry.get("towers") or set(entry) - {"prefix", "towers"}:
            keys = ", ".join(map(str, entry))
            raise ValueError(f"an architecture has the keys prefix and towers (found: {keys})")
        return cls(
            entry.get("prefix") or "",
            {
                name: tuple(
                    _feed_forward(name, form)
                    for form in (forms if isinstance(forms, list) else [forms])
                )
                for name, forms in entry["towers"].items()
            },
        )

    def entry(self) -> dict[str, Any]:
        """Plain values for `from_entry`, without defaults."""
        defaults = {field.name: field.default for field in fields(FeedForward)}
        towers = {
            name: [
                {key: value for key, value in asdict(form).items() if value != defaults[key]}
                for form in forms
            ]
            for name, forms in self.towers.items()
        }
        return {"prefix": self.prefix, "towers": towers}


def _feed_forward(tower: str, form: Mapping[str, Any]) -> FeedForward:
    known = {field.name for field in fields(FeedForward)}
    if unknown := sorted(set(form) - known):
        raise ValueError(f"towers.{tower}: unknown {', '.join(unknown)} (known: {sorted(known)})")
    if missing := [key for key in ("layers", "up", "down") if not form.get(key)]:
        raise ValueError(f"towers.{tower}: {', '.join(missing)} missing")
    for key, allowed in ALLOWED.items():
        if form.get(key, allowed[0]) not in allowed:
            words = " or ".join("null" if value is None else value for value in allowed)
            raise ValueError(f"towers.{tower}.{key}: has to be {words}")
    return FeedForward(**form)


# --- the table ------------------------------------------------------------------------------------


def _one_tower(prefix: str, name: str, *forms: FeedForward) -> Architecture:
    return Architecture(prefix, {name: forms})


def _decoder(prefix: str, *maps: str, **more: str) -> Architecture:
    return _one_tower(prefix, "decoder", FeedForward(*maps, **more))


_LLAMA = _decoder(
    "model", "layers.*", "mlp.up_proj", "mlp.down_proj", "mlp.gate_proj", "self_attn.o_proj"
)

_BERT = FeedForward(
    "encoder.layer.*",
    up="intermediate.dense",
    down="output.dense",
    attention="attention.output.dense",
)
# no mask: every patch of an image is a token, and so is the class token
_VIT = FeedForward("layers.*", "mlp.fc1", "mlp.fc2", attention="attention.o_proj", mask=None)
_DINOV2 = replace(_VIT, layers="encoder.layer.*")
_DINOV2_GIANT = replace(_DINOV2, gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")

_CLIP_TEXT = FeedForward("encoder.layers.*", "mlp.fc1", "mlp.fc2", attention="self_attn.out_proj")
_CLIP_IMAGE = replace(_CLIP_TEXT, mask=None)


def _in_clip(form: FeedForward, name: str) -> tuple[FeedForward]:
    count = f"{name}_config.num_hidden_layers"
    return (replace(form, layers=f"{name}_model.{form.layers}", count=count),)


_CLIP = Architecture(
    "", {"text": _in_clip(_CLIP_TEXT, "text"), "vision": _in_clip(_CLIP_IMAGE, "vision")}
)

_BART_ENCODER = FeedForward(
    "encoder.layers.*", "fc1", "fc2", attention="self_attn.out_proj", count="encoder_layers"
)
_BART_DECODER = replace(
    _BART_ENCODER,
    layers="decoder.layers.*",
    count="decoder_layers",
    mask="decoder_attention_mask",
)
_BART = Architecture("model", {"encoder": (_BART_ENCODER,), "decoder": (_BART_DECODER,)})

_T5_ENCODER = FeedForward(
    "encoder.block.*",
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

ARCHITECTURES: dict[str, Architecture] = {
    # decoders: language models that predict the next token
    "gpt2": _decoder(
        *("transformer", "h.*", "mlp.c_fc", "mlp.c_proj"),
        attention="attn.c_proj",
        count="n_layer",
        layout="in_out",
    ),
    "gpt_neo": _decoder(
        *("transformer", "h.*", "mlp.c_fc", "mlp.c_proj"),
        attention="attn.attention.out_proj",
        count="num_layers",
    ),
    "gptj": _decoder(
        *("transformer", "h.*", "mlp.fc_in", "mlp.fc_out"),
        attention="attn.out_proj",
        count="n_layer",
    ),
    "gpt_neox": _decoder(  # Pythia too
        *("gpt_neox", "layers.*", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        attention="attention.dense",
    ),
    "opt": _decoder(
        "model", "decoder.layers.*", up="fc1", down="fc2", attention="self_attn.out_proj"
    ),
    "bloom": _decoder(
        *("transformer", "h.*", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
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
    "phi": _decoder("model", "layers.*", "mlp.fc1", "mlp.fc2", attention="self_attn.dense"),
    "phi3": _decoder(
        "model",
        "layers.*",
        gate="mlp.gate_up_proj",  # one map: the gate's rows, then those of up
        up="mlp.gate_up_proj",
        down="mlp.down_proj",
        attention="self_attn.o_proj",
    ),
    # encoders of text
    "bert": _one_tower("bert", "encoder", _BERT),
    "roberta": _one_tower("roberta", "encoder", _BERT),
    "xlm-roberta": _one_tower("roberta", "encoder", _BERT),
    "camembert": _one_tower("roberta", "encoder", _BERT),
    "electra": _one_tower("electra", "encoder", _BERT),
    "deberta": _one_tower("deberta", "encoder", _BERT),
    "deberta-v2": _one_tower("deberta", "encoder", _BERT),  # DeBERTa-v3 and mDeBERTa too
    "distilbert": _one_tower(
        "distilbert",
        "encoder",
        FeedForward(
            "transformer.layer.*",
            up="ffn.lin1",
            down="ffn.lin2",
            attention="attention.out_lin",
            count="n_layers",
        ),
    ),
    # encoders of images
    "vit": _one_tower("vit", "encoder", _VIT),
    "deit": _one_tower("deit", "encoder", _VIT),
    "beit": _one_tower("beit", "encoder", _VIT),
    "dinov2": _one_tower("dinov2", "encoder", _DINOV2, _DINOV2_GIANT),
    "dinov2_with_registers": _one_tower("dinov2_with_registers", "encoder", _DINOV2, _DINOV2_GIANT),
    "swin": _one_tower(  # widths agree within a stage only: merge layers of one stage
        "swin",
        "encoder",
        # no attention: it outputs positions window by window, and every other layer shifts the
        # windows, so that a row is not the same position in two layers
        replace(_VIT, layers="encoder.layers.*.blocks.*", attention=None, count=None),
    ),
    # pairs of both, and one tower of a pair
    "clip": _CLIP,
    "siglip": _CLIP,
    "clip_text_model": _one_tower("text_model", "text", _CLIP_TEXT),
    "clip_vision_model": _one_tower("vision_model", "vision", _CLIP_IMAGE),
    "siglip_text_model": _one_tower("text_model", "text", _CLIP_TEXT),
    "siglip_vision_model": _one_tower("vision_model", "vision", _CLIP_IMAGE),
    # encoder-decoders: two towers, whose layers are counted and merged separately
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
