"""The commands `ffmerge compress`, `compare`, `tune`, `evaluate`, `export` and `inspect`.

The docstring of a command's class is the command's help. Imports that take seconds (torch,
transformers) wait until a command runs.
"""

import argparse
import json
import resource
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from ffmerge.compression.settings import (
    Comparing,
    Evaluation,
    Options,
    Settings,
    Tuning,
    add_options,
)
from provenance.progress import SECONDS_BETWEEN_LINES, lines_without_terminal

ADDRESS_SPACE = 3 * 2**30  # bytes that imported torch and transformers map, most of them unused


class Command:
    """A command that prints what its `result` returns, unless that is None."""

    model = "a directory, or a name on the hub"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("model", metavar="MODEL", help=cls.model)
        cls.add_own_arguments(parser)
        parser.add_argument("--json", action="store_true", help="everything, for machines")

    @classmethod
    def run(cls, options: argparse.Namespace) -> int:
        _check_address_space()
        from ffmerge.compression.record import finite
        from ffmerge.models.pretrained import show_bars_on_a_terminal_only

        show_bars_on_a_terminal_only()
        result = cls.result(options)
        if result is not None:
            print(json.dumps(finite(result.as_json()), indent=2) if options.json else result)
        return 0


class Compress(Command):
    """Compress a model: align, average and tie some of its feed-forward sublayers.

        ffmerge compress MODEL --remove 1/3 --features texts/ --out smaller
        ffmerge compress MODEL --layers 3-7 --features pairs.jsonl --source en --target de --out smaller

    MODEL is a directory that transformers can load, or the name of one on the hub. The data are
    whatever the model takes: text (.txt, or a column of a table), pairs of texts, or images. Their
    first part is held out for the loss that chooses the layers; what follows gives the features.
    Nothing is tuned, except with --tune DATA; `ffmerge tune` has more options for that. After Ctrl-C,
    a signal or a kill, the tuning goes on where it was.
    """  # noqa: E501

    @staticmethod
    def add_own_arguments(parser: argparse.ArgumentParser) -> None:
        _add_data(parser, "--features")
        add_options(parser)
        parser.add_argument("--tune", nargs="+", metavar="DATA", help="tune the result on files")
        add_options(parser, ("steps", "learning_rate"), Tuning)

    @staticmethod
    @lines_without_terminal(SECONDS_BETWEEN_LINES)
    def result(options: argparse.Namespace) -> Any:
        from ffmerge.compression.pipeline import compress

        given = _given(options, "features", "held_out", "out")
        settings = _chosen(options, Settings)
        if options.tune is None:
            if options.steps is not None or options.learning_rate is not None:
                raise ValueError("--steps and --learning-rate are for a tuning: add --tune DATA")
            return compress(options.model, **given, **settings)
        from ffmerge.compression.tune import compress_and_tune

        common = {option.name for option in fields(Options)} | {"n_held_out"}
        tuning = {name: settings[name] for name in common - {"revision"}}
        tuning |= {"steps": options.steps, "learning_rate": options.learning_rate}
        return compress_and_tune(
            options.model, data=options.tune, settings=settings, tuning=tuning, **given
        )


class Compare(Command):
    """Compare what could be done at the same size: merge in several ways, or drop layers.

        ffmerge compare MODEL --remove 1/3 --features texts/ --out compared
        ffmerge compare MODEL --remove 1/3 --features texts/ --tune texts/ --steps 100 --out compared

    One half of the held-out data chooses the layers, the other half scores every way, and with
    --tune again after the same few steps on the same batches. The data are as for `compress`. DIR
    gets the table as CSV, a picture, and the record; no model is written. After a kill, the same
    command goes on with the row it was at.
    """  # noqa: E501

    @staticmethod
    def add_own_arguments(parser: argparse.ArgumentParser) -> None:
        _add_data(parser, "--features")
        parser.add_argument("--tune", nargs="+", metavar="DATA", help="files to tune each way on")
        add_options(parser, options=Comparing)

    @staticmethod
    @lines_without_terminal(SECONDS_BETWEEN_LINES)
    def result(options: argparse.Namespace) -> Any:
        from ffmerge.compression.compare import compare

        given = _given(options, "features", "held_out", "tune", "out")
        return compare(options.model, **given, **_chosen(options, Comparing))


class Tune(Command):
    """Fine-tune a model: recover what merging has cost, with merged sublayers still tied.

        ffmerge tune smaller --data texts/ --out tuned
        ffmerge tune smaller --data texts/ --teacher MODEL --steps 2000 --out tuned

    MODEL is what `ffmerge compress` wrote in the form tied or code, or any model that it takes. The
    data are as for `compress`; a part held out from them decides which step's weights are kept.
    The defaults are those of the paper's Tables 6 to 8. After Ctrl-C, a signal or a kill, the same
    command goes on where it was.
    """

    @staticmethod
    def add_own_arguments(parser: argparse.ArgumentParser) -> None:
        _add_data(parser, "--data")
        add_options(parser, options=Tuning)

    @classmethod
    def run(cls, options: argparse.Namespace) -> int:
        status = super().run(options)
        from ffmerge.training.processes import leave

        leave()
        return status

    @staticmethod
    def result(options: argparse.Namespace) -> Any:
        from ffmerge.compression.tune import tune
        from ffmerge.training.processes import Interrupted, is_first, leave, run_on

        if options.devices > 1:
            run_on(options.devices, options.device)
        given = _given(options, "data", "held_out", "out")
        try:
            return tune(options.model, **given, **_chosen(options, Tuning))
        except Interrupted:
            if not is_first():
                leave()  # the launcher would end the first process if another one failed
            raise


class Evaluate(Command):
    """Score a model on data, beside the original that it was made from.

        ffmerge evaluate tuned --against MODEL --data test/

    It gives the loss, and perplexity, top-1 accuracy, BLEU or retrieval, with intervals and the
    paired difference; and parameters, bytes on disk, peak memory and speed. The data are as for
    `compress`; all of them are used. With --source and --target, an encoder is scored by the
    targets that it finds.
    """

    @staticmethod
    def add_own_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--against", metavar="ORIGINAL", help="another model, to compare with")
        parser.add_argument(
            "--data", nargs="+", required=True, metavar="DATA", help="files or folders"
        )
        add_options(parser, options=Evaluation)

    @staticmethod
    def result(options: argparse.Namespace) -> Any:
        from ffmerge.compression.evaluate import evaluate

        chosen = _chosen(options, Evaluation)
        return evaluate(options.model, data=options.data, against=options.against, **chosen)


class Export(Command):
    """Write a merged model in another form, with tokenizer or processor, card and record.

        ffmerge export results/demo/gpt2/models/permute-k5-first-best/tuned --out smaller
        ffmerge export smaller --form expanded --out stock

    MODEL is a directory whose config.json says which layers are merged. Either `ffmerge compress`
    wrote it, or it is a workflow's `compressed` or `tuned`. For a workflow's model, the tokenizer
    or processor is copied from its base model, and the card gives the score in its record. No
    weight changes.
    """

    model = "a merged model's directory"

    @staticmethod
    def add_own_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--out", required=True, metavar="DIR", help="a new directory")
        add_options(parser, ("form",))
        parser.add_argument(
            "--processor",
            metavar="DIR",
            help="where tokenizer or processor are, if neither in MODEL nor in its base model",
        )

    @staticmethod
    def result(options: argparse.Namespace) -> Any:
        from ffmerge.compression.export import export

        return export(options.model, **_given(options, "out", "form", "processor"))


class Inspect(Command):
    """Show the FF sublayers of a model, and how much merging would remove.

        ffmerge inspect MODEL
        ffmerge inspect MODEL --features texts/ --out similar.png    how similar they are (CKA)
        ffmerge inspect MODEL --propose > entry.yaml                 for --architecture

    No weights are read, except with --features.
    """

    OPTIONS = ("n_tokens", "batch_size", *(option.name for option in fields(Options)))

    @staticmethod
    def add_own_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--features", nargs="+", metavar="DATA", help="files or folders, for CKA"
        )
        parser.add_argument(
            "--out", type=Path, metavar="FILE", help="the picture: .png, .pdf or .svg"
        )
        parser.add_argument("--propose", action="store_true", help="an entry for --architecture")
        add_options(parser, Inspect.OPTIONS)

    @staticmethod
    def result(options: argparse.Namespace) -> Any:
        if (options.features is None) != (options.out is None):
            raise ValueError("a picture needs both --features DATA and --out FILE")
        from ffmerge.compression import anatomy, source
        from ffmerge.compression.pipeline import read_entry
        from ffmerge.compression.propose import as_yaml
        from ffmerge.compression.write import check_outside
        from ffmerge.models.memory import check_device

        check_device(options.device)
        original = source.find(options.model, options.revision)
        if options.out:
            inputs = [original.directory, *map(Path, options.features)]
            check_outside(options.out, [path for path in inputs if path.is_dir()])
            _check_picture(options.out)
        entry = read_entry(options.architecture)
        model = source.outline(original, entry, known=not options.propose)
        if options.propose:
            print(as_yaml(model), end="")
            return None
        found = anatomy.anatomy_of(model, original)
        if options.features:
            chosen = {name: getattr(options, name) for name in Inspect.OPTIONS}
            settings = Settings(remove=1, **chosen)
            cka, found.massive = anatomy.similarities(original, options.features, settings, entry)
            anatomy.draw(cka, found.model_class, options.out)
            found.cka = {tower: matrix.tolist() for tower, matrix in cka.items()}
        return found


def _check_picture(file: Path) -> None:
    """Raise ValueError or OSError unless a picture can be written to a file."""
    from matplotlib.figure import Figure

    from ffmerge.compression.write import check_new

    check_new(file)
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent}: make it, or change --out")
    if file.suffix[1:].lower() not in Figure().canvas.get_supported_filetypes():
        raise ValueError(f"{file}: name a .png, .pdf or .svg, which says what kind it is")


def _add_data(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the data, its held-out part, and where the result goes."""
    parser.add_argument(name, nargs="+", required=True, metavar="DATA", help="files or folders")
    parser.add_argument(
        "--held-out",
        nargs="+",
        metavar="DATA",
        help=f"data for the loss (default: the first part of {name})",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="a new directory")


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Arguments by name, and the command as the user typed it, for the record."""
    command = shlex.join(["ffmerge", *sys.argv[1:]])
    return {name: getattr(options, name) for name in names} | {"command": command}


def _chosen(options: argparse.Namespace, of: type[Options]) -> dict[str, Any]:
    return {option.name: getattr(options, option.name) for option in fields(of)}


def _check_address_space() -> None:
    """Raise ValueError under an `ulimit -v` with which importing torch ends in a signal."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < ADDRESS_SPACE:
        raise ValueError(
            f"a process may have only {allowed:,} bytes of addresses here (ulimit -v), and torch "
            f"with transformers takes {ADDRESS_SPACE:,} before any work: allow more"
        )
