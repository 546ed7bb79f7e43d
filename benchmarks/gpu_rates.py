"""Convert measured speeds to rows of config/rates.yaml and to shares of a card's peak.

Sizes of jobs are those of config/paper.yaml; sizes of data are those that their publishers state.
"""

import re
from typing import Any

import yaml
from torch import nn

import subjects
from check_gpu import Findings, Setting, card_and_driver
from experiment.config.run import Config
from experiment.plan import find_rate, rates_for

# Dense float16 matrix products with float32 sums, in FLOP/s, as NVIDIA states them. A card has the
# first entry whose words are in its name.
PEAK_FLOPS = {
    "B200": 2.25e15,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 150e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
START_UP = 17  # seconds of a job before it computes, as measured in config/rates.yaml
# Sizes of data as their publishers state them: tokens, images, sentences.
WIKITEXT = {"validation": 254_900, "test": 287_644}
IMAGENET_VALIDATION, TATOEBA_TEST = 50_000, 10_000


def paper_task(name: str, setting: Setting, batch_size: int | None = None) -> dict[str, Any]:
    """Select the keys of a task of config/paper.yaml that a job depends on.

    batch_size: another one than the paper's, for all parts.
    """
    raw = yaml.safe_load((subjects.REPOSITORY / "config/paper.yaml").read_text())
    settings = Config.model_validate(raw).tasks[name].model_dump(mode="json")
    tuning = settings["fine_tuning"]
    if batch_size:
        for part in ("fine_tuning", "validation", "test", "features"):
            settings[part]["batch_size"] = batch_size
    if setting.device == "cpu":
        tuning["precision"] = "bf16"
    keys = {"kind", "fine_tuning", "validation", "test", "features", "context", "source", "target"}
    return {key: settings[key] for key in settings if key in keys | {"max_tokens"}}


def peak_flops(card: str) -> float | None:
    """Look up a card in PEAK_FLOPS by its name."""
    return next((n for name, n in PEAK_FLOPS.items() if re.search(rf"\b{name}\b", card)), None)


def peak_share(
    findings: Findings, model: nn.Module, config: Any, positions: int, steps: float
) -> None:
    """Note the share of the card's peak that tuning reaches.

    Forward and backward take 6 FLOP a parameter and position, and 12 · L · d · context a position
    for attention, of which the masked half counts too. positions: a step; steps: a second.
    """
    n_parameters = sum(p.numel() for p in model.parameters())
    attention = 12 * config.n_layer * config.n_embd * config.n_positions
    flops = (6 * n_parameters + attention) * positions * steps
    peak = peak_flops(card_and_driver()[0] or "")
    findings.figures |= {
        "n_parameters": n_parameters,
        "tuning_flops_per_second": flops,
        "peak_flops": peak or "unknown",
        "share_of_peak": flops / peak if peak else "unknown",
    }


def add_rate(findings: Findings, rule: str, task: str, seconds: float, how: str) -> None:
    """Add a row of config/rates.yaml: a job of the paper at the measured speed."""
    raw = yaml.safe_load((subjects.REPOSITORY / "config/paper.yaml").read_text())
    file = subjects.REPOSITORY / "config/rates.yaml"
    gb = find_rate(rates_for(raw, file), rule, task).gb
    row = {"seconds": round(START_UP + seconds, 1), "gb": gb, "how": how}
    findings.rates.setdefault(rule, {})[task] = row


def tuning_rate(
    findings: Findings, setting: Setting, task: str, steps: float, validation: float
) -> None:
    """Add the row of fine-tuning. steps: a second; validation: seconds of one validation."""
    training = paper_task(task, setting)["fine_tuning"]
    n_validations = training["max_steps"] // training["evaluate_every"]
    seconds = training["max_steps"] / steps + n_validations * validation
    how = f"{steps:.4g} steps/s in {training['precision']}, validations of {validation:.1f} s"
    add_rate(findings, "fine_tune", task, seconds, how)
