"""Pico models of each architecture with random weights, and random batches for them."""

from collections.abc import Callable, Iterator

import pytest

MODEL_TYPES = ("gpt2", "vit", "marian")
N_LAYERS, D_MODEL, D_FF, VOCABULARY = 4, 8, 16, 50
PAD, END = 0, 1


@pytest.fixture(params=MODEL_TYPES)
def model_type(request) -> str:
    """Each architecture of the paper."""
    return request.param


@pytest.fixture
def pico() -> Iterator[Callable]:
    """pico(model_type, n_layers=…, d_ff=…, seed=…): a model whose every weight and bias counts."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model only waits for a second one
    yield _pico
    torch.set_num_threads(threads)


@pytest.fixture
def random_batch() -> Callable:
    """random_batch(model_type, seed=…): what a model's forward takes, some of it padding."""
    return _random_batch


@pytest.fixture
def logits() -> Callable:
    """logits(model, batch): the model's output, in evaluation mode."""
    return _logits


def _pico(model_type: str, n_layers: int = N_LAYERS, d_ff: int = D_FF, seed: int = 0):
    import torch

    model = {"gpt2": _gpt2, "vit": _vit, "marian": _marian}[model_type](n_layers, d_ff).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embed_positions" in name:
                continue  # Marian's sinusoids
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)  # of a layer norm
            else:
                parameter.copy_(0.4 * noise)
        for buffer in model.buffers():
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    return model


def _gpt2(n_layers: int, d_ff: int):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=64,
            n_layer=n_layers,
            n_embd=D_MODEL,
            n_inner=d_ff,
            n_head=2,
            bos_token_id=END,
            eos_token_id=END,
        )
    )


def _vit(n_layers: int, d_ff: int):
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=4,
            num_hidden_layers=n_layers,
            hidden_size=D_MODEL,
            intermediate_size=d_ff,
            num_attention_heads=2,
            num_labels=5,
        )
    )


def _marian(n_layers: int, d_ff: int):
    """As OPUS-MT: swish, sinusoidal positions, layer norm after each sublayer, tied embeddings."""
    from transformers import MarianConfig, MarianMTModel

    return MarianMTModel(
        MarianConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=64,
            encoder_layers=n_layers,
            decoder_layers=n_layers,
            d_model=D_MODEL,
            encoder_ffn_dim=d_ff,
            decoder_ffn_dim=d_ff,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            activation_function="swish",
            scale_embedding=True,
            pad_token_id=PAD,
            eos_token_id=END,
            forced_eos_token_id=END,
            decoder_start_token_id=PAD,
        )
    )


def _random_batch(model_type: str, seed: int = 0) -> dict:
    import torch

    generator = torch.Generator().manual_seed(seed)
    if model_type == "vit":
        return {"pixel_values": torch.randn(3, 3, 8, 8, generator=generator)}
    ids, mask = _padded([9, 6, 2], generator)
    batch = {"input_ids": ids, "attention_mask": mask}
    if model_type == "marian":
        labels, target_mask = _padded([3, 8, 5], generator)
        batch["labels"] = labels.masked_fill(target_mask == 0, -100)
        batch["decoder_attention_mask"] = target_mask
    return batch


def _padded(lengths: list[int], generator):
    import torch

    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(END + 1, VOCABULARY, mask.shape, generator=generator)
    return ids.masked_fill(mask == 0, PAD), mask


def _logits(model, batch: dict):
    import torch

    with torch.inference_mode():
        return model.eval()(**batch).logits
