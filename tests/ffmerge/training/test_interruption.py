"""A fine-tuning that is stopped by signals: it saves, says so, and ends as if nothing had been."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from functools import cache, partial
from pathlib import Path

import pytest
import yaml

from experiment.config.run import Config
from provenance.job import Job
from provenance.record import arithmetic
from provenance.sources import closure, code_digest
from workflow_copy import CEILING, REPOSITORY, Copy

pytestmark = pytest.mark.slow
long = partial(pytest.param, marks=pytest.mark.long)

TESTS = Path(__file__).parent
HOLD = TESTS / "hold_at_step"
SCRIPT = REPOSITORY / "workflow/scripts/fine_tune.py"
DROPOUTS = {
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "vit": ("hidden_dropout_prob",),
    "marian": ("dropout",),
}
STEPS, EVALUATE_EVERY, BATCH, N_EXAMPLES = 8, 3, 4, 12  # so that step 8 is in the third epoch


class FineTuning:
    """The job `fine_tune` of a pico model with two merged sublayers, in a folder of its own."""

    def __init__(self, folder: Path, kind: str, inputs: dict[str, Path], **changes) -> None:
        raw = yaml.safe_load((REPOSITORY / "config/pico.yaml").read_text())
        raw["tasks"] = {kind: raw["tasks"][kind]}
        tuning = {"max_steps": STEPS, "evaluate_every": EVALUATE_EVERY, "batch_size": BATCH}
        raw["tasks"][kind]["fine_tuning"] |= tuning | changes
        settings = Config.model_validate(raw).tasks[kind]
        keys = {"kind", "fine_tuning", "validation", "context", "source", "target", "max_tokens"}
        self.folder, self.kind = folder, kind
        imports = [f"experiment.tasks.{settings.kind}"]
        self.description = {
            "rule": "fine_tune",
            "wildcards": {"results": str(folder), "task": kind, "model": "merged"},
            "params": {
                "task": settings.model_dump(mode="json", include=keys),
                "seed": 3,
                "device": "cpu",
            },
            "reproduces": {"score": 0.5},
            "imports": imports,
            "code": code_digest(closure(SCRIPT, imports)),
        }
        self.inputs = {name: str(path) for name, path in inputs.items()}

    @property
    def weights(self) -> Path:
        """Its result."""
        return self.folder / "tuned/model.safetensors"

    @property
    def curve(self) -> list[dict[str, str]]:
        """Its learning curve."""
        with (self.folder / "curve.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))

    @property
    def kept(self) -> list[Path]:
        """The directories of checkpoints that are there."""
        return sorted(self.folder.glob(".checkpoints/*"))

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """What it reads and writes."""
        outputs = {"model": "tuned", "curve": "curve.csv", "record": "tuned.record.json"}
        outputs = {name: str(self.folder / file) for name, file in outputs.items()}
        return {"input": self.inputs, "output": outputs}

    def start(
        self,
        moment: str = "never",
        number: str = "SIGTERM",
        most_bytes: int | None = None,
        **environment: str,
    ) -> subprocess.Popen:
        """Start it; it sends itself the signal at that moment (signalled_script.py).

        most_bytes: of a file that it can write, as if the disk were full then.
        """
        line = [SCRIPT, json.dumps(self.description), json.dumps(self.files), "--threads", "1"]
        by = [TESTS / "signalled_script.py", moment, number] if moment != "never" else []
        return subprocess.Popen(
            [sys.executable, *map(str, [*by, *line]), "--log", str(self.folder / "log")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: (
                most_bytes and resource.setrlimit(resource.RLIMIT_FSIZE, [most_bytes] * 2)
            ),
            env=os.environ
            | {"PYTHONPATH": f"{HOLD}:{REPOSITORY / 'workflow'}", "OMP_NUM_THREADS": "1"}
            | environment,
        )

    def run(self) -> None:
        """Run to the end."""
        process = self.start()
        printed = process.communicate(timeout=CEILING)[0]
        assert process.returncode == 0, printed
        assert self.kept == [] and not list(self.folder.glob(".partial*"))

    def run_until(self, moment: str, number: str = "SIGTERM") -> str:
        """Run until a signal stops it, and return what it says about that."""
        process = self.start(moment, number)
        return self.stopped(process, process.communicate(timeout=CEILING)[0])

    def stopped(self, process: subprocess.Popen, printed: str) -> str:
        """The line of a run that a signal has stopped, of which nothing but checkpoints is left."""
        assert process.returncode not in (0, None), printed
        assert sorted(p.name for p in self.folder.iterdir()) == [".checkpoints", "log"]
        (line,) = [line for line in printed.splitlines() if "stopped by" in line]
        assert "Traceback" not in printed.split(line)[0]
        return line


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """inputs(kind, dropout): base model, merged model and data of a pico fine-tuning."""

    def made(kind: str, dropout: float = 0.1) -> dict[str, Path]:
        return made_inputs(kind, dropout, tmp_path_factory.mktemp(f"inputs_{kind}"))

    return cache(made)


def made_inputs(kind: str, dropout: float, folder: Path) -> dict[str, Path]:
    import torch
    from pyarrow import parquet
    from safetensors.torch import load_file, save_file

    from experiment.base_model import write_processor
    from experiment.tasks import task_for
    from experiment.tasks.language_modeling import TOKENS
    from ffmerge.method.merge_on_disk import merge_on_disk
    from ffmerge.models import checkpoint
    from ffmerge.models.architectures import ARCHITECTURES
    from merged_windows import in_every_tower

    raw = yaml.safe_load((REPOSITORY / "config/pico.yaml").read_text())
    settings = Config.model_validate(raw).tasks[kind]
    recipe = settings.base_model.from_scratch
    source = REPOSITORY / settings.dataset.validation.path
    task = task_for(settings.model_dump(), folder / "base", {"train": source})
    write_processor(task, recipe, folder / "base")
    table = parquet.read_table(source)
    data = {"train": folder / "train.parquet", "validation": folder / "validation.parquet"}
    parquet.write_table(table[:N_EXAMPLES], data["train"])
    parquet.write_table(table[-20:], data["validation"])
    if kind == "gpt2":  # as rule tokenize_text
        data["train"] = folder / "train.safetensors"
        task.store_tokens("train", data["train"])
        n_tokens = N_EXAMPLES * settings.context
        save_file({TOKENS: load_file(data["train"])[TOKENS][:n_tokens].clone()}, data["train"])

    torch.manual_seed(0)
    dropouts = dict.fromkeys(DROPOUTS[kind], dropout)
    checkpoint.save(checkpoint.from_scratch(recipe.architecture | dropouts), folder / "base")
    groups = in_every_tower(ARCHITECTURES[kind].towers, [0, 1], anchor=0)
    merge_on_disk(folder / "base", groups, None, folder / "merged")
    return {"model": folder / "merged", "base_model": folder / "base", **data}


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    """Wait until a process that runs with HOLD_AT_STEP has completed its first checkpoint."""
    deadline = time.monotonic() + CEILING
    while not list(folder.glob(f".checkpoints/*/checkpoint-{EVALUATE_EVERY}/complete")):
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """whole(kind): a fine-tuning that nothing has interrupted."""

    def made(kind: str) -> FineTuning:
        tuning = FineTuning(tmp_path_factory.mktemp(f"whole_{kind}"), kind, inputs(kind))
        tuning.run()
        return tuning

    return cache(made)


@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        long("gpt2", ["start-0 0", "step-1 1", "validation-3 3", "validation-3 3", "saving-6 6"]),
        ("gpt2", ["step-5 5", "validation-8 8"]),
        long("vit", ["step-4 4", "step-6 6", "step-8 8"]),
        long("marian", ["step-5 5", "saving-6 6"]),
    ],
)
def test_a_fine_tuning_stopped_by_signals_ends_with_the_same_bits(
    kind, moments, whole, inputs, tmp_path
):
    cut = FineTuning(tmp_path, kind, whole(kind).inputs)
    for n, (moment, step) in enumerate(pair.split() for pair in moments):
        name = ("SIGTERM", "SIGUSR1")[n % 2]
        message = f"stopped by {name} at step {step}; the next run goes on from there"
        assert (
            cut.run_until(moment, name) == f"error: fine_tune {tmp_path} {kind} merged: {message}"
        )
        assert len(cut.kept) == 1
        checkpoints = {path.name for path in cut.kept[0].iterdir()}
        best = {name for name in checkpoints if name.startswith("best-")}
        assert checkpoints - best == ({f"checkpoint-{step}"} if step != "0" else set())
        for name in best:
            assert [p.name for p in (cut.kept[0] / name).iterdir()] == ["model.safetensors"]
    cut.run()
    assert cut.weights.read_bytes() == whole(kind).weights.read_bytes()
    assert cut.curve == whole(kind).curve


FULL = "the disk is full, or a limit on the size of files is reached"


@pytest.mark.long
@pytest.mark.parametrize(
    "share",
    [
        0.5,  # no room for the weights of a checkpoint
        1.2,  # none for its optimizer, which torch writes
    ],
)
def test_a_disk_that_fills_up_during_training_is_one_line_and_the_next_run_ends_the_same(
    share, whole, tmp_path
):
    cut = FineTuning(tmp_path, "gpt2", whole("gpt2").inputs)
    most = int(share * whole("gpt2").weights.stat().st_size)
    process = cut.start(most_bytes=most)
    printed = process.communicate(timeout=CEILING)[0]
    assert process.returncode == 1
    assert printed.splitlines()[-1].startswith(f"error: fine_tune {tmp_path} gpt2 merged: {FULL}")
    assert "Traceback" not in printed
    assert {path.name for path in tmp_path.iterdir()} <= {".checkpoints", "log"}
    cut.run()
    assert cut.weights.read_bytes() == whole("gpt2").weights.read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["gpt2", "marian"])
def test_a_validation_made_up_for_is_in_the_precision_of_the_training(kind, inputs, tmp_path):
    runs = []
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        runs.append(FineTuning(tmp_path / name, kind, inputs(kind), precision="bf16"))
    whole, cut = runs
    whole.run()
    cut.run_until("validation-8")  # the last: nothing is left to do but that
    cut.run()
    assert cut.weights.read_bytes() == whole.weights.read_bytes()
    assert cut.curve == whole.curve


@pytest.mark.long
def test_a_stopped_snakemake_lets_its_fine_tuning_save_and_resumes_from_there(tmp_path):
    repository = Copy(tmp_path / "copy", ["gpt2"])
    with (repository.root / "workflow/ffmerge/training/resumption.py").open("a") as module:
        module.write((HOLD / "sitecustomize.py").read_text())
    tuning = repository.config["tasks"]["gpt2"]["fine_tuning"]
    tuning |= {"max_steps": STEPS, "evaluate_every": EVALUATE_EVERY}
    repository.write_config()
    model = repository.results / "gpt2/models/base-tuned"
    target = str((model / "learning_curve.csv").relative_to(repository.root))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLD_AT_STEP", str(EVALUATE_EVERY))
        run = repository.start(target=target)
    wait_for_checkpoint(model, run)
    os.killpg(run.pid, signal.SIGTERM)  # as SLURM does, shells and Snakemake included
    for _ in range(3):  # each is passed on to Snakemake, on top of the one it is handling
        os.kill(run.pid, signal.SIGTERM)
    printed = run.communicate(timeout=CEILING)[0]
    assert run.returncode != 0
    steps = re.findall(r"stopped by SIGTERM at step (\d+); the next run goes on", printed)
    assert steps == [str(EVALUATE_EVERY)]
    kept = [path.name for path in model.glob(".checkpoints/*/checkpoint-*")]
    assert kept == [f"checkpoint-{EVALUATE_EVERY}"]
    assert not (model / "learning_curve.csv").exists()
    repository.run(target=target)
    with (model / "learning_curve.csv").open(newline="") as stream:
        assert [row["step"] for row in csv.DictReader(stream)][-1] == str(STEPS)
    assert not (model / ".checkpoints").exists()


# --- checkpoints of something else ----------------------------------------------------------------


@pytest.mark.long
def test_a_checkpoint_of_other_parameters_is_not_resumed_and_is_removed(whole, inputs, tmp_path):
    (tmp_path / "cut").mkdir()
    cut = FineTuning(tmp_path / "cut", "gpt2", inputs("gpt2"), learning_rate=2e-3)
    cut.run_until("step-5")
    (left,) = cut.kept
    cut.description = whole("gpt2").description | {"wildcards": cut.description["wildcards"]}
    cut.run_until("step-4")  # by itself, and not from step 5 of the other
    assert len(cut.kept) == 2 and left in cut.kept
    cut.run()  # asserts that neither stays
    assert cut.weights.read_bytes() == whole("gpt2").weights.read_bytes()


@pytest.mark.long
def test_checkpoints_depend_on_parameters_code_inputs_and_threads(inputs, tmp_path, monkeypatch):
    tuning = FineTuning(tmp_path, "gpt2", inputs("gpt2"))
    threads = 1
    monkeypatch.setattr(sys, "argv", [SCRIPT])

    def checkpoints() -> str:
        with pytest.raises(SystemExit), Job(tuning.description, tuning.files, threads) as job:
            name = job.checkpoints.name
            raise OSError("stop here")
        return name

    names = [checkpoints(), checkpoints()]
    tuning.description["params"]["seed"] += 1
    names.append(checkpoints())
    tuning.description["code"] = code_digest(closure(REPOSITORY / "workflow/scripts/quantize.py"))
    monkeypatch.setattr(sys, "argv", [REPOSITORY / "workflow/scripts/quantize.py"])
    tuning.description["imports"] = []
    names.append(checkpoints())
    tuning.inputs["validation"] = tuning.inputs["train"]
    names.append(checkpoints())
    threads = 2
    names.append(checkpoints())
    assert names[0] == names[1] and len(set(names)) == 5
    assert {name.split("-")[0] for name in names} == {"tuned"}


# --- several devices ------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("kind", DROPOUTS)
def test_two_processes_do_the_same_steps_as_one(kind, inputs, tmp_path):
    from ffmerge.models import checkpoint
    from ffmerge.models.size import count_sublayers

    tunings = []
    for devices in (1, 2):
        (tmp_path / str(devices)).mkdir()
        data = inputs(kind, dropout=0.0)  # which each process draws for itself
        tunings.append(FineTuning(tmp_path / str(devices), kind, data, devices=devices))
        tunings[-1].run()
    one, two = (tuning.curve for tuning in tunings)
    assert [point["step"] for point in one] == [point["step"] for point in two]
    for mine, other in zip(one, two, strict=True):
        for column in ("loss", "learning_rate", "validation_loss"):
            # float32 sums in another order
            assert float(mine[column] or 0) == pytest.approx(float(other[column] or 0), rel=1e-5)
    models = [checkpoint.load(tuning.folder / "tuned") for tuning in tunings]
    assert count_sublayers(models[0]) == count_sublayers(models[1])
    assert {p.name for p in tunings[1].folder.iterdir()} == {
        p.name for p in tunings[0].folder.iterdir()
    }
    record = json.loads((tunings[1].folder / "tuned.record.json").read_text())
    assert record["machine"]["arithmetic"] == arithmetic()
    variables = " ".join(f"{name}={value}" for name, value in arithmetic().items())
    assert "MKL_CBWR=" in variables
    assert record["command"].startswith(f"env PYTHONPATH=workflow {variables} python {SCRIPT} ")


@pytest.mark.long
@pytest.mark.parametrize(("kind", "kill"), [("gpt2", os.kill), ("marian", os.killpg)])
def test_two_processes_stopped_by_a_signal_end_with_the_same_bits(kind, kill, inputs, tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = FineTuning(tmp_path / "whole", kind, inputs(kind), devices=2)
    whole.run()
    cut = FineTuning(tmp_path / "cut", kind, inputs(kind), devices=2)
    process = cut.start(HOLD_AT_STEP=str(EVALUATE_EVERY))
    wait_for_checkpoint(cut.folder, process)
    kill(process.pid, signal.SIGTERM)  # to the launcher alone, or to all of the job as SLURM does
    printed = process.communicate(timeout=CEILING)[0]
    assert f"stopped by SIGTERM at step {EVALUATE_EVERY}" in cut.stopped(process, printed)
    cut.run()
    assert cut.weights.read_bytes() == whole.weights.read_bytes()
    assert cut.curve == whole.curve
