"""`ffmerge verify` finds whatever was changed after a run, with the numbers that depend on it."""

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import small_run
from experiment.cli import main
from provenance import cells
from provenance.cells import Interval, Printed
from provenance.digest import sha256_of
from provenance.hashing import digests
from provenance.ledger import write_ledger
from provenance.record import as_text, read_record, write_record
from provenance.record import digests as record_digests
from provenance.records import Records
from provenance.sources import digest_of_trees, read_source
from provenance.verify.command import verify
from provenance.verify.findings import BROKEN, HOLDS, MISSING, STALE, UNCHECKED

RESULTS, CONFIGURATION = Path("results/pico"), Path("config/run.yaml")
MODEL = "results/pico/gpt2/models/permute-k2-first-best"
TABLE = "results/pico/tables/table5"
NUMBER = "table5:2:permute"  # of that model

slow = pytest.mark.slow  # what needs a finished run


@pytest.fixture(scope="module")
def kept(finished, tmp_path_factory) -> Path:
    """A copy of the finished run, data included. Tests restore what they change."""
    root = tmp_path_factory.mktemp("verified") / "run"
    shutil.copytree(finished.root, root)  # links to data become data
    return root


@pytest.fixture
def run(kept, monkeypatch):
    """run(file, content): replace a file of the copy until the test is over; None removes it."""
    monkeypatch.chdir(kept)
    before: dict[Path, bytes] = {}

    def changed(name: str, content: bytes | None) -> None:
        file = Path(name)
        before.setdefault(file, file.read_bytes())
        times = file.stat()
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if never touched

    yield changed
    for file, content in before.items():
        file.write_bytes(content)


def flipped(content: bytes, place: int | None = None) -> bytes:
    place = len(content) // 2 if place is None else place
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def on_disk(*targets: str):
    """Verify without comparing with what the workflow would do now."""
    return verify(RESULTS, targets, configuration=None)


@slow
def test_an_untouched_run_has_no_fault_and_every_number_holds(run):
    report = verify(RESULTS, configuration=CONFIGURATION)
    assert report.faults == [] and report.remarks == []
    assert {report.state_of(number) for number in report.numbers} == {HOLDS}
    ledgers = list(RESULTS.rglob("*.ledger.json"))
    assert report.counts.ledgers == len(ledgers) == 16
    assert report.counts.records == len(list(RESULTS.rglob("*.record.json")))
    cells = [cell["id"] for file in ledgers for cell in json.loads(file.read_text())["cells"]]
    assert report.numbers == set(cells) and report.counts.numbers == len(cells) > 700


FLIPPED = {  # class of file -> an example, a number that comes from it, and what becomes of that
    "data": ("resources/demo/data/text/test.parquet", NUMBER, BROKEN),
    "base model": ("results/pico/gpt2/trained_base_model/model.safetensors", NUMBER, BROKEN),
    "features": ("results/pico/gpt2/features.safetensors", NUMBER, BROKEN),
    "permutations": ("results/pico/gpt2/permutations.safetensors", NUMBER, BROKEN),
    "scores": ("results/pico/gpt2/windows/1-of-1.csv", NUMBER, BROKEN),
    "selection": ("results/pico/gpt2/selection/k2.json", NUMBER, BROKEN),
    "compressed weights": (f"{MODEL}/compressed/model.safetensors", NUMBER, BROKEN),
    "weights": (f"{MODEL}/tuned/model.safetensors", NUMBER, BROKEN),
    "metrics": (f"{MODEL}/test.json", NUMBER, BROKEN),
    "metrics of each example": (f"{MODEL}/test.csv", NUMBER, BROKEN),
    "record": (f"{MODEL}/test.record.json", NUMBER, BROKEN),
    "record of a table": (f"{TABLE}.record.json", NUMBER, BROKEN),
    "ledger": (f"{TABLE}.ledger.json", NUMBER, BROKEN),
    "text": (f"{TABLE}.txt", NUMBER, BROKEN),
    "tidy table": (f"{TABLE}_tidy.csv", NUMBER, BROKEN),
    "figure": ("results/pico/figures/figure2.pdf", "figure2:2:test-score", BROKEN),
    "picture": ("results/pico/figures/figure4.png", "figure4:1:validation-score", BROKEN),
    "the paper's numbers": ("config/paper_reported/scores.csv", NUMBER, BROKEN),
    "code": ("workflow/ffmerge/method/merge.py", NUMBER, STALE),
    "lock": ("envs/cpu.txt", NUMBER, STALE),
}


OF_OTHERS_KIND = {  # files that are verified like those of another class
    *("base model", "features", "scores", "compressed weights", "metrics of each example"),
    *("text", "picture"),
}


@slow
@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.long] * (k in OF_OTHERS_KIND)) for k in FLIPPED],
)
def test_one_flipped_byte_is_found_under_an_old_time_with_a_number_it_reaches(kind, run):
    file, number, state = FLIPPED[kind]
    at = Path(file).read_bytes().rfind(b".5") + 1 if kind == "ledger" else None  # stays readable
    run(file, flipped(Path(file).read_bytes(), at))
    report = on_disk()
    holders = {file, *map(str, Path(file).parents)}  # a model is a folder
    assert [fault for fault in report.faults if fault.what in holders and number in fault.reaches]
    assert report.state_of(number) == state
    assert [fault for fault in on_disk(number).faults if fault.what in holders]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["record of a table", "record", "ledger", "metrics", "text"])
def test_a_flipped_byte_anywhere_in_a_file_of_a_run_is_found(kind, run):
    file, number, _ = FLIPPED[kind]
    content = Path(file).read_bytes()
    for n, place in enumerate(range(0, len(content), max(50, len(content) // 20))):
        run(file, flipped(content, place))
        target = ((number,), (f"{TABLE}.csv",), ())[n % 3]
        assert file in {fault.what for fault in on_disk(*target).faults}, (place, target)


def classes() -> dict[str, list[str]]:
    """The files of a run that records or ledgers name, and these, by kind of file."""
    records = Records(RESULTS)
    named = {str(file) for file in (*records.by_file, *RESULTS.rglob("*.ledger.json"))}
    for record in records.by_file.values():
        named |= {*record.inputs, *record.outputs, *record.sources}
        named |= {lock["path"] for lock in [record.part("environment").get("lock")] if lock}
    kinds: dict[str, list[str]] = {}
    for path in sorted(named):
        inside = Path(path).rglob("*") if Path(path).is_dir() else [Path(path)]
        for file in (each for each in inside if each.is_file() and each.stat().st_size):
            code = file.suffix == ".py"
            name = file.parent.name if code else re.sub(r"\d+", "N", file.name)
            kinds.setdefault(f"code of {name}" if code else name, []).append(str(file))
    return kinds


@pytest.mark.long
def test_one_flipped_byte_in_each_class_of_file_of_a_run_is_found(run):
    chance, missed = random.Random(0), []
    for kind, files in classes().items():
        file = chance.choice(files)
        content = Path(file).read_bytes()
        run(file, flipped(content, chance.randrange(len(content))))
        report = on_disk()
        Path(file).write_bytes(content)
        holders = {file, *map(str, Path(file).parents)}
        told = {fault.what.partition(": ")[0] for fault in report.faults}
        told |= {remark.what for remark in report.remarks}  # a comment of code
        if not holders & told:
            missed.append((kind, file))
    assert missed == []


@slow
def test_what_does_not_come_from_an_altered_file_still_holds(run):
    run(f"{MODEL}/test.json", flipped(Path(f"{MODEL}/test.json").read_bytes()))
    report = on_disk()
    assert report.state_of(NUMBER) == BROKEN
    assert report.state_of("table5:3:permute") == report.state_of("table5:6:permute") == HOLDS
    assert on_disk("table5:6:permute").faults == []
    assert on_disk("table5:6:permute").state_of(NUMBER) == UNCHECKED


@slow
def test_a_number_altered_in_a_table_is_told_by_row_and_column_and_reaches_itself_alone(run):
    table = Path(f"{TABLE}.csv")
    shown = table.read_text().splitlines()[2].split(",")[-1]
    assert shown.startswith("7")  # the row of NUMBER
    run(str(table), table.read_bytes().replace(f"1/4,{_vanilla()},{shown}".encode(), b"1/4,1,2"))
    report = on_disk()
    cell = next(fault for fault in report.faults if fault.what == f"{table}: row 2, Permute")
    assert (cell.expected, cell.found, cell.reaches) == (shown, "2", (NUMBER,))
    broken = [number for number in report.numbers if report.state_of(number) == BROKEN]
    assert sorted(broken) == ["table5:2:permute", "table5:2:vanilla"]


def _vanilla() -> str:
    return Path(f"{TABLE}.csv").read_text().splitlines()[2].split(",")[-2]


@slow
def test_a_ledger_that_was_made_to_fit_an_altered_table_is_found_by_its_record(run):
    ledger, table = Path(f"{TABLE}.ledger.json"), Path(f"{TABLE}.csv")
    content = json.loads(ledger.read_text())
    cell = next(cell for cell in content["cells"] if cell["id"] == NUMBER)
    old, cell["shown"], cell["raw"] = cell["shown"], "1.00", 1.0
    content["rows"][1][-1] = "1.00"
    run(str(table), table.read_bytes().replace(f",{old}\r\n".encode(), b",1.00\r\n"))
    content["about"]["table"]["sha256"] = sha256_of(table)
    run(str(ledger), as_text(content).encode())
    report = on_disk()
    whys = {fault.why for fault in report.faults if fault.what.startswith(str(ledger))}
    assert "the raw value is not what its sources give" in whys
    assert any("disagree" in why for why in whys) and report.state_of(NUMBER) == BROKEN


@slow
def test_metrics_and_a_record_forged_to_fit_them_are_found_by_who_read_them(run):
    metrics, file = Path(f"{MODEL}/test.json"), Path(f"{MODEL}/test.record.json")
    record = read_record(file)
    run(str(metrics), metrics.read_bytes().replace(b'"score": ', b'"score": 1'))
    record["output"]["score"]["sha256"] = sha256_of(metrics)
    run(str(file), file.read_bytes())  # to put it back
    write_record(file, {key: value for key, value in record.items() if key != "digest"})
    report = on_disk()
    assert not [fault for fault in report.faults if fault.what == str(file)]  # its seal is good
    faults = [fault for fault in report.faults if fault.what == str(metrics)]
    assert all("wrote another version than" in fault.why for fault in faults)
    assert any(NUMBER in fault.reaches for fault in faults)
    assert report.state_of("table5:3:permute") == HOLDS  # read by the same table


@slow
def test_parameters_swapped_in_a_record_are_found_though_it_is_sealed_again(run):
    file = Path(f"{MODEL}/test.record.json")
    record = read_record(file)
    test = record["params"]["task"]["test"]
    test["batch_size"], test["stride"] = test["stride"], test["batch_size"]
    run(str(file), file.read_bytes())
    write_record(file, {key: value for key, value in record.items() if key != "digest"})
    whats = [fault.what for fault in on_disk().faults if NUMBER in fault.reaches]
    assert f"{file}: params" in whats


@slow
def test_parameters_swapped_in_the_configuration_are_named_with_both_values(run):
    config = yaml.safe_load(CONFIGURATION.read_text())
    test = config["tasks"]["gpt2"]["test"]
    test["batch_size"], test["max_tokens"] = test["max_tokens"], test["batch_size"]
    run(str(CONFIGURATION), yaml.safe_dump(config).encode())
    report = verify(RESULTS, configuration=CONFIGURATION)
    found = {fault.what: fault for fault in report.faults}
    swapped = found["score_test: params.task.test.batch_size"]
    assert (swapped.expected, swapped.found) == (test["batch_size"], test["max_tokens"])
    assert len(swapped.records) == 15  # the tests of all models of GPT-2
    jobs, keys = ("score_test", "score_untuned"), ("batch_size", "max_tokens")
    assert set(found) == {f"{job}: params.task.test.{key}" for job in jobs for key in keys}
    assert report.state_of(NUMBER) == STALE and report.state_of("table5:6:permute") == HOLDS


@slow
def test_an_edited_module_is_a_fault_and_edited_comments_everywhere_are_remarks(run):
    edited, other = (
        "workflow/ffmerge/method/quantization.py",
        "workflow/ffmerge/method/correlation.py",
    )
    for file in Path("workflow").rglob("*.py"):
        added = b"\nADDED = 1\n" if str(file) == edited else b"\n# a comment\n"
        run(str(file), file.read_bytes() + added)
    report = verify(RESULTS, configuration=CONFIGURATION)
    assert {fault.what for fault in report.faults} == {edited}
    assert other in {remark.what for remark in report.remarks}
    assert report.state_of("table4:1:llm-int8-performance") == STALE  # of an int8 model
    assert report.state_of(NUMBER) == HOLDS


@slow
@pytest.mark.parametrize("name", [f"{MODEL}/test", f"{TABLE}", "results/pico/tables/claims"])
def test_a_missing_record_is_found(name, run):
    run(f"{name}.record.json", None)
    report = on_disk()
    (about,) = {fault.why for fault in report.faults if fault.what.startswith(f"{name}.")} - {
        "no record answers for the ledger"
    }
    assert about == "no record says what made it"
    reached = "claims:1:measured" if "claims" in name else NUMBER
    assert report.state_of(reached) == MISSING


@slow
def test_a_missing_file_is_a_fault_unless_the_configuration_removes_it_after_use(run):
    model, elsewhere = Path(f"{MODEL}/compressed"), Path("compressed")
    model.rename(elsewhere)
    try:
        assert on_disk().state_of(NUMBER) == MISSING
        config = {**yaml.safe_load(CONFIGURATION.read_text()), "temporary": ["compressed"]}
        run(str(CONFIGURATION), yaml.safe_dump(config).encode())
        report = verify(RESULTS, configuration=CONFIGURATION)
        assert report.faults == [] and report.state_of(NUMBER) == HOLDS
        (remark,) = report.remarks
        assert remark.what == str(model) and "removed after use" in remark.why
    finally:
        elsewhere.rename(model)


@slow
def test_a_workflow_that_cannot_be_planned_is_a_fault(run):
    run("workflow/Snakefile", b"rule broken\n")
    (fault,) = verify(RESULTS, configuration=CONFIGURATION).faults
    assert fault.what == str(CONFIGURATION) and "SyntaxError" in fault.found


@slow
def test_without_a_configuration_it_is_said_that_the_workflow_was_not_asked(run):
    text = Path("config/run.yaml").read_text().replace("results/pico", "results/other")
    for name in ("config/run.yaml", "config/pico.yaml"):
        run(name, text.encode())
    report = verify(RESULTS)
    assert report.faults == [] and report.configuration is None
    (remark,) = report.remarks
    assert "not compared with what it would do now" in remark.why


@slow
def test_the_command_names_faults_and_exits_with_one_and_tells_machines_the_same(run, capsys):
    assert main(["verify", f"{TABLE}.csv"]) == 0
    assert "0 faults. Checked " in capsys.readouterr().out
    run(f"{TABLE}.txt", flipped(Path(f"{TABLE}.txt").read_bytes()))
    assert main(["verify", NUMBER, "--results", str(RESULTS), "--no-plan", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["states"] == {NUMBER: BROKEN}
    assert [fault["what"] for fault in said["faults"]] == [f"{TABLE}.txt"]
    assert main(["verify", f"{TABLE}.csv", "--no-plan"]) == 1
    out = capsys.readouterr().out
    assert f"broken    {TABLE}.txt" in out and "table5:1:vanilla" in out and " more\n" in out


@slow
def test_a_target_that_nothing_answers_for_is_a_bad_request(run, capsys):
    assert main(["verify", "results/pico/nothing.csv"]) == 2
    assert "no record says what made results/pico/nothing.csv" in capsys.readouterr().err
    assert main(["verify", "--results", "results/elsewhere"]) == 2
    assert "holds neither records nor ledgers" in capsys.readouterr().err


SMALL = Path("results/r")
SMALL_FILES = {  # of a run of two jobs: a test, and a table of its score
    "record of a table": "tables/t.record.json",
    "record of a model's job": "m/test.record.json",
    "ledger": "tables/t.ledger.json",
    "table": "tables/t.csv",
    "text of a table": "tables/t.txt",
    "metrics": "m/test.json",
    "metrics of each example": "m/test.csv",
}


@pytest.fixture
def two_jobs(tmp_path, monkeypatch, job_with) -> str:
    """Write the files and records of two jobs; return the id of the number that they make."""
    monkeypatch.chdir(tmp_path)
    score, examples = SMALL / "m/test.json", SMALL / "m/test.csv"
    data = Path("resources/data/test.csv")
    for file, text in ((data, "a\n1\n"), (score, '{"score": 87.03}'), (examples, "loss\n0.5\n")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    outputs = {"score": str(score), "per_example": str(examples)}
    record_of("score_test", {"test": str(data)}, outputs, SMALL / "m/test.record.json")
    job = job_with(SMALL / "tables", [score], table="t.csv", text="t.txt", ledger="t.ledger.json")
    printed = Printed("79.2", "Table 5")
    interval = Interval(86.0, 88.0, 0.95, "bootstrap over test examples")
    cell = cells.of(score, "/score", "{:.1f}", interval=interval, printed=printed)
    job.output.table.write_text("Model,Score\nGPT-2,87.0\n")
    job.output.text.write_text("GPT-2  87.0\n")
    write_ledger(job, [{"Model": "GPT-2", "Score": cell}])
    outputs = {name: str(path) for name, path in vars(job.output).items()}
    inputs = {"score": str(score), "per_example": str(examples)}
    record_of("make_table", inputs, outputs, SMALL / "tables/t.record.json")
    return "t:1:score"


def record_of(rule: str, inputs: dict, outputs: dict, file: Path) -> None:
    """Write the record of a job with all keys."""
    described = {
        "rule": rule,
        "wildcards": {"results": str(SMALL), "task": "gpt2"},
        "params": {"task": {"test": {"stride": 8}}, "seed": 1},
        "reproduces": {"score": 0.05},
    }
    job = json.dumps({**described, "imports": [], "code": "c" * 64})
    record = {
        "format": 1,
        **described,
        "seed": 1,
        "imports": [],
        "command": f"python workflow/scripts/{rule}.py '{job}' '{{}}' --threads 1",
        "input": record_digests(inputs),
        "output": record_digests(outputs),
        "code": {"digest": "c" * 64, "files": {}},
        "git": {"commit": "0" * 40, "dirty": False},
        "environment": {"python": "3.11.7", "packages": {"numpy": "2"}, "lock": None},
        "machine": {"host": "here", "cpu": "one", "gpu": None, "threads": 1},
        "time": {"started": "2026-01-01T00:00:00+00:00", "seconds": 1.0},
        "warnings": ["UserWarning: slow"],
    }
    write_record(file, record)


def faulty_files(*targets: str) -> set[str]:
    """Verify what is on disk; return the files with a fault."""
    return {fault.what for fault in verify(SMALL, targets, configuration=None).faults}


def flips(file: Path, step: int, most: int | None = None):
    """Flip every `step`-th byte in turn, at most `most` of them, and then restore the file."""
    content = file.read_bytes()
    places = range(0, len(content), step)
    for place in places[:: 1 + (len(places) - 1) // most] if most else places:
        file.write_bytes(flipped(content, place))
        yield place
    file.write_bytes(content)


def test_a_run_that_nothing_happened_to_has_no_fault(two_jobs):
    assert (
        faulty_files() == faulty_files(two_jobs) == faulty_files(f"{SMALL}/tables/t.csv") == set()
    )


@pytest.mark.parametrize("kind", SMALL_FILES)
def test_a_flipped_byte_is_found_among_everything_and_of_a_table_and_a_number(kind, two_jobs):
    file = SMALL / SMALL_FILES[kind]
    for place in flips(file, step=1, most=40):
        for targets in ((), (f"{SMALL}/tables/t.csv",), (two_jobs,)):
            assert str(file) in faulty_files(*targets), (place, targets)


@pytest.mark.long
@pytest.mark.parametrize("kind", SMALL_FILES)
def test_every_flipped_byte_is_found(kind, two_jobs):
    file = SMALL / SMALL_FILES[kind]
    for place in flips(file, step=1):
        assert str(file) in faulty_files(two_jobs), place


@pytest.mark.parametrize("kind", ["record of a table", "record of a model's job", "ledger"])
@pytest.mark.parametrize("value", [None, "text", {}, [{}], "\0", "x" * 2000])
def test_a_record_or_ledger_with_any_part_replaced_is_a_fault_in_words(kind, value, two_jobs):
    """The record is sealed again, so that only its content can be wrong."""
    file = SMALL / SMALL_FILES[kind]
    text = file.read_text()
    for path in list(small_run.places(json.loads(text))):
        content = json.loads(text)
        part = content
        for step in path[:-1]:
            part = part[step]
        if part[path[-1]] == value:
            continue
        part[path[-1]] = value
        if kind == "ledger":
            file.write_text(as_text(content))
        else:
            write_record(file, {key: each for key, each in content.items() if key != "digest"})
        for targets in ((), (f"{SMALL}/tables/t.csv",), (two_jobs,)):
            faulty = faulty_files(*targets)  # of a record, nothing contradicts some parts
            assert kind != "ledger" or str(file) in faulty, (path, targets)
    file.write_text(text)


@pytest.mark.parametrize("targets", [(), ("t:1:score",), ("results/r/tables/t.csv",)])
def test_a_record_that_no_longer_names_the_file_beside_it_is_found_though_it_is_sealed(
    targets, two_jobs
):
    for name, output in (("tables/t", "table"), ("tables/t", "ledger"), ("m/test", "score")):
        file = SMALL / f"{name}.record.json"
        before = file.read_text()
        record = read_record(file)
        record["output"][output]["path"] += "x"
        write_record(file, {key: value for key, value in record.items() if key != "digest"})
        assert str(file) in faulty_files(*targets), output
        file.write_text(before)


def test_what_a_record_lacks_is_said(two_jobs):
    file = SMALL / "tables/t.record.json"
    record = read_record(file)
    del record["output"]["text"]["sha256"]
    write_record(file, {key: value for key, value in record.items() if key != "digest"})
    faults = {fault.what: fault for fault in verify(SMALL, configuration=None).faults}
    assert faults[str(file)].why == "no record that can be read"
    assert faults[str(file)].found == "output.text.sha256 is missing"


@pytest.fixture
def one_job(tmp_path, monkeypatch) -> Path:
    """A repository with one job that ran in an image."""
    monkeypatch.chdir(tmp_path)
    for name in ("results/r/a.json", "containers/ffmerge.sif", "resources/data.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("containers/lock.yaml").write_text(
        f"cpu: {{file: ffmerge.sif, sha256: {sha256_of(Path('containers/ffmerge.sif'))}}}\n"
    )
    described = {"rule": "make", "wildcards": {}, "params": {}, "reproduces": "bits"}
    command = f"python workflow/scripts/make.py '{json.dumps({**described, 'code': 'c'})}' '{{}}'"
    record = {
        **described,
        "command": command,
        "input": {"data": _entry("resources/data.csv")},
        "output": {"a": _entry("results/r/a.json")},
        "code": {"digest": "c", "files": {}},
        "environment": {
            "lock": None,
            "image": "/elsewhere/containers/ffmerge.sif",
            "image_sha256": sha256_of(Path("containers/ffmerge.sif")),
        },
    }
    write_record(Path("results/r/a.record.json"), record)
    return tmp_path


def _entry(path: str) -> dict[str, str]:
    return {"path": path, "sha256": sha256_of(Path(path))}


def found(**options) -> dict[str, str]:
    report = verify(Path("results/r"), configuration=None, **options)
    return {fault.what: fault.state for fault in report.faults}


def test_a_job_that_nothing_happened_to_has_no_fault(one_job):
    assert found() == {}


def test_a_run_can_be_verified_from_another_folder(one_job, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert found(root=one_job) == {}


def test_a_rebuilt_image_is_found_by_its_bytes_and_by_the_lock(one_job):
    image = Path("containers/ffmerge.sif")
    image.write_text("rebuilt")
    assert found() == {str(image): STALE}
    Path("containers/lock.yaml").write_text(f"cpu: {{sha256: {sha256_of(image)}}}\n")
    assert found() == {str(image): STALE, "containers/lock.yaml": STALE}


def test_an_image_that_is_not_here_is_no_fault_as_long_as_the_lock_names_it(one_job):
    Path("containers/ffmerge.sif").unlink()
    assert found() == {}
    Path("containers/lock.yaml").write_text("cpu: {sha256: null}\n")
    assert found() == {"containers/lock.yaml": STALE}


@pytest.mark.parametrize("kind", ["a.record.json", "t.ledger.json"])
def test_what_a_job_that_runs_or_was_killed_left_half_written_is_not_read(kind, one_job):
    hidden = (Path("results/r/.partial.1/x"), Path("results/r"))
    for folder in hidden:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".partial.7.{kind}").write_text("half of")
    (hidden[0] / kind).write_text("half of")
    assert found() == {}


def test_a_file_without_a_record_and_a_record_without_sense_are_faults(one_job):
    Path("results/r/b.json").write_text("{}")
    Path("results/r/c.record.json").write_text("half of")
    Path("results/r/.partial.d.json").write_text("{}")  # of a job that runs
    assert found() == {"results/r/b.json": MISSING, "results/r/c.record.json": BROKEN}


def test_an_input_that_is_gone_is_missing(one_job):
    Path("resources/data.csv").unlink()
    assert found() == {"resources/data.csv": MISSING}


def test_files_and_folders_have_the_digests_that_records_have(tmp_path):
    for name in ("a/b/c.txt", "a/d.txt", "a/b-c.txt", "a/.snakemake_timestamp", "e.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "empty").mkdir()
    names = [str(tmp_path / name) for name in ("a", "a/b", "a/d.txt", "e.txt", "empty", "gone")]
    hashed = digests(names)
    assert hashed.of == {name: sha256_of(Path(name)) for name in names[:-1]} | {names[-1]: None}
    assert hashed.n_files == 4  # each once


TOOL = "workflow/scripts/make.py"


@pytest.fixture
def one_script(one_job) -> Callable:
    """record(**code): write that of the job anew, its script in a commit, with these changes."""
    Path(TOOL).parent.mkdir(parents=True)
    Path(TOOL).write_text("rate = 20.0\n")
    commit = small_run.commit(TOOL)
    trees = {TOOL: read_source(Path(TOOL)).tree}
    true = {"files": {TOOL: sha256_of(Path(TOOL))}, "trees": trees}

    def write(dirty: bool = False, **code) -> None:
        file = Path("results/r/a.record.json")
        content = {key: each for key, each in read_record(file).items() if key != "digest"}
        content["code"] = {**true, "digest": digest_of_trees(trees), **code}
        content["command"] = content["command"].replace('"c"', f'"{content["code"]["digest"]}"')
        content["git"] = {"commit": commit, "dirty": dirty}
        write_record(file, content)

    return write


ANOTHER = {TOOL: "f" * 64}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ({}, None),
        ({"files": ANOTHER}, f"its commit has another {TOOL}, and its tree was not changed"),
        ({"files": ANOTHER, "dirty": True}, None),  # nothing tells
        ({"trees": ANOTHER}, "code.trees are not those of code.digest"),
        ({"trees": {}}, "code.trees are not those of code.digest"),
        ({"digest": "f" * 64}, "code.trees are not those of code.digest"),
        (
            {"trees": ANOTHER, "digest": digest_of_trees(ANOTHER)},
            f"code.digest is not that of {TOOL}, which ran",
        ),
    ],
)
def test_the_files_that_ran_are_held_against_the_digest_of_the_code(code, why, one_script):
    one_script(**code)
    whys = {fault.why for fault in verify(Path("results/r"), configuration=None).faults}
    assert whys >= {why} if why else not whys


@pytest.mark.parametrize(
    ("text", "state"), [("rate = 20.0  # new\n", None), ("rate = 99.9\n", STALE)]
)
def test_an_edited_comment_is_told_from_edited_code_without_the_workflow(text, state, one_script):
    one_script()
    Path(TOOL).write_text(text)
    assert found() == ({TOOL: state} if state else {})


@pytest.mark.parametrize(
    ("path", "state"),
    [
        ("data/mine.csv", None),
        ("/elsewhere/mine.csv", None),
        ("../mine.csv", None),
        ("results/other/mine.csv", None),
        ("results/r/mine.csv", MISSING),
    ],
)
def test_data_from_anywhere_but_the_results_is_held_by_its_digest(path, state, one_job):
    path = f"{one_job.parent}{path}" if path.startswith("/") else path
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("mine")
    file = Path("results/r/a.record.json")
    content = {key: each for key, each in read_record(file).items() if key != "digest"}
    write_record(file, content | {"input": {"data": _entry(path)}})
    assert found() == ({path: state} if state else {})
    Path(path).write_text("altered")
    assert found().get(path) in (BROKEN, state)


@pytest.mark.parametrize("mark", ["left-behind.txt", "ro-crate-metadata.json", None])
@pytest.mark.parametrize("command", ["verify", "explain", "report"])
def test_nothing_of_a_folder_that_was_collected_is_executed(mark, command, two_jobs, capsys):
    """Nor of any other folder, if the user says so."""
    Path("config").mkdir()
    Path("config/r.yaml").write_text("{results: results/r, tasks: {}}")
    touch = "open('executed', 'w').close()\n"
    for file in ("Snakefile", "workflow/Snakefile", "snakemake.py", "provenance.py", "yaml.py"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(touch)
    for file in ("workflow/report/page/page.html.jinja", "docs/discrepancies.md"):
        Path(file).parent.mkdir(parents=True)
        Path(file).write_text("# {{ cycler.__init__.__globals__ }}")
    options = [] if mark else ["--no-plan"]
    if mark:
        Path(mark).touch()
    status = main([command, "--results", "results/r", *options])
    said = "".join(capsys.readouterr())
    assert not Path("executed").exists()
    assert status == 0, said
    if command == "explain":
        assert "Nothing is stale" in said and "Not compared with the workflow" in said
        return
    if command == "verify":
        why = "nothing of a collected folder is executed" if mark else "nobody asked for it"
        assert f"not compared with what it would do now: {why}" in said
    else:
        assert "<title>" in (SMALL / "report.html").read_text()
