"""Read a language model of LLaMA's architecture from GGUF, the format of llama.cpp.

Format: ggml-org/ggml, docs/gguf.md. transformers reads it only with another package.
"""

import glob
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from experiment.inputs.packages import iter_members

MAGIC, VERSIONS = b"GGUF", (2, 3)
STRING, ARRAY, CONTROL = 8, 9, 3
SCALARS = dict(zip([*range(8), 10, 11, 12], "BbHhIif?Qqd", strict=True))
"""Number of a type -> its letter in `struct`."""
BLOCK = 32  # numbers that share a scale
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
KEYS = {  # of transformers' LlamaConfig -> of GGUF
    "vocab_size": "llama.vocab_size",
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "max_position_embeddings": "llama.context_length",
    "rope_theta": "llama.rope.freq_base",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
}


def model_in_gguf(package: Path, name: str) -> dict[str, bytes]:
    """Name and content of a model's files, from a GGUF file that a registry's package ships.

    name: of that file in the package. Weights become float32.
    Raises ValueError if the file is damaged, or has an architecture, a tokenizer or a type of
    tensor that is not read here.
    """
    from safetensors.numpy import save

    ((_, content),) = iter_members(package, glob.escape(name))
    try:
        metadata, stored = _read(content)
        if (found := metadata["general.architecture"]) != "llama":
            raise ValueError(f"the architecture is {found}, only llama is read")
        config = {key: metadata[named] for key, named in KEYS.items()}
        tensors = {
            f"{_renamed(key)}.weight": _rotated(key, tensor, config)
            for key, tensor in stored.items()
        }
        tokenizer = _tokenizer(metadata)
    except KeyError as error:
        raise ValueError(f"{name} in {package.name}: has no {error.args[0]}") from None
    except (ValueError, TypeError, IndexError, struct.error) as error:
        raise ValueError(f"{name} in {package.name}: {error}") from None
    tied = "lm_head.weight" not in tensors
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    config |= {"tie_word_embeddings": tied, "dtype": "float32"}
    return {
        "config.json": json.dumps(config, indent=1).encode(),
        "model.safetensors": save(tensors, {"format": "pt"}),
        **tokenizer,
    }


def _read(content: bytes) -> tuple[dict[str, Any], dict[str, numpy.ndarray]]:
    """Metadata and tensors of a GGUF file."""
    file = io.BytesIO(content)

    def number(kind: str) -> Any:
        (value,) = struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))
        return value

    def text() -> str:
        return file.read(number("Q")).decode()

    def value(kind: int) -> Any:
        if kind == ARRAY:
            kind, n = number("I"), number("Q")
            return [value(kind) for _ in range(n)]
        if kind != STRING and kind not in SCALARS:
            raise ValueError(f"a value is of unknown type {kind}")
        return text() if kind == STRING else number(SCALARS[kind])

    if file.read(4) != MAGIC or number("I") not in VERSIONS:
        raise ValueError("is not GGUF of version 2 or 3")
    n_tensors, n_keys = number("Q"), number("Q")
    metadata = {text(): value(number("I")) for _ in range(n_keys)}
    entries = [
        (text(), [number("Q") for _ in range(number("I"))], number("I"), number("Q"))
        for _ in range(n_tensors)
    ]
    alignment = metadata.get("general.alignment", 32)
    start = -(-file.tell() // alignment) * alignment
    tensors = {}
    for name, shape, kind, offset in entries:
        if kind not in TYPES:
            raise ValueError(f"{name} is of type {kind}; read are {', '.join(map(str, TYPES))}")
        block, layout, decoded = TYPES[kind]
        n = int(numpy.prod(shape)) // block
        raw = numpy.frombuffer(content, layout, n, start + offset)
        tensors[name] = decoded(raw).astype(numpy.float32).reshape(shape[::-1])
    return metadata, tensors


def _q4_1(blocks: numpy.ndarray) -> numpy.ndarray:
    """32 numbers of 4 bits: the low halves of 16 bytes, then the high ones, scale · q + minimum."""
    q = numpy.concatenate([blocks["q"] & 15, blocks["q"] >> 4], axis=1).astype(numpy.float32)
    return blocks["d"][:, None].astype(numpy.float32) * q + blocks["m"][:, None]


def _q8_0(blocks: numpy.ndarray) -> numpy.ndarray:
    return blocks["d"][:, None].astype(numpy.float32) * blocks["q"]


TYPES: dict[int, tuple[int, Any, Callable[[numpy.ndarray], numpy.ndarray]]] = {
    # number of the type -> numbers in a block, its layout, and how it is decoded
    0: (1, numpy.dtype("<f4"), numpy.asarray),
    1: (1, numpy.dtype("<f2"), numpy.asarray),
    3: (BLOCK, numpy.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", BLOCK // 2)]), _q4_1),
    8: (BLOCK, numpy.dtype([("d", "<f2"), ("q", "i1", BLOCK)]), _q8_0),
}


def _renamed(name: str) -> str:
    """The name in transformers of a GGUF tensor's module."""
    parts = name.removesuffix(".weight").split(".")
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in PARTS:
        return f"model.layers.{parts[1]}.{PARTS[parts[2]]}"
    if name in {f"{known}.weight" for known in OUTSIDE}:
        return OUTSIDE[parts[0]]
    raise ValueError(f"{name} is no tensor of LLaMA's")


def _rotated(name: str, tensor: numpy.ndarray, config: dict[str, Any]) -> numpy.ndarray:
    """A tensor with the two halves of a head's rotary dimensions apart, as transformers has them.

    GGUF has the members of each pair side by side.
    """
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    if (key := heads.get(name.split(".")[-2])) is None:
        return tensor
    pairs = tensor.reshape(config[key], -1, 2, tensor.shape[1])  # (heads, pairs, 2, d_model)
    return numpy.ascontiguousarray(pairs.swapaxes(1, 2).reshape(tensor.shape))


def _tokenizer(metadata: dict[str, Any]) -> dict[str, bytes]:
    """The files of a byte-level BPE tokenizer that splits numbers into digits."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"the tokenizer is {' '.join(kind)}, only gpt2 smollm is read")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t, k in special if k == CONTROL]
    )
    about = {"tokenizer_class": "PreTrainedTokenizerFast"}
    about["bos_token"] = tokens[metadata["tokenizer.ggml.bos_token_id"]]
    about["eos_token"] = tokens[metadata["tokenizer.ggml.eos_token_id"]]
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(about, indent=1).encode(),
    }
