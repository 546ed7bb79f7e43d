"""Merge feed-forward sublayers of your own model."""

import argparse
import inspect
import locale
import os
import re
import sys
import warnings
from collections.abc import Mapping
from pkgutil import resolve_name

from provenance.text_format import printable

TOOL = "ffmerge.compression.command"
COMMANDS = {  # name -> where its `add_arguments` and `run` are, and its help
    "compress": (f"{TOOL}:Compress", "merge FF sublayers of your own model"),
    "compare": (
        f"{TOOL}:Compare",
        "compare ways to make your own model smaller: merge, or drop layers",
    ),
    "tune": (f"{TOOL}:Tune", "fine-tune your own model, merged or not"),
    "evaluate": (
        f"{TOOL}:Evaluate",
        "score your own model beside its original: loss, metric, size, memory, speed",
    ),
    "export": (f"{TOOL}:Export", "write a merged model in another form, with a card"),
    "inspect": (f"{TOOL}:Inspect", "show a model's FF sublayers and what merging saves"),
}
OF_A_CLONE = (
    *("trace", "verify", "explain", "reproduce", "report", "collect", "audit", "diff", "sign"),
)
PASS_ON = ("reproduce", "audit")  # commands that pass arguments on to Snakemake
EXTRAS = {  # package -> the optional dependencies of ffmerge that install it
    "pyarrow": "data",
    "PIL": "data",
    "sacrebleu": "bleu",
    "matplotlib": "plot",
    "bitsandbytes": "int8",
}


def main(
    arguments: list[str] | None = None,
    commands: Mapping[str, tuple[str, str]] = COMMANDS,
    description: str | None = __doc__,
) -> int:
    """Run a command. Returns the exit status: 0 success, 1 a run has faults, 2 a bad request.

    A command is a module or class with `add_arguments(parser)` and `run(options)`.
    """
    warnings.formatwarning = lambda message, *_, **__: f"note: {message}\n"
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # read by torch: bits despite alignment
    if arguments is None:
        use_utf8()
        arguments = sys.argv[1:]
    if arguments and arguments[0] in OF_A_CLONE and arguments[0] not in commands:
        print(
            f"error: `ffmerge {arguments[0]}` is about the numbers of a run: it belongs to a clone "
            "of the workflow, not to the installed package",
            file=sys.stderr,
        )
        return 2
    try:
        return _run(arguments, commands, description)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
        if (line := _line(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2


def _line(error: Exception) -> str | None:
    """What an error means to the user, in one line; None if it is a fault of the program."""
    from provenance.job import is_out_of_memory, shortage

    if not isinstance(error, ValueError) and is_out_of_memory(error):
        return (
            "there is not enough memory: choose a smaller --batch-size, --max-length or "
            "--n-tokens, allow more (ulimit -v), or take a larger machine"
        )
    if isinstance(error, ImportError) and error.name in EXTRAS:
        return f"this needs the package {error.name}: pip install 'ffmerge[{EXTRAS[error.name]}]'"
    if isinstance(error, ValueError | OSError):
        line = re.sub(r"\n(?!  \S)", " ", str(error))  # one line, and a list's entries below it
        return printable(line)
    return shortage(error)


def _run(
    arguments: list[str], commands: Mapping[str, tuple[str, str]], description: str | None
) -> int:
    chosen = arguments[0] if arguments and arguments[0] in commands else None
    parser = argparse.ArgumentParser(prog="ffmerge", description=description)
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (place, does) in commands.items():
        subparser = parsers.add_parser(name, help=does)
        if name == chosen:  # the others are not imported: a trace takes less than a second
            command, parser = resolve_name(place), subparser
            subparser.description = inspect.getdoc(command)
            subparser.formatter_class = argparse.RawDescriptionHelpFormatter
            command.add_arguments(subparser)
    if chosen is None:
        parser.parse_args(arguments)  # prints the help, or what is wrong
        return 2
    end = arguments.index("--") if chosen in PASS_ON and "--" in arguments else len(arguments)
    options = parser.parse_intermixed_args(arguments[1:end])
    options.after = arguments[end + 1 :]
    return command.run(options)


def use_utf8() -> None:
    """Start this command again in Python's UTF-8 mode if the locale is of another encoding."""
    if locale.getencoding().lower() != "utf-8" and not sys.flags.utf8_mode:
        words = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, words, os.environ | {"PYTHONUTF8": "1"})


if __name__ == "__main__":
    sys.exit(main())
