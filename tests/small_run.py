"""A run of four jobs with one table, written in milliseconds, and what else tests of runs need."""

import json
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

from provenance import cells
from provenance.cells import of
from provenance.csv_files import write_csv
from provenance.digest import sha256_of
from provenance.ledger import write_ledger
from provenance.record import digests, write_record

DATA = "resources/data.txt"
TRAINED = ("m/model.safetensors", "m/loss.json")
CHOSEN, TESTED = "m/selection.json", "m/test.json"
TABLE, LEDGER = "tables/table1.csv", "tables/table1.ledger.json"


def places(value, path=()):
    """Yield the paths of all parts of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in items:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from places(each, (*path, key))


def commit(file: str) -> str:
    """Commit a file in a new repository here, and return the commit."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", file], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *command], check=True)
    asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return asked.stdout.strip()


def write(
    root: Path,
    results: str = "results/demo",
    weights: str = "weights",
    loss: float = 3.0,
    best: int = 4,
    score: float = 20.0,
    data: str = "data",
    machine: Mapping[str, object] | None = None,
    ended: str = "2026-01-01T00:00:00+00:00",
) -> None:
    """Write the run, or another over it that is as consistent.

    The jobs train a model, choose a window, test it and make a table of score and window.
    """
    root.mkdir(parents=True, exist_ok=True)
    cells._content.cache_clear()  # of a run with the same paths
    with chdir(root):
        read_first = Path(DATA)
        read_first.parent.mkdir(exist_ok=True)
        read_first.write_text(data)
        model, losses, chosen, tested, table, ledger = (
            Path(results, name) for name in (*TRAINED, CHOSEN, TESTED, TABLE, LEDGER)
        )
        for folder in (model.parent, table.parent):
            folder.mkdir(parents=True, exist_ok=True)
        model.write_text(weights)
        losses.write_text(json.dumps({"loss": loss}))
        chosen.write_text(json.dumps({"best": best, "loss": loss}))
        tested.write_text(json.dumps({"score": score}))

        def record(rule: str, inputs: dict, outputs: dict, reproduces: object) -> None:
            job = {
                "rule": rule,
                "wildcards": {"results": results},
                "params": {},
                "reproduces": reproduces,
            }
            words = ["python", f"{rule}.py", json.dumps(job | {"code": "c"})]
            content = {
                **job,
                "command": shlex.join(words),
                "input": digests(inputs),
                "output": digests(outputs),
                "code": {"digest": "c", "files": {}},
                "machine": dict(machine or {"host": "here", "cpu": "one", "threads": 1}),
                "environment": {"packages": {"torch": "2"}},
                "time": {"ended": ended, "seconds": 1.0, "cpu_seconds": 1.0},
            }
            first = Path(next(iter(outputs.values())))
            write_record(first.with_name(f"{first.name.split('.')[0]}.record.json"), content)

        record("train", {"data": read_first}, {"model": model, "loss": losses}, {"loss": 0.5})
        record("choose", {"loss": losses}, {"selection": chosen}, "decisions")
        read = {"model": model, "selection": chosen}
        record("score_test", read, {"score": tested}, {"score": 0.5})
        rows = [
            {"Model": "m", "Window": of(chosen, "/best"), "PPL": of(tested, "/score", "{:.1f}")}
        ]
        write_csv([{name: str(cell) for name, cell in row.items()} for row in rows], table)
        files = SimpleNamespace(table=table, ledger=ledger)
        known = {str(file): sha256_of(file) for file in (chosen, tested)}
        write_ledger(SimpleNamespace(output=files, destination=files, input_digests=known), rows)
        read = {"scores": [chosen, tested]}
        record("make_table1", read, {"table": table, "ledger": ledger}, "bits")
