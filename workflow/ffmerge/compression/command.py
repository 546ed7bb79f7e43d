"""Compress a model: align, average and tie some of its feed-forward sublayers.

    ffmerge compress MODEL --remove 1/3 --features texts/ --out smaller
    ffmerge compress MODEL --layers 3-7 --features pairs.jsonl --source en --target de --out smaller

MODEL is a directory that transformers can load, or the name of one on the hub. The data are what
the model takes: text (.txt, or a column of a table), pairs of texts, or images; the first part
gives the features, a part held out the loss by which layers are chosen. Nothing is tuned.
"""

import argparse
import json
import shlex
import sys
from dataclasses import fields

from ffmerge.compression.settings import Settings, add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `ffmerge compress`."""
    parser.add_argument("model", metavar="MODEL", help="a directory, or a name on the hub")
    parser.add_argument(
        "--features", nargs="+", required=True, metavar="DATA", help="files or folders"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="a new directory")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="the summary for machines")


def run(options: argparse.Namespace) -> int:
    """Compress, and print a summary."""
    from ffmerge.compression.pipeline import compress  # seconds that only this needs
    from ffmerge.models.pretrained import show_bars_on_a_terminal_only

    show_bars_on_a_terminal_only()
    result = compress(
        options.model,
        features=options.features,
        out=options.out,
        command=shlex.join(["ffmerge", *sys.argv[1:]]),
        **{each.name: getattr(options, each.name) for each in fields(Settings)},
    )
    print(json.dumps(result.as_json(), indent=2) if options.json else result)
    return 0
