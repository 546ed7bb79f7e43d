"""Put a merged model out in another form, with tokenizer or processor, card and record.

    ffmerge export results/demo/gpt2/models/permute-k5-first-best/tuned --out smaller
    ffmerge export smaller --form expanded --out stock

MODEL is a directory whose config.json says what is merged: one that `ffmerge compress` wrote, or
a workflow's, `compressed` or `tuned`, of which the tokenizer or processor is its base model's, and
the card gives the score that its record vouches for. No weight changes.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

from ffmerge.compression.settings import add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `ffmerge export`."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a merged model's directory")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new directory")
    add_options(parser, ("form",))
    parser.add_argument(
        "--processor",
        type=Path,
        metavar="DIR",
        help="where tokenizer or processor are, if neither in MODEL nor in its base model",
    )
    parser.add_argument("--json", action="store_true", help="the summary for machines")


def run(options: argparse.Namespace) -> int:
    """Export, and print a summary."""
    from ffmerge.compression.exporting import export  # seconds that only this needs
    from ffmerge.models.pretrained import show_bars_on_a_terminal_only

    show_bars_on_a_terminal_only()
    result = export(
        options.model,
        out=options.out,
        form=options.form,
        processor=options.processor,
        command=shlex.join(["ffmerge", *sys.argv[1:]]),
    )
    print(json.dumps(result.as_json(), indent=2) if options.json else result)
    return 0
