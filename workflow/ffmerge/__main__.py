"""Merge feed-forward sublayers of a model of your own."""

import argparse
import os
import sys
from collections.abc import Mapping
from importlib import import_module

COMMANDS = {  # name -> its module, and what it does
    "compress": ("ffmerge.compression.command", "merge FF sublayers of a model of your own"),
    "export": ("ffmerge.compression.export", "write a merged model in another form, with a card"),
    "inspect": (
        "ffmerge.compression.inspect",
        "show a model's FF sublayers and what merging saves",
    ),
}


def main(
    arguments: list[str] | None = None,
    commands: Mapping[str, tuple[str, str]] = COMMANDS,
    description: str | None = __doc__,
) -> int:
    """Run a command; its exit status: 0 all is well, 1 a run is wrong, 2 the request is wrong.

    A command's module has `add_arguments(parser)` and `run(options)`.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # read by torch: bits despite alignment
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = next((word for word in arguments if word in commands), None)
    parser = argparse.ArgumentParser(prog="ffmerge", description=description)
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module_name, does) in commands.items():
        command = parsers.add_parser(name, help=does)
        if name == chosen:  # the others are not imported: a trace takes less than a second
            module = import_module(module_name)
            command.description = module.__doc__
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(command)
    options = parser.parse_args(arguments)
    try:
        return module.run(options)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
