"""Pico models saved like a user's, with tokenizers and processors, and data for them."""

import json
import random
from pathlib import Path

from experiment.cli import main
from families import END, FAMILIES, PAD, VOCABULARY, Family, pico

MASK = VOCABULARY - 1
WORDS = [f"w{i}" for i in range(2, MASK)]
SIZE = 8  # of images


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Run `ffmerge`; returns exit status, output and errors."""
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def save(family: Family | str, directory: Path, **options) -> Path:
    """Save a pico model of a family, with its tokenizer or processor."""
    family = FAMILIES[family] if isinstance(family, str) else family
    pico(family).save_pretrained(directory, **options)
    if "images" in family.batch:
        image_processor(directory)
    if "text" in family.batch and "sound" not in family.batch:
        tokenizer(directory)
    return directory


def tokenizer(directory: Path) -> None:
    """Save a tokenizer of WORDS, which ends every text with END."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "</s>": END, **{w: i + 2 for i, w in enumerate(WORDS)}, "<mask>": MASK}
    backend = Tokenizer(models.WordLevel(words, unk_token="w2"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", END)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        mask_token="<mask>",
        model_max_length=16,
    ).save_pretrained(directory)


def image_processor(directory: Path) -> None:
    """Save an image processor for images of SIZE."""
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": SIZE, "width": SIZE},
        "do_resize": True,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))


def text(seed: int = 0, n_words: int = 9) -> str:
    """A text of the tokenizer's words."""
    return " ".join(random.Random(seed).choices(WORDS, k=n_words))


def data_for(family: Family, directory: Path) -> Path:
    """Write a file or folder of data that a model of a family takes."""
    directory.mkdir(parents=True, exist_ok=True)
    if family.batch == "text":
        (directory / "a.txt").write_text("\n\n".join(text(i) for i in range(40)))
    elif family.batch == "text to text":
        pairs = [{"source": text(i), "target": text(i + 100)} for i in range(40)]
        lines = "\n".join(json.dumps(pair) for pair in pairs)
        (directory / "pairs.jsonl").write_text(lines)
    elif family.batch == "images":
        for i in range(20):
            image(directory / f"{i}.png", i)
    else:
        with_text(directory / "captions.parquet", directory)
    return directory


def image(file: Path, seed: int) -> Path:
    """Save an image of random colours."""
    import numpy
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = numpy.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype="uint8")
    Image.fromarray(pixels).save(file)
    return file


def with_text(file: Path, scratch: Path) -> None:
    """Save images with a text and a label each, as the library `datasets` stores them."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        {
            "image": {"bytes": image(scratch / "one.png", i).read_bytes(), "path": None},
            "text": text(i),
            "label": i % 3,
        }
        for i in range(20)
    ]
    (scratch / "one.png").unlink()
    parquet.write_table(pa.Table.from_pylist(rows), file)


def overflowing():
    """A GPT-2 of which a neuron overflows only if the first two FFs are merged as they are."""
    import torch

    model = pico(FAMILIES["gpt2"])
    first, second = (model.transformer.h[i].mlp for i in range(2))
    with torch.no_grad():
        first.c_fc.bias[0], first.c_proj.weight[0] = 300, 0
        second.c_fc.bias[0], second.c_proj.weight[0] = -100, 3e38
    return model


def strict_json(text: str):
    """Parse JSON, which has no NaN and no infinities."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def labelled(file: Path, labels: list[int | None], first: int = 0) -> Path:
    """Write a table of images, of the seeds from `first` on, with these labels."""
    import pyarrow as pa
    from pyarrow import parquet

    scratch = file.with_suffix(".png")
    images = [image(scratch, first + i).read_bytes() for i in range(len(labels))]
    scratch.unlink()
    parquet.write_table(pa.table({"image": images, "label": labels}), file)
    return file
