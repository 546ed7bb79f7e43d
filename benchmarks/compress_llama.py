"""Compress a LLaMA of 1.2 B parameters with the tool, in bfloat16: a part of `make rehearsal`.

Random weights, real text, 10,000 positions: three windows aligned and tried, one merged and stored.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import subjects

GB = 1e9
BARS = {"memory_gb": 16.0, "minutes": 30.0}


@dataclass(frozen=True)
class Size:
    """A model's architecture, and what to do with it."""

    architecture: dict[str, Any]
    n_tokens: int
    max_length: int
    n_held_out: int

    @property
    def n_removed(self) -> int:
        """Sublayers to remove so that there are three windows."""
        return self.architecture["num_hidden_layers"] - 3


FULL = Size(  # the shape of Llama-3.2-1B
    {
        "num_hidden_layers": 16,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    n_tokens=10_000,
    max_length=512,
    n_held_out=4,
)
TOY = Size(
    {
        "num_hidden_layers": 5,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 4096,
        "tie_word_embeddings": True,
    },
    n_tokens=800,
    max_length=256,  # more than the demo's GPT-2 takes
    n_held_out=4,
)


def make(size: Size, directory: Path) -> int:
    """Write a model with random weights in bfloat16. Returns its number of parameters."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", bos_token_id=0, eos_token_id=0, **size.architecture)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(subjects.REPOSITORY / "resources/demo/models/gpt2")
    tokenizer.model_max_length = config.max_position_embeddings  # the demo's model takes 128 tokens
    tokenizer.save_pretrained(directory)
    return model.num_parameters()


def compress(size: Size, model: Path, out: Path) -> dict[str, Any]:
    """Run the command. Returns its summary, with its minutes, processor minutes and peak memory."""
    command = [
        *(sys.executable, "-m", "ffmerge", "compress", model, "--remove", size.n_removed),
        *("--features", subjects.REPOSITORY / "resources/demo/data/text/train.parquet"),
        *("--dtype", "bfloat16", "--n-tokens", size.n_tokens, "--max-length", size.max_length),
        *("--n-held-out", size.n_held_out, "--batch-size", 1, "--out", out, "--json"),
    ]
    environment = os.environ | {"PYTHONPATH": str(subjects.REPOSITORY / "workflow")}
    begun = time.perf_counter()
    with subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: {' '.join(map(str, command))} ended with {process.returncode}")
    return json.loads(printed) | {
        "minutes": (time.perf_counter() - begun) / 60,
        "processor_minutes": (used.ru_utime + used.ru_stime) / 60,
        "memory_gb": 1024 * used.ru_maxrss / GB,
    }


def report(size: Size, n_parameters: int, summary: dict[str, Any]) -> tuple[list[str], bool]:
    """Lines on the stages of a compression, and whether all limits are kept."""
    within = all(summary[name] <= most for name, most in BARS.items())
    sizes = summary["bytes"]
    n_layers = size.architecture["num_hidden_layers"]
    return [
        f"LLaMA of {n_parameters:,} parameters in bfloat16, {n_layers} layers, "
        f"d_ff {size.architecture['intermediate_size']}: {len(summary['tried'])} windows of "
        f"{size.n_removed + 1} layers, {size.n_tokens:,} positions",
        *(f"{stage:>14}  {seconds:8.1f} s" for stage, seconds in summary["seconds"].items()),
        f"{summary['minutes']:.1f} minutes (at most {BARS['minutes']:g}), "
        f"{summary['processor_minutes']:.1f} of processor time; peak memory "
        f"{summary['memory_gb']:.2f} GB (at most {BARS['memory_gb']:g}); on disk "
        f"{sizes['before'] / GB:.2f} GB, merged {sizes['after'] / GB:.2f} GB",
        "Both limits are kept." if within else "broken: a limit of this part is exceeded",
    ], within


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a tiny model, to try this program")
    parser.add_argument("--scratch", type=Path, help="where to put 13 GB for a while")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as directory:
        model, size = Path(directory, "model"), TOY if chosen.small else FULL
        n_parameters = make(size, model)
        lines, within = report(size, n_parameters, compress(size, model, Path(directory, "out")))
    print("\n".join(lines))
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
