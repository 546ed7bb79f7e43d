"""How similar the FF sublayers of a user's model are, from data."""

import tempfile
from pathlib import Path

from torch import Tensor

from ffmerge.compression import choice, original
from ffmerge.compression.pipeline import Given, data_of_files, files_of
from ffmerge.compression.selection import OUTPUT, collected
from ffmerge.compression.settings import Settings
from ffmerge.compression.source import Source


def similarities(
    source: Source, features: Given, settings: Settings, entry: dict | None
) -> dict[str, Tensor]:
    """Linear CKA of the outputs of all pairs of FF sublayers, (n_layers, n_layers) by tower."""
    with tempfile.TemporaryDirectory() as scratch:
        readable = original.readable(source, Path(scratch))
        model = original.load(readable, architecture=entry).to(settings.device)
        data = data_of_files(model, source, files_of(features), settings)
        file = Path(scratch) / "outputs"
        outputs = collected(model, data.features, OUTPUT, data.n_tokens, file)
        return choice.output_similarities(outputs)
