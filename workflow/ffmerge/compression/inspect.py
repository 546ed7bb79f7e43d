"""The FF sublayers of a model, and what merging would remove.

    ffmerge inspect MODEL
    ffmerge inspect MODEL --features texts/ --out similar.png    how similar they are (CKA)
    ffmerge inspect MODEL --propose > entry.yaml                 for --architecture

No weight is read, unless there are features.
"""

import argparse
import json
from pathlib import Path

from ffmerge.compression.output.directory import check_new
from ffmerge.compression.settings import Settings, add_options

OPTIONS = (
    "n_tokens",
    "max_length",
    "batch_size",
    "device",
    "text",
    "source",
    "target",
    "image",
    "label",
    "revision",
    "architecture",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `ffmerge inspect`."""
    parser.add_argument("model", metavar="MODEL", help="a directory, or a name on the hub")
    parser.add_argument("--features", nargs="+", metavar="DATA", help="files or folders, for CKA")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the picture: .png, .pdf or .svg")
    parser.add_argument("--propose", action="store_true", help="an entry for --architecture")
    add_options(parser, OPTIONS)
    parser.add_argument("--json", action="store_true", help="everything, for machines")


def run(options: argparse.Namespace) -> int:
    """Print what the model has."""
    if (options.features is None) != (options.out is None):
        raise ValueError("a picture needs both --features DATA and --out FILE")
    if options.out:
        check_new(options.out)
    from ffmerge.compression import anatomy, source  # torch: seconds that only this needs
    from ffmerge.compression.outline import outline
    from ffmerge.compression.pipeline import entry_of

    given = source.find(options.model, options.revision)
    entry = entry_of(options.architecture)
    model = outline(given, entry, known=not options.propose)
    if options.propose:
        print(_proposed(model), end="")
        return 0
    told = anatomy.as_json(model, given)
    if options.features:
        from ffmerge.compression.inspection import similarities
        from ffmerge.compression.similarity_picture import draw

        settings = Settings(remove=1, **{name: getattr(options, name) for name in OPTIONS})
        found = similarities(given, options.features, settings, entry)
        draw(found, told["class"], options.out)
        told["cka"] = {tower: matrix.tolist() for tower, matrix in found.items()}
    print(json.dumps(told, indent=2) if options.json else anatomy.as_text(model, given))
    return 0


def _proposed(model) -> str:
    import yaml

    from ffmerge.compression.proposal import proposed

    head = (
        f"# {type(model).__name__}: what looks like feed-forward sublayers, by shape. Check which "
        "map\n# is the gate, and `attention`. Then: ffmerge compress … --architecture THIS_FILE\n"
    )
    return head + yaml.safe_dump(proposed(model), sort_keys=False)
