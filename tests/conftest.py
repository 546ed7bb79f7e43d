"""Pico models of each architecture with random weights, batches for them, and results of tests."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from workflow_copy import Copy

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # before torch: the same bits, however aligned

MODEL_TYPES = ("gpt2", "vit", "marian")
N_LAYERS, D_MODEL, D_FF, VOCABULARY = 4, 8, 16, 50
PAD, END = 0, 1


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of the finished run, and count a long test among the slow ones."""
    items.sort(key=lambda item: "finished" not in item.fixturenames)
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Copy:
    """A run of everything for all three tasks; a test that changes it restores it, or copies it.

    Of several processes of pytest-xdist the first makes it; each has a copy of its own.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished-run"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done := shared.with_suffix(".done")).exists():
            repository = Copy(shared, ["gpt2", "vit", "marian"])
            repository.commit()  # so that records name one
            repository.run()
            done.touch()
    root = tmp_path_factory.mktemp("finished") / "run"
    return Copy.at(Path(shutil.copytree(shared, root, symlinks=True)))


@pytest.fixture(params=MODEL_TYPES)
def model_type(request) -> str:
    """Each architecture of the paper."""
    return request.param


@pytest.fixture
def pico() -> Iterator[Callable]:
    """pico(model_type, n_layers=…, d_ff=…, seed=…): a model whose every weight and bias counts.

    Besides the paper's architectures, BERT and Llama, whose sublayers are gated and have no biases.
    """
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


@pytest.fixture
def result(tmp_path) -> Callable:
    """result(variant, score, task="gpt2", **changes): of a model of 12 layers, and its test.json.

    Without changes its layers 3 to 7, of each tower, are merged, and its size is the base model's.
    """
    from experiment.tables.scores import Result
    from experiment.variants import Variant

    labels = {"gpt2": "GPT-2", "vit": "ViT", "marian": "OPUS-MT"}
    metrics = {"gpt2": "perplexity", "vit": "accuracy", "marian": "bleu"}
    base_file, numbers = tmp_path / "base/test.json", count()
    base_file.parent.mkdir()
    base_file.write_text(json.dumps({"n_parameters": 1000}))

    def made(variant: str, score: float, task: str = "gpt2", **changes) -> Result:
        named = None if variant.startswith("base") else Variant.parse(variant)
        file = tmp_path / f"tests/{next(numbers)}/test.json"
        values = {
            "task": task,
            "model": labels[task],
            "metric": metrics[task],
            "variant": variant,
            "method": named.method if named else None,
            "k": named.k if named else None,
            "anchor": named.anchor if named else None,
            "role": named.role if named else None,
            "int8": named.int8 if named else False,
            "seed": named.seed if named else None,
            "first_layer": 3 if named else None,
            "last_layer": 7 if named else None,
            "n_towers": 2 if task == "marian" else 1,
            "sublayers_removed": 4 if named else 0,
            "sublayers": 12,
            "score": score,
            "low": score - 1,
            "high": score + 1,
            "confidence": 0.95,
            "over": "100 test examples, each on its own",
            "from_base_low": score - 0.5 if named else None,
            "from_base_high": score + 0.5 if named else None,
            "loss": 3.0,
            "n_parameters": 1000,
            "reduction_percent": 0.0,
            "file": file,
            "base_file": base_file,
        }
        found = Result(**values | changes)
        layers = list(range(found.first_layer, found.last_layer + 1)) if named else []
        windows = [{"layers": layers}] * found.n_towers if named else []
        summary = {
            "score": found.score,
            "n_parameters": found.n_parameters,
            "n_sublayers_removed": found.sublayers_removed,
            "n_sublayers": found.sublayers,
            "merged": [] if found.method == "drop" else windows,
            "dropped": windows if found.method == "drop" else [],
        }
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(summary))
        return found

    return made


@pytest.fixture
def job_with() -> Callable:
    """job_with(folder, inputs, table="t.csv", …): as much of a job as its ledger is made of."""
    from provenance.digest import sha256_of

    def made(folder: Path, inputs=(), **outputs: str) -> SimpleNamespace:
        folder.mkdir(exist_ok=True)
        files = SimpleNamespace(**{name: folder / file for name, file in outputs.items()})
        digests = {str(file): sha256_of(file) for file in inputs}
        return SimpleNamespace(output=files, destination=files, input_digests=digests)

    return made


def _pico(model_type: str, n_layers: int = N_LAYERS, d_ff: int = D_FF, seed: int = 0):
    import torch

    build = {"gpt2": _gpt2, "vit": _vit, "marian": _marian, "bert": _bert, "llama": _llama}
    model = build[model_type](n_layers, d_ff).eval()
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
        stored = model.state_dict()  # what is not, such as positions, is computed
        for name, buffer in model.named_buffers():
            if name not in stored:
                continue
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


def _bert(n_layers: int, d_ff: int):
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(
        BertConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=64,
            num_hidden_layers=n_layers,
            hidden_size=D_MODEL,
            intermediate_size=d_ff,
            num_attention_heads=2,
            pad_token_id=PAD,
        )
    )


def _llama(n_layers: int, d_ff: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=64,
            num_hidden_layers=n_layers,
            hidden_size=D_MODEL,
            intermediate_size=d_ff,
            num_attention_heads=2,
            bos_token_id=END,
            eos_token_id=END,
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
