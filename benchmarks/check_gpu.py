"""Check results, speed and memory on a GPU, with the wheels and models of the repository.

make check-gpu                                          all parts, at most eight minutes
python benchmarks/check_gpu.py --parts int8 tool        only these
python benchmarks/check_gpu.py --device cpu --small     the same code on a processor, tiny sizes

Each part is a process with its own time limit. Its result is added to a JSON report as soon as it
ends. Running the command again with the same --out continues an interrupted check.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    "PYTHONPATH": str(REPOSITORY / "workflow"),
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONUNBUFFERED": "1",
}
NO_GPU = "check-gpu: no CUDA GPU here, nothing was checked"
CPU_BUILD = (
    "check-gpu: there is a GPU ({card}), but torch {torch} was built without CUDA: run "
    "`make environment ENV=cuda`, then this again"
)
UNUSABLE = "check-gpu: there is a GPU ({card}, driver {driver}), but torch {torch} cannot use it"
ENDED = ("ok", "FAILED", "skipped")  # verdicts after which a part is not run again
SECONDS = 480  # all parts
SIGNALS: list[int] = []  # received so far; a handler that raised could leave a process behind


@dataclass(frozen=True)
class Part:
    """A part of the check. limit: seconds. needs: parts whose figures it compares its own with."""

    module: str
    limit: int
    needs: tuple[str, ...] = ()


PARTS = {
    "decisions_gpt2": Part("gpu_decisions", 80),
    "decisions_vit": Part("gpu_decisions", 80),
    "decisions_marian": Part("gpu_decisions", 80),
    "training_fp32": Part("gpu_training", 120),
    "training_fp16": Part("gpu_training", 90, needs=("training_fp32",)),
    "training_bf16": Part("gpu_training", 60, needs=("training_fp32",)),
    "int8": Part("gpu_compression", 60),
    "tool": Part("gpu_compression", 60),
    "speed_gpt2": Part("gpu_speed", 120),
    "speed_vit": Part("gpu_speed", 75),
    "speed_marian": Part("gpu_speed", 75),
}


@dataclass(frozen=True)
class Setting:
    """The setting that a part runs in.

    small: use tiny sizes, to test the code. scratch: a directory that is removed afterwards.
    earlier: figures of the parts that have ended, by name.
    """

    device: str
    small: bool
    scratch: Path
    earlier: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Findings:
    """The result of a part. shown: key figures in a few words. rates: rows of config/rates.yaml."""

    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    shown: str = ""
    skipped: bool = False
    rates: dict[str, Any] = field(default_factory=dict)

    def require(self, condition: bool, fault: str) -> None:
        """Note a fault unless a condition holds."""
        if not condition:
            self.faults.append(fault)

    @property
    def verdict(self) -> str:
        """`ok`, `FAILED` or `skipped`."""
        return "FAILED" if self.faults else "skipped" if self.skipped else "ok"


# --- a part, in a process of its own --------------------------------------------------------------


def run_part(name: str, setting: Setting) -> Findings:
    """Run a part in this process."""
    return getattr(importlib.import_module(PARTS[name].module), name)(setting)


def part_process(name: str, options: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Run a part in a new process, and return its entry in the report.

    The processes that it starts end with it, even if this one is stopped.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="check-gpu-", dir=options.scratch) as scratch:
        result, log = Path(scratch, "result.json"), Path(scratch, "log")
        command = [sys.executable, __file__, "--part", name, "--device", options.device]
        command += ["--out", options.out.resolve(), "--scratch", scratch]
        command += ["--small"] if options.small else []
        with log.open("wb") as stream:
            process = subprocess.Popen(
                list(map(str, command)),
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=REPOSITORY,
                env={"MKL_CBWR": "AUTO,STRICT", **os.environ, **ENVIRONMENT}
                | {"HF_HOME": str(Path(scratch, "huggingface"))},
                start_new_session=True,
            )
        try:
            verdict = "FAILED" if _ends_within(limit, process) else "timed out"
        finally:
            _end_group(process)
        entry = {"verdict": verdict, "seconds": round(time.monotonic() - begun, 1)}
        if verdict == "timed out":
            entry["limit"] = round(limit, 1)
        elif result.exists():
            entry |= json.loads(result.read_text())
        else:
            entry["faults"] = [f"the process ended with status {process.returncode}"]
        if entry["verdict"] not in ("ok", "skipped"):
            entry["log"] = log.read_text(errors="replace")[-4000:]
        return entry


def _ends_within(limit: float, process: subprocess.Popen) -> bool:
    """Wait for a process; False if it takes too long. Raises SystemExit after a signal."""
    end = time.monotonic() + limit
    while process.poll() is None:
        if SIGNALS:
            sys.exit(128 + SIGNALS[0])
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _end_group(process: subprocess.Popen) -> None:
    """Kill a process that leads a session, and all others in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main_of_part(name: str, options: argparse.Namespace) -> None:
    """Run one part and write its result to the scratch directory."""
    try:
        earlier = _figures(options.out)
        findings = run_part(name, Setting(options.device, options.small, options.scratch, earlier))
    except Exception as error:
        traceback.print_exc()
        reason = str(error).partition("\n")[0]
        findings = Findings(faults=[f"{type(error).__name__}: {reason}"])
    entry = {"verdict": findings.verdict, **asdict(findings)}
    del entry["skipped"]
    (options.scratch / "result.json").write_text(json.dumps(entry))


def _figures(report: Path) -> dict[str, dict[str, Any]]:
    parts = json.loads(report.read_text())["parts"] if report.exists() else {}
    return {name: entry.get("figures", {}) for name, entry in parts.items()}


# --- the report -----------------------------------------------------------------------------------


class Report:
    """The JSON report: `header`, `parts` by name, and `rates` in the form of config/rates.yaml."""

    def __init__(self, file: Path, header: dict[str, Any], again: bool) -> None:
        self.file, self.content = file, {"header": header, "parts": {}, "rates": {}}
        if file.exists() and not again:
            earlier = json.loads(file.read_text())
            same = ("device", "small", "card", "torch", "commit")
            if all(earlier["header"].get(key) == header[key] for key in same):
                self.content = {**earlier, "header": header}
            else:
                print(f"check-gpu: {file} is from another machine or commit: starting over")

    def entry(self, name: str) -> dict[str, Any] | None:
        """Return the entry of a part that has ended, else None."""
        entry = self.content["parts"].get(name)
        return entry if entry and entry["verdict"] in ENDED else None

    def add(self, name: str, entry: dict[str, Any]) -> None:
        """Add the entry of a part, and write the file."""
        self.content["parts"][name] = entry
        self.content["rates"] = self._rates()
        self.write()

    def _rates(self) -> dict[str, Any]:
        card = self.content["header"]["card"] or self.content["header"]["cpu"]
        rules: dict[str, Any] = {}
        for entry in self.content["parts"].values():
            for rule, tasks in entry.get("rates", {}).items():
                rules.setdefault(rule, {}).update(tasks)
        return {
            rule: {"source": f"measured; {card}, make check-gpu: {_hows(tasks)}"}
            | {task: {key: row[key] for key in ("seconds", "gb")} for task, row in tasks.items()}
            for rule, tasks in rules.items()
        }

    def write(self) -> None:
        """Write the file atomically."""
        from provenance.record import as_text, write_atomically

        write_atomically(self.file, as_text(self.content).encode())


def _hows(tasks: dict[str, Any]) -> str:
    return "; ".join(f"{task} {row['how']}" for task, row in tasks.items())


def header(device: str, small: bool) -> dict[str, Any]:
    """Describe the check: date, machine, versions and commit."""
    import torch

    from provenance.record import git_state, machine

    card, driver = card_and_driver()
    git = git_state()[0] or {}
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": device,
        "small": small,
        "card": card if device == "cuda" else None,
        "driver": driver if device == "cuda" else None,
        "cuda": torch.version.cuda,
        **{
            name: _version(name) for name in ("torch", "transformers", "bitsandbytes", "accelerate")
        },
        "cpu": machine(torch.get_num_threads())["cpu"],
        "cores": len(os.sched_getaffinity(0)),
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def card_and_driver() -> tuple[str | None, str | None]:
    """Name of the first GPU and version of its driver, or None if nvidia-smi shows no GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    if shown.returncode or not shown.stdout.strip():
        return None, None
    name, _, driver = shown.stdout.splitlines()[0].rpartition(", ")
    return name, driver


def obstacle() -> tuple[str, int] | None:
    """Reason why no GPU can be used here, with the exit status; None if one can."""
    import torch

    if torch.cuda.is_available():
        return None
    card, driver = card_and_driver()
    if card is None:
        return NO_GPU, 0
    reason = UNUSABLE if torch.version.cuda else CPU_BUILD
    return reason.format(card=card, driver=driver, torch=torch.__version__), 1


# --- the command ----------------------------------------------------------------------------------


def with_needed(names: Iterable[str]) -> list[str]:
    """Add the parts that these need, and sort all in the order of PARTS."""
    names = list(names)
    needed = {need for name in names for need in PARTS[name].needs}
    return [name for name in PARTS if name in needed.union(names)]


def line(name: str, entry: dict[str, Any]) -> str:
    """Format a part: name, verdict, seconds, and key figures or faults."""
    text = "; ".join(entry.get("faults", [])) or entry.get("shown", "")
    if entry["verdict"] == "timed out":
        text = f"not done after {entry['limit']:.0f} s"
    seconds = f"{entry['seconds']:6.1f} s" if "seconds" in entry else " " * 8
    return f"{name:<17} {entry['verdict']:<9} {seconds}  {text}".rstrip()


def check(options: argparse.Namespace) -> int:
    """Run all parts without a result yet, and return the exit status."""
    report = Report(options.out, header(options.device, options.small), options.again)
    report.write()
    begun, failed = time.monotonic(), False
    for name in with_needed(options.parts):
        entry = report.entry(name)
        if entry is None:
            left = options.limit - (time.monotonic() - begun)
            if left < 10:
                entry = {"verdict": "skipped", "shown": "no time left: run this again to continue"}
                failed = True
            else:
                entry = part_process(name, options, min(PARTS[name].limit, left))
                report.add(name, entry)
        failed |= entry["verdict"] in ("FAILED", "timed out")
        print(line(name, entry), flush=True)
    print(f"check-gpu: {options.out}", flush=True)
    return int(failed)


def main(arguments: list[str] | None = None) -> int:
    """Run the check, or one part of it, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to test the check itself")
    parser.add_argument("--out", type=Path, default=Path("check-gpu.json"), help="the report")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME")
    parser.add_argument("--again", action="store_true", help="ignore an earlier report")
    parser.add_argument("--limit", type=float, default=SECONDS, help="seconds for all parts")
    parser.add_argument("--scratch", type=Path, help="directory for temporary files (10 GB)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(REPOSITORY / "workflow"))
    if options.part:
        main_of_part(options.part, options)
        return 0
    if options.device == "cuda" and (reason := obstacle()):
        print(reason[0])
        return reason[1]
    stopping = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {n: signal.signal(n, lambda number, _: SIGNALS.append(number)) for n in stopping}
    try:
        return check(options)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.modules["check_gpu"] = sys.modules["__main__"]  # the modules of parts import this name
    sys.exit(main())
