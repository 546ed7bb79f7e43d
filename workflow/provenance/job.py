"""Run one job of the workflow: parse its command line, and write its record at the end.

A script is run as

    python workflow/scripts/NAME.py '{"rule": …, "params": {…}, …}' '{"input": {…}, "output": {…}}'

Snakemake composes this line. It is in the job's record, so that anybody can repeat it by hand.
"""

import argparse
import errno
import gc
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

from provenance import image, record
from provenance.digest import sha256_of
from provenance.progress import log_to, progress
from provenance.sources import REPOSITORY, RunningCode, digest_of_trees

# The garbage collector would go through all modules again and again while a script imports more of
# them: a third of a job's start. So scripts import this module first; a job that begins enables it.
if Path(sys.argv[0]).parent.name == "scripts":
    gc.disable()

OUT_OF_MEMORY = (
    *("allocate memory", "out of memory", "bad_alloc", "unable to allocate"),
    *("start new thread", "failed to map segment"),
)
"""What torch, the GPU, the C++ library, numpy, Python and the loader say where memory is short."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Job:
    """The inputs, outputs, parameters and record of a running job; a context manager.

    input.NAME, output.NAME: a Path, or a list of Paths. Outputs are written under partial names and
    renamed when the job has succeeded, the record last; a failure leaves none of them.
    destination.NAME: the path that an output will have. params.NAME, wildcards.NAME: as in the
    rule. threads: how many it may use. workers: processes that may make batches in advance. writes:
    whether this process writes outputs, log and record; if several processes train one model, only
    the first does.
    """

    def __init__(
        self,
        description: dict[str, Any],
        files: dict[str, dict[str, Any]],
        threads: int = 1,
        log: Path | None = None,
        workers: int = 0,
    ) -> None:
        self._description = description
        self._files = {
            kind: {name: _map(Path, value) for name, value in files[kind].items()}
            for kind in ("input", "output")
        }
        self._record_file = self._files["output"].pop("record")
        self._script = Path(sys.argv[0]).resolve()
        self._started = time.time()
        self.threads = threads
        self.workers = workers
        self.input = SimpleNamespace(**self._files["input"])
        self.output = SimpleNamespace(
            **{name: _map(_partial, value) for name, value in self._files["output"].items()}
        )
        self.destination = SimpleNamespace(**self._files["output"])
        self.params = SimpleNamespace(**description["params"])
        self.wildcards = SimpleNamespace(**description["wildcards"])
        self._warnings: list[str] = []
        self.writes = os.environ.get("RANK", "0") == "0"
        self._log = log if self.writes else None

    def __str__(self) -> str:
        """Name the job by its rule and its wildcards."""
        return " ".join([self._description["rule"], *self._description["wildcards"].values()])

    @classmethod
    def from_command_line(cls, arguments: list[str] | None = None) -> "Job":
        """Create the job that the command line describes."""
        main = sys.modules["__main__"]
        parser = argparse.ArgumentParser(description=main.__doc__)
        parser.add_argument(
            "job",
            type=json.loads,
            help='JSON with "rule", "wildcards", "params", "reproduces", "imports" and "code"; '
            "`command` in the record of any job is an example",
        )
        parser.add_argument(
            "files",
            type=json.loads,
            help='JSON with "input" and "output", the latter with "record"',
        )
        parser.add_argument("--threads", type=int, default=1, help="processor threads it may use")
        parser.add_argument(
            "--workers", type=int, default=0, help="processes that make batches in advance"
        )
        parser.add_argument("--log", type=Path, help="file for progress, warnings and errors")
        chosen = parser.parse_args(arguments)
        for name in chosen.job["imports"]:
            import_module(name)
        return cls(chosen.job, chosen.files, chosen.threads, chosen.log, chosen.workers)

    @property
    def input_digests(self) -> dict[str, str]:
        """Path -> sha256 of every input when the job began."""
        entries = [_listed(entry) for entry in self._inputs.values()]
        return {each["path"]: each["sha256"] for named in entries for each in named}

    @cached_property
    def checkpoints(self) -> Path:
        """A directory that survives a kill, for this job with these parameters, code and inputs."""
        identity = {
            **{name: self._description[name] for name in ("rule", "wildcards", "params", "code")},
            "threads": self.threads,
            "input": self._inputs,
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        directory = (
            self._record_file.parent / ".checkpoints" / f"{self._checkpoint_prefix}{key[:32]}"
        )
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    @property
    def _checkpoint_prefix(self) -> str:
        """How the names of this job's checkpoint directories begin, with any parameters."""
        return f"{self._record_file.name.removesuffix('.record.json')}-"

    def progress(
        self, iterable: Iterable | None = None, total: int | None = None, description: str = ""
    ) -> tqdm:
        """Show the progress of work over an iterable, or of `total` updates."""
        return progress(iterable, total, description or self._description["rule"])

    def __enter__(self) -> "Job":
        gc.freeze()  # what is imported stays
        gc.enable()
        if self._log:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._log_stream = self._log.open("w")
            log_to(self._log_stream)
        self._image = image.check(self._script)
        try:
            self._begin()
        except (OSError, SyntaxError, ValueError) as error:
            raise SystemExit(f"error: {self}: {error}") from None
        prepare_torch(self.threads, getattr(self.params, "device", "cpu"))
        self._show_warning, warnings.showwarning = warnings.showwarning, self._note_warning
        sys.meta_path.insert(0, self._code)
        return self

    def _begin(self) -> None:
        """Hold the code and inputs, and make room for the outputs."""
        begun, description = time.perf_counter(), self._description
        self._code = RunningCode(self._script, description["imports"])
        if digest_of_trees(self._code.trees) != description["code"]:
            raise ValueError(
                "the code in workflow/ is not the code that this job was planned with; it was "
                "edited meanwhile: run Snakemake again"
            )
        for name, value in self._files["input"].items():
            for path in _listed(value):
                if not (path.is_file() or path.is_dir()):
                    wrong = "is no file or folder" if path.exists() else "is missing"
                    raise ValueError(f"input {name}: {path} {wrong}")
        self._inputs = record.digests(self._files["input"])
        if self.writes:
            self._git, self._patch = record.git_state(Path(self.wildcards.results) / "patches")
            _each(_remove, vars(self.output).values())
        _each(
            lambda path: path.parent.mkdir(parents=True, exist_ok=True), vars(self.output).values()
        )
        if self.writes:
            _each(record.remove_partial, [*self._files["output"].values(), self._record_file])
        self._record_seconds = time.perf_counter() - begun

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> bool:
        warnings.showwarning = self._show_warning
        sys.meta_path.remove(self._code)
        if error is None and self.writes:
            try:
                self._finish()
            except BaseException as failure:  # such as a disk that is full, or Ctrl-C
                _each(_remove, [*self._files["output"].values(), self._record_file])
                error = failure
            else:
                self._remove_checkpoints()
        if error is not None:
            if self.writes:
                _each(_remove, vars(self.output).values())
            if self.writes or not isinstance(error, SystemExit):
                self._report(error)
            # The first process reports what stops all; the launcher would end it if another
            # process failed before.
            raise SystemExit(1 if self.writes else getattr(error, "status_of_others", 1)) from None
        return False

    def _finish(self) -> None:
        """Give the outputs their names, and write the record."""
        for name, value in vars(self.output).items():
            for partial, path in zip(
                _listed(value), _listed(self._files["output"][name]), strict=True
            ):
                if not partial.exists():
                    raise ValueError(f"output {name}: the job did not write {path}")
                if path.is_dir():
                    shutil.rmtree(path)
                record.publish(partial, path)
        content = self._record()
        patch = (self._git or {}).get("patch")
        if patch and not Path(patch).exists():
            record.write_atomically(Path(patch), self._patch)
        record.write_record(self._record_file, content)
        gc.freeze()  # so that Python's end does not look for garbage either

    def _remove_checkpoints(self) -> None:
        """Remove this job's checkpoints, including those of runs with other parameters.

        What cannot be removed stays: the job has succeeded, and other jobs use the same folder.
        """
        if "checkpoints" not in vars(self):
            return
        with suppress(OSError):
            for directory in self.checkpoints.parent.iterdir():
                if directory.name[:-32] == self._checkpoint_prefix:  # the rest is the key
                    shutil.rmtree(directory, ignore_errors=True)
            self.checkpoints.parent.rmdir()  # fails while it holds another job's

    def _record(self) -> dict[str, Any]:
        description, begun = self._description, time.perf_counter()
        loaded, sources = record.loaded_sources(self._script), self._code.sources
        if undeclared := [str(file) for file in loaded if file not in sources]:
            raise RuntimeError(f"the job ran code outside its source closure: {undeclared}")
        ran = {os.path.relpath(file, REPOSITORY): sources[file].sha256 for file in loaded}
        arithmetic = [f"{name}={value}" for name, value in record.arithmetic().items()]
        content = {
            "format": record.FORMAT,
            "rule": description["rule"],
            "wildcards": description["wildcards"],
            "params": description["params"],
            "seed": description["params"].get("seed"),
            "reproduces": description["reproduces"],
            "imports": description["imports"],
            "command": shlex.join(["env", "PYTHONPATH=workflow", *arithmetic, "python", *sys.argv]),
            "input": self._inputs,
            "output": record.digests(self._files["output"]),
            "code": {"digest": description["code"], "files": ran, "trees": self._code.trees},
            "git": self._git,
            "environment": record.environment(self._image),
            "machine": record.machine(self.threads),
            "time": {
                "started": _iso(self._started),
                "ended": _iso(time.time()),
                "start_up_seconds": round(self._started - _process_start(), 3),
                "seconds": round(time.time() - self._started, 3),
                **record.usage(),
            },
            "warnings": self._warnings,
        }
        seconds = self._record_seconds + time.perf_counter() - begun  # that the record takes
        content["time"]["record_seconds"] = round(seconds, 3)
        return content

    def _note_warning(self, message: Warning | str, category: type, *where: Any) -> None:
        line = f"{category.__name__}: {message}"
        if line not in self._warnings:
            self._warnings.append(line)
            print(line, file=self._log_stream if self._log else sys.stderr, flush=True)

    def _report(self, error: BaseException) -> None:
        """Print one line for an error that a user can fix, and a traceback for a defect."""
        short = shortage(error)
        if self._log:
            with suppress(OSError):  # the disk may be full
                traceback.print_exception(error, file=self._log_stream)
                self._log_stream.flush()  # Python may end without it
        told = ValueError | OSError | SyntaxError | SystemExit | KeyboardInterrupt
        if not (short or isinstance(error, told)):
            traceback.print_exception(error)
        print(f"error: {self}: {short or str(error) or type(error).__name__}", file=sys.stderr)


def shortage(error: BaseException) -> str | None:
    """Say of what there was too little, if that is what an error of any library means."""
    number, text = getattr(error, "errno", None), " ".join(str(error).split())
    codes = "|".join(map(str, FULL))
    full = rf"os error ({codes})\b|PytorchStreamWriter|file write failed|unexpected pos \d"
    if number in FULL or re.search(full, text):
        return f"the disk is full, or a limit on the size of files is reached ({text[:200]})"
    if is_out_of_memory(error):
        return (
            "there is not enough memory: choose a smaller batch_size, allow more (`ulimit -v`, "
            "mem_mb of the profile), or take a larger machine"
        )
    if isinstance(error, RecursionError):
        return "something that it reads is nested too deeply"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch or a GPU means that memory is short."""
    told = str(error).casefold()
    known = any(words in told for words in OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or known


def prepare_torch(threads: int, device: str) -> None:
    """Set the number of threads and, on a GPU, full float32 and deterministic algorithms."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
        if device != "cpu":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def check_digest(path: Path, expected: str) -> None:
    """Raise ValueError naming the file if its sha256 is not the expected one."""
    if (actual := sha256_of(path)) != expected:
        raise ValueError(f"{path}: sha256 is {actual}, expected {expected}")


def _map(function: Any, value: Any) -> Any:
    return [function(item) for item in value] if isinstance(value, list) else function(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _each(function: Any, values: Iterable[Path | list[Path]]) -> None:
    for value in values:
        for path in _listed(value):
            function(path)


def _partial(path: Path) -> Path:
    return path.with_name(f".partial.{path.name}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _process_start() -> float:
    """Return when this process began, in seconds since the epoch; now if that is not known."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return time.time()
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")
