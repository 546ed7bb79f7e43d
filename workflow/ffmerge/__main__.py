"""Compress a model of one's own, and ask what a run's numbers answer for."""

import argparse
import os
import sys
from importlib import import_module

COMMANDS = {  # name -> the module that does it, and what it does
    "compress": ("own_model.compress", "merge FF sublayers of a model of one's own"),
    "export": ("own_model.export", "a merged model in another form, with tokenizer and card"),
    "inspect": ("own_model.inspect", "FF sublayers of a model, and what merging would remove"),
    "trace": (
        "provenance.trace",
        "where a number comes from: the chain of jobs from data and base model to it",
    ),
    "verify": (
        "provenance.verify",
        "whether all that is on disk still is what the records and ledgers say",
    ),
    "explain": (
        "provenance.explain",
        "which numbers are stale, because of which change, and which jobs will run",
    ),
    "reproduce": (
        "provenance.reproduce",
        "make one number again from data and base model, and compare",
    ),
    "report": (
        "provenance.report",
        "one page with all tables and figures, each number with its lineage",
    ),
    "collect": (
        "provenance.collect",
        "records, tables and figures in one folder, as a Workflow Run RO-Crate",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 if all is well, 1 if something is wrong with a run, 2 with the request."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = next((word for word in arguments if word in COMMANDS), None)
    parser = argparse.ArgumentParser(prog="ffmerge", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module_name, does) in COMMANDS.items():
        command = commands.add_parser(name, help=does)
        if name == chosen:  # the others are not imported: a trace takes less than a second
            module = import_module(f"ffmerge.{module_name}")
            command.description = module.__doc__
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(command)
    options = parser.parse_args(arguments)
    try:
        return module.run(options)
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
