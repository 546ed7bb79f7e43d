"""Models and tasks to measure on: the demo's, and a ViT of the paper's size on its images."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from experiment.tasks import Task, task_for
from ffmerge.models import checkpoint

REPOSITORY = Path(__file__).parent.parent
DEMO = yaml.safe_load((REPOSITORY / "config/demo.yaml").read_text())["tasks"]

VIT_BASE = {  # transformers' defaults for a ViT are ViT-base's: 12 layers, d 768, ff 3072, 224 px
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "num_labels": 10,
}
VIT_TOY = VIT_BASE | {
    "image_size": 28,
    "patch_size": 7,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}


def demo_task(name: str, **changes: dict[str, Any]) -> Task:
    """Build a task of the demo. changes: key of the task -> settings below it to replace."""
    return _task(name, REPOSITORY / DEMO[name]["base_model"]["path"], changes)


def demo_model(name: str) -> nn.Module:
    """Load the base model of a task of the demo."""
    return checkpoint.load(REPOSITORY / DEMO[name]["base_model"]["path"])


def random_vit(architecture: dict[str, Any], directory: Path) -> nn.Module:
    """Make a ViT with random weights, and save it with an image processor for its image size."""
    torch.manual_seed(0)
    checkpoint.save(checkpoint.from_scratch(architecture), directory)
    processor = "preprocessor_config.json"
    shutil.copy(REPOSITORY / DEMO["vit"]["base_model"]["path"] / processor, directory)
    model = checkpoint.load(directory)
    size = model.config.image_size
    settings = json.loads((directory / processor).read_text())
    settings["size"] = {"height": size, "width": size}
    (directory / processor).write_text(json.dumps(settings))
    return model


def vit_task(directory: Path, **changes: dict[str, Any]) -> Task:
    """Build the demo's image task for the ViT in a directory."""
    return _task("vit", directory, changes)


def _task(name: str, base_model: Path, changes: dict[str, dict[str, Any]]) -> Task:
    settings = copy.deepcopy(DEMO[name])
    for key, values in changes.items():
        settings[key] |= values
    reading = ("kind", "context", "source", "target", "max_tokens", "features")
    parts = [*reading, "validation", "test", "fine_tuning"]
    splits = ("train", "validation", "test")
    data = {split: REPOSITORY / settings["dataset"][split]["path"] for split in splits}
    chosen = {key: settings[key] for key in parts if key in settings}
    return task_for(chosen, base_model, data)
