"""Parts of check_gpu.py: speed and memory of the paper's models, with random weights.

The measured rates are rows for config/rates.yaml, from which a run is planned (gpu_rates.py).
"""

import gc
import io
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset

import subjects
from check_gpu import Findings, Setting
from experiment.evaluation.perplexity import sliding_windows
from experiment.tasks import Task, task_for
from experiment.tasks.image_classification import ImageClassification
from experiment.tasks.language_modeling import TOKENS
from ffmerge.method.features import Features, collect_features
from ffmerge.method.permutation import align_all_pairs
from ffmerge.method.windows import pairs_in_windows
from ffmerge.training.trainer import train
from gpu_rates import (
    IMAGENET_VALIDATION,
    TATOEBA_TEST,
    WIKITEXT,
    add_rate,
    paper_task,
    peak_share,
    tuning_rate,
)
from provenance.job import prepare_torch
from provenance.record import usage

WARM_UP = 3  # steps of tuning before those that are timed
GIGA = 1e9


@dataclass(frozen=True)
class Size:
    """Amounts of work. model: changed keys of the model's configuration."""

    model: dict[str, Any] = field(default_factory=dict)
    n_steps: int = 20
    batch_size: int | None = None  # of tuning; None for the paper's
    n_tokens: int = 10_000
    n_pairs: int = 20
    n_examples: int = 512  # images, or sentences; and tokens, in units of the context
    max_length: int = 60  # generated tokens: what an average sentence has, padding included


SMALL_GPT2 = {"n_layer": 3, "n_embd": 16, "n_head": 2, "vocab_size": 300, "n_positions": 32}
SMALL_VIT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
SMALL_MARIAN = {"d_model": 16, "vocab_size": 6000, "decoder_vocab_size": 6000} | {
    f"{side}_{key}": value
    for side in ("encoder", "decoder")
    for key, value in (("layers", 2), ("ffn_dim", 32), ("attention_heads", 2))
}


# --- GPT-2 large ----------------------------------------------------------------------------------


def speed_gpt2(setting: Setting) -> Findings:
    """Time features, alignment, scoring and tuning of GPT-2 large."""
    size = Size(n_examples=32)
    if setting.small:
        size = Size(SMALL_GPT2, n_steps=2, n_tokens=100, n_pairs=2, n_examples=3)
    task_settings = paper_task("gpt2", setting, size.batch_size)
    config = transformers.GPT2Config(**{"n_layer": 36, "n_embd": 1280, "n_head": 20} | size.model)
    task_settings["context"] = context = config.n_positions
    for split in ("validation", "test"):
        task_settings[split] |= {"context": context, "stride": context // 2}
        task_settings[split]["max_tokens"] = size.n_examples * context // 2 + context
    n_chunks = (size.n_steps + WARM_UP + 1) * task_settings["fine_tuning"]["batch_size"]
    n_chunks = max(n_chunks, size.n_tokens // context + 2, size.n_examples)
    tokens = torch.randint(config.vocab_size, (n_chunks * context,), dtype=torch.int32)
    file = setting.scratch / "tokens.safetensors"
    save_file({TOKENS: tokens}, file)
    data = dict.fromkeys(("train", "validation", "test"), file)
    task = task_for(task_settings, setting.scratch, data)

    findings, device = Findings(), setting.device
    model = _random(transformers.GPT2LMHeadModel, config, device)
    file = setting.scratch / "features.safetensors"
    with _timed(findings, "features", device):
        collect_features(model, task.feature_batches(), size.n_tokens, file, device)
    features = Features(file)
    pairs = pairs_in_windows(config.n_layer, [(13 if not setting.small else 2, "first")])[
        : size.n_pairs
    ]
    layer, workers = partial(features.layer, "decoder"), min(len(pairs), torch.get_num_threads())
    list(align_all_pairs(layer, pairs[:1], 1, device=device))  # loads solver and kernels
    with _timed(findings, "alignment", device):
        solved = list(align_all_pairs(layer, pairs, workers, device=device))
    findings.require(len(solved) == len(pairs), "not all pairs were solved")
    file.unlink()
    task.evaluate(model, "validation", device)  # warms up
    with _timed(findings, "scoring", device):
        result = task.evaluate(model, "test", device)
    windows = sliding_windows(task_settings["test"]["max_tokens"], context, context // 2)
    positions = len(windows) * context / findings.figures["scoring_seconds"]
    findings.figures |= {
        "alignment_pairs": len(pairs),
        "alignment_workers": workers,
        "scored_tokens_per_second": result.details["n_tokens"]
        / findings.figures["scoring_seconds"],
        "scored_positions_per_second": positions,
    }
    steps = _tuned(findings, task, model, size, setting)
    batch = task.settings.fine_tuning.batch_size
    peak_share(findings, model, config, batch * context, steps)

    passes = {  # positions that are computed for a score
        split: len(sliding_windows(WIKITEXT[split], 1024, stride)) * 1024 / positions
        for split, stride in (("validation", 1023), ("test", 512))
    }
    add_rate(
        findings,
        "collect_features",
        "gpt2",
        findings.figures["features_seconds"],
        f"{size.n_tokens:,} positions",
    )
    for rule in ("score_windows", "score_layer_drops"):
        add_rate(findings, rule, "gpt2", passes["validation"], f"{positions:.4g} positions/s")
    add_rate(findings, "score_test", "gpt2", passes["test"], f"{positions:.4g} positions/s")
    tuning_rate(findings, setting, "gpt2", steps, passes["validation"])
    findings.shown = (
        f"tuning {steps:.3g} steps/s, {_share(findings)} of peak, {_memory(findings)}; scoring "
        f"{findings.figures['scored_tokens_per_second']:.4g} tokens/s; features "
        f"{findings.figures['features_seconds']:.1f} s; {len(pairs)} pairs "
        f"{findings.figures['alignment_seconds']:.1f} s"
    )
    return findings


# --- ViT-base -------------------------------------------------------------------------------------


class Decoded(ImageClassification):
    """The task with images that are already decoded and resized, so that loading takes no time."""

    pixels: torch.Tensor

    def training_examples(self, training: Any, seed: int) -> Dataset:
        return range(100 * len(self.pixels))

    def collate(self, examples: list[int]) -> dict[str, torch.Tensor]:
        n = len(examples)
        return {"pixel_values": self.pixels[:n], "labels": torch.zeros(n, dtype=torch.long)}


def speed_vit(setting: Setting) -> Findings:
    """Time tuning of ViT-base from decoded images and from JPEG files, and scoring."""
    size = Size()
    if setting.small:
        size = Size(SMALL_VIT, n_steps=2, batch_size=4, n_tokens=20, n_examples=8)
    settings = paper_task("vit", setting, size.batch_size)
    config = transformers.ViTConfig(**{"num_labels": 1000} | size.model)
    batch = settings["fine_tuning"]["batch_size"]
    images = _jpeg_files(setting.scratch / "images.parquet", size.n_examples, setting.small)
    _processor(setting.scratch, config.image_size)
    data = dict.fromkeys(("train", "validation", "test"), images)
    findings, device = Findings(), setting.device
    task = task_for(settings, setting.scratch, data)
    rows = task.rows("train")
    task.collate([rows[0]])  # warms up
    with _timed(findings, "loading", "cpu"):
        pixels = task.collate([rows[i] for i in range(batch)])["pixel_values"]
    model = _random(transformers.ViTForImageClassification, config, device)
    with _timed(findings, "features", device):
        file = setting.scratch / "features"
        collect_features(model, task.feature_batches(), size.n_tokens, file, device)
    _forward(model, pixels, device)
    with _timed(findings, "forward", device):
        for _ in range(size.n_steps):
            _forward(model, pixels, device)
    decoded = Decoded(task.settings, setting.scratch, data)
    decoded.pixels = pixels
    steps = _tuned(findings, decoded, model, size, setting, "decoded_")
    model = _random(transformers.ViTForImageClassification, config, device)
    few = Size(size.model, max(2, size.n_steps // 4))
    from_files = _tuned(findings, task, model, few, setting, "jpeg_")
    figures = findings.figures
    figures |= {
        "loaded_images_per_second": batch / figures["loading_seconds"],
        "tuned_images_per_second": {"decoded": steps * batch, "jpeg": from_files * batch},
        "scored_images_per_second": size.n_steps * len(pixels) / figures["forward_seconds"],
    }
    figures["loading_keeps_up"] = figures["loaded_images_per_second"] >= steps * batch
    slower = min(figures["loaded_images_per_second"], figures["scored_images_per_second"])
    scoring = IMAGENET_VALIDATION / slower
    add_rate(
        findings,
        "collect_features",
        "vit",
        figures["features_seconds"],
        f"{size.n_tokens:,} positions",
    )
    for rule in ("score_windows", "score_layer_drops", "score_test"):
        add_rate(findings, rule, "vit", scoring, f"{slower:.4g} images/s, loaded in one process")
    tuning_rate(findings, setting, "vit", from_files, scoring)
    keeps_up = "keeps up" if figures["loading_keeps_up"] else "does NOT keep up"
    findings.shown = (
        f"tuning {steps * batch:.4g} images/s decoded, {from_files * batch:.4g} from JPEG "
        f"({figures['loaded_images_per_second']:.4g} loaded: {keeps_up}); scoring "
        f"{figures['scored_images_per_second']:.4g} images/s; {_memory(findings, 'decoded_')}"
    )
    return findings


@torch.inference_mode()
def _forward(model: nn.Module, pixels: torch.Tensor, device: str) -> None:
    model(pixel_values=pixels.to(device))


def _jpeg_files(file: Path, n: int, small: bool) -> Path:
    """Write a Parquet file of JPEG images of 500 × 375 pixels and about 110 kB, as ImageNet's."""
    import datasets
    from PIL import Image

    generator, rows = torch.Generator().manual_seed(0), []
    height, width = (40, 50) if small else (375, 500)
    for i in range(n):
        coarse = torch.rand(1, 3, height // 5, width // 5, generator=generator)
        image = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
        image = (image + 0.08 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
        pixels, stream = (255 * image[0]).byte().permute(1, 2, 0).numpy(), io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=92)
        rows.append({"image": {"bytes": stream.getvalue(), "path": None}, "label": i % 10})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows, features=features).to_parquet(file)
    return file


def _processor(directory: Path, side: int) -> None:
    name = "preprocessor_config.json"
    demo = subjects.REPOSITORY / subjects.DEMO["vit"]["base_model"]["path"]
    settings = json.loads((demo / name).read_text()) | {"size": {"height": side, "width": side}}
    (directory / name).write_text(json.dumps(settings))


# --- the translator -------------------------------------------------------------------------------


def speed_marian(setting: Setting) -> Findings:
    """Time beam search and tuning of a model of opus-mt-zh-en's size on the demo's sentences."""
    size = Size(n_examples=256)
    if setting.small:
        size = Size(SMALL_MARIAN, n_steps=2, batch_size=2, n_examples=4, max_length=4)
    settings = paper_task("marian", setting, size.batch_size)
    for split in ("validation", "test"):
        settings[split] |= {"max_examples": size.n_examples, "max_length": size.max_length}
    rehearsal = yaml.safe_load((subjects.REPOSITORY / "config/rehearsal.yaml").read_text())
    model_settings = dict(
        rehearsal["tasks"]["marian"]["base_model"]["from_scratch"]["architecture"]
    )
    for key in ("model_type", "architectures"):
        del model_settings[key]
    config = transformers.MarianConfig(**model_settings | size.model)
    demo, scratch = subjects.DEMO["marian"], setting.scratch / "base"
    shutil.copytree(subjects.REPOSITORY / demo["base_model"]["path"], scratch)  # its tokenizer
    data = {s: subjects.REPOSITORY / demo["dataset"][s]["path"] for s in ("train", "test")}
    findings, device = Findings(), setting.device
    task = task_for(settings, scratch, data)
    model = _random(transformers.MarianMTModel, config, device)
    beams, batch = settings["test"]["num_beams"], settings["test"]["batch_size"]
    with _timed(findings, "first_translation", device):
        task.evaluate(model, "test", device)
    with _timed(findings, "translation", device):
        task.evaluate(model, "test", device)
    seconds = findings.figures["translation_seconds"]
    n_batches = -(-size.n_examples // batch)
    findings.figures |= {
        "num_beams": beams,
        "translated_sentences_per_second": size.n_examples / seconds,
        "seconds_per_batch_and_token": seconds / n_batches / size.max_length,
    }
    steps = _tuned(findings, task, model, size, setting)
    rate = findings.figures["translated_sentences_per_second"]
    how = f"{rate:.4g} sentences/s with {beams} beams, {size.max_length} tokens a batch"
    validation = paper_task("marian", setting)["validation"]["max_examples"] / rate
    add_rate(findings, "score_test", "marian", TATOEBA_TEST / rate, how)
    for rule in ("score_windows", "score_layer_drops"):
        add_rate(findings, rule, "marian", validation, how)
    tuning_rate(findings, setting, "marian", steps, validation)
    findings.shown = (
        f"{rate:.4g} sentences/s with {beams} beams "
        f"({1000 * findings.figures['seconds_per_batch_and_token']:.3g} ms a batch and token); "
        f"tuning {steps:.3g} steps/s, {_memory(findings)}"
    )
    return findings


# --- for all --------------------------------------------------------------------------------------


def _random(model_class: type, config: Any, device: str) -> nn.Module:
    """Make a model with random weights on the device, after setting torch as a job does."""
    prepare_torch(torch.get_num_threads(), device)
    torch.manual_seed(0)
    with torch.device(device):
        return model_class(config).eval()


@contextmanager
def _timed(findings: Findings, name: str, device: str) -> Iterator[None]:
    """Note the seconds that a block takes, with the work that it starts on the GPU."""
    _synchronize(device)
    begun = time.perf_counter()
    yield
    _synchronize(device)
    findings.figures[f"{name}_seconds"] = time.perf_counter() - begun


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


class Enough(Exception):
    """Ends a training after the timed steps, before it saves anything."""


def _tuned(
    findings: Findings,
    task: Task,
    model: nn.Module,
    size: Size,
    setting: Setting,
    prefix: str = "",
) -> float:
    """Time steps of the workflow's training after a warm-up, and note its peak memory."""
    device, begun = setting.device, []

    def begin(*_: Any) -> None:
        _synchronize(device)
        begun.append(time.perf_counter())
        if len(begun) > WARM_UP + size.n_steps:
            raise Enough

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    training = task.settings.fine_tuning
    with model.register_forward_pre_hook(begin), suppress(Enough):
        train(model, task, training, setting.scratch / "tuning", seed=1, device=device)
    gc.collect()  # the optimizer's state
    steps = size.n_steps / (begun[-1] - begun[WARM_UP])
    peak = torch.cuda.max_memory_allocated() if device != "cpu" else usage()["peak_memory_bytes"]
    findings.figures |= {
        f"{prefix}tuning_steps_per_second": steps,
        f"{prefix}tuning_precision": training.precision,
        f"{prefix}tuning_peak_memory_bytes": peak,
    }
    return steps


def _memory(findings: Findings, prefix: str = "") -> str:
    return f"{findings.figures[f'{prefix}tuning_peak_memory_bytes'] / GIGA:.1f} GB"


def _share(findings: Findings) -> str:
    share = findings.figures["share_of_peak"]
    return f"{share:.1%}" if isinstance(share, float) else f"{share} share"
