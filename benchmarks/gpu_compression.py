"""Parts of check_gpu.py: int8 on a GPU, and the tool `ffmerge compress` on one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import ffmerge
import subjects
from check_gpu import Findings, Setting
from experiment.evaluation.storage import storage
from ffmerge.method import quantization
from ffmerge.method.merge_on_disk import merge_on_disk
from ffmerge.method.windows import window
from ffmerge.models import checkpoint
from ffmerge.models.size import count_parameters
from ffmerge.models.towers import towers
from gpu_decisions import tolerances
from provenance.job import prepare_torch

# Largest errors, relative to the norm of the outputs. A layer's inputs are rounded to float16 on a
# processor too. A model differs by 10 bits of mantissa in 12 layers, and by some int8 steps.
INT8_LAYER, INT8_MODEL = 0.005, 0.05
INT8_STEPS = 1e-3  # share of weights that may be rounded to the neighbouring int8


# --- int8 -----------------------------------------------------------------------------------------


def int8(setting: Setting) -> Findings:
    """Compare bitsandbytes' CUDA kernels for LLM.int8() with its code for a processor."""
    findings, scratch, device = Findings(), setting.scratch, setting.device
    base = subjects.REPOSITORY / subjects.DEMO["gpt2"]["base_model"]["path"]
    merge_on_disk(base, window(["decoder"], 3, 5, "first"), None, scratch / "merged")
    models = {}
    for side, where in (("cpu", "cpu"), ("gpu", device)):
        prepare_torch(torch.get_num_threads(), where)
        models[side] = quantization.quantize(checkpoint.load(scratch / "merged", where))
        quantization.save(models[side], scratch / side)
    sizes = {}
    for side in models:
        (scratch / "float32").mkdir(exist_ok=True)
        sizes[side] = storage(base, scratch / "merged", scratch / side, scratch / "float32")
    findings.figures["storage"] = sizes["gpu"]
    findings.require(sizes["cpu"] == sizes["gpu"], f"bytes on disk differ: {sizes}")
    n_original = count_parameters(checkpoint.load(base))
    for side, sizes_of_side in sizes.items():
        parameters = sizes_of_side["int8_bytes"] + sizes_of_side["not_quantized_bytes"]
        buffers = sum(2 * buffer.numel() for buffer in _stored_buffers(models[side]))
        total = sizes_of_side["computed_percent"] / 100 * 4 * n_original
        findings.require(
            abs(parameters - buffers - total) < 1,
            f"{side}: {parameters - buffers} bytes of parameters on disk, {total:.0f} computed",
        )
    findings.figures["int8_weights_apart"] = _int8_apart(findings, models["cpu"], models["gpu"])
    batch, expected = _batch(setting.small), {}
    hooks = _record_inputs(models["cpu"], expected)
    logits = _logits(models["cpu"], batch)
    for hook in hooks:
        hook.remove()
    with torch.inference_mode():
        errors = [
            _relative(models["gpu"].get_submodule(name)(x.to(device, _dtype(models["gpu"]))), y)
            for name, (x, y) in expected.items()
        ]
    findings.figures["largest_error_of_a_layer"] = max(errors)
    findings.require(max(errors) <= INT8_LAYER, f"a layer's error is {max(errors):.3g}")
    loaded = quantization.load(scratch / "cpu", device)  # quantized on the processor
    for name, model in (("model", models["gpu"]), ("model_loaded", loaded)):
        error = findings.figures[f"error_of_{name}"] = _relative(_logits(model, batch), logits)
        findings.require(error <= INT8_MODEL, f"{name}: error of the logits {error:.3g}")
    n_maps, n_bytes = (sizes["gpu"][key] for key in ("n_quantized_linear_maps", "int8_bytes"))
    findings.shown = (
        f"{n_maps} maps, {n_bytes} bytes of int8; error of a layer {max(errors):.2g}, of the "
        f"logits {findings.figures['error_of_model']:.2g}"
    )
    return findings


def _stored_buffers(model: nn.Module) -> list[Tensor]:
    stored = model.state_dict()
    return [buffer for name, buffer in model.named_buffers() if name in stored]


def _int8_apart(findings: Findings, cpu: nn.Module, gpu: nn.Module) -> float:
    """Share of int8 weights that differ. One step is allowed, for few weights."""
    apart, n, steps = 0, 0, 0
    for (first, _), (second, _) in zip(
        quantization.linear_maps(cpu), quantization.linear_maps(gpu), strict=True
    ):
        difference = (first.state.CB.int() - second.state.CB.cpu().int()).abs()
        steps = max(steps, int(difference.max()))
        apart, n = apart + int((difference > 0).sum()), n + difference.numel()
    findings.require(steps <= 1 and apart <= INT8_STEPS * n, f"{apart} of {n} int8 weights differ")
    return apart / n


def _record_inputs(model: nn.Module, into: dict[str, tuple[Tensor, Tensor]]) -> list[Any]:
    """Record inputs and outputs of the first and last layers' linear maps in the next pass."""

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            into[name] = inputs[0], output

        return hook

    tower = towers(model)["decoder"]
    names = [tower.module(i, which) for i in (0, len(tower) - 1) for which in ("up", "down")]
    return [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]


def _batch(small: bool) -> Tensor:
    task = subjects.demo_task("gpt2")
    context, n = task.settings.context, 1 if small else 16
    return task.token_ids("validation", "blank_lines")[: n * context].view(n, context).long()


@torch.inference_mode()
def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids.to(model.device)).logits


def _relative(output: Tensor, expected: Tensor) -> float:
    return ((output.detach().float().cpu() - expected).norm() / expected.norm()).item()


def _dtype(model: nn.Module) -> torch.dtype:
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


# --- the tool -------------------------------------------------------------------------------------


def tool(setting: Setting) -> Findings:
    """Compare `ffmerge.compress` with model and batches on the GPU with a run on a processor."""
    task, findings = subjects.demo_task("gpt2"), Findings()
    context = task.settings.context
    n = 4 if setting.small else 32
    ids = task.token_ids("validation", "blank_lines")[: n * context].view(n, context).long()
    results = {}
    for side, device in (("cpu", "cpu"), ("gpu", setting.device)):
        batches = [{"input_ids": part.to(device)} for part in ids.split(2)]
        results[side] = ffmerge.compress(
            task.base_model,
            features=batches,
            out=setting.scratch / side,
            remove=1 if setting.small else "1/3",
            strategy="correlation" if setting.small else "window",
            n_tokens=200 if setting.small else 2000,
            device=device,
        )
        model = ffmerge.load(setting.scratch / side, device)
        findings.require(
            bool(_logits(model, ids[:1]).isfinite().all()), f"{side}: logits are not finite"
        )
    cpu, gpu = results["cpu"], results["gpu"]
    findings.figures = {
        "groups": [group.as_json() for group in gpu.groups],
        "losses": {"cpu": list(cpu.losses), setting.device: list(gpu.losses)},
    }
    findings.require(cpu.groups == gpu.groups, f"groups: {cpu.groups} and {gpu.groups}")
    bound = tolerances("score_windows")["loss"]
    for ours, theirs in zip(cpu.losses, gpu.losses, strict=True):
        findings.require(abs(ours - theirs) <= bound, f"losses {ours} and {theirs}")
    findings.shown = (
        f"layers {[list(g.layers) for g in gpu.groups]}, loss {gpu.losses[1]:.4f} on both"
    )
    return findings
