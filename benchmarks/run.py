"""Run benchmarks and write their results into docs/performance.md: `make bench`.

python benchmarks/run.py                        # all of them, about a quarter of an hour
python benchmarks/run.py alignment resolving    # these two; other sections of the table stay
"""

import argparse
import importlib
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # as in a job; read when torch is imported

import torch

from timing import Measured, Table

BENCHMARKS = (
    *("selection", "alignment", "fine_tuning", "translation", "loading", "start_up", "resolving"),
)
TABLE = Path(__file__).parent.parent / "docs/performance.md"


def measure(name: str, whole: bool = False) -> list[Measured]:
    """Run one benchmark at full size, `whole` with all windows. Returns its lines of the table."""
    module = importlib.import_module(name)
    return module.measure(module.WHOLE) if whole else module.measure()


def machine() -> str:
    """Describe this machine, its software and its load."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "?")
    load = os.getloadavg()[1]
    return (
        f"{time.strftime('%Y-%m-%d')}, {len(os.sched_getaffinity(0))} cores of {processor}, torch "
        f"{torch.__version__} with {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}; load of the last five minutes at the end {load:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--whole", action="store_true", help="run all windows of the naive selection (an hour)"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(BENCHMARKS):
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )
    if chosen.whole and chosen.names != ["selection"]:
        parser.error("--whole is for selection alone")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    table = Table(TABLE)
    for name in chosen.names or BENCHMARKS:
        begun = time.perf_counter()
        lines = measure(name, chosen.whole)
        section = f"{name} of all windows" if chosen.whole else name
        table.replace(section, lines, machine())
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
        for line in table.rows(section):
            print(f"    {line}", flush=True)


if __name__ == "__main__":
    main()
