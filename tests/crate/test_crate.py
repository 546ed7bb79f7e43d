"""The crate of a run is valid for other tools, and answers the questions of its profile.

The competency questions are those that Workflow Run RO-Crate was made for, by their numbers there
(researchobject.org/workflow-run-crate/requirements). The answers are held against the records.
"""

import json
import shutil
import subprocess
from contextlib import chdir
from datetime import datetime
from pathlib import Path

import pytest

from experiment.cli import main
from provenance.digest import sha256_of
from provenance.numbers import read_ledgers
from provenance.record import read_record, write_record
from provenance.records import Record, Records

RESULTS = Path("results/pico")
PAGE = "results/pico/report.html"  # shows all numbers, and has no ledger of its own
SELECTION = "results/pico/vit/selection.json"  # of few jobs
TUNED = "results/pico/vit/models/permute-k2-first-best/tuned"

pytestmark = pytest.mark.long  # needs a finished run


def collect(root: Path, *arguments: object) -> None:
    with chdir(root):
        main(["collect", "--results", str(RESULTS), *map(str, arguments)])


@pytest.fixture(scope="module")
def crate(finished, tmp_path_factory) -> Path:
    """A folder with all tables and figures of a run."""
    folder = tmp_path_factory.mktemp("collected") / "crate"
    collect(finished.root, "--to", folder)
    return folder


@pytest.fixture(scope="module")
def records(finished) -> Records:
    """The records of the run."""
    return Records(RESULTS, finished.root)


@pytest.fixture(scope="module")
def answer(checkers, crate):
    """answer(SPARQL): return the rows; identifiers are relative to the crate."""
    with checkers.asking(crate) as ask:
        yield ask


def job(record: Record) -> str:
    """Return the identifier of a job's action, for a query."""
    return f"<https://crate.invalid/#job/{str(record.file).removesuffix('.record.json')}>"


def test_the_crate_is_valid_for_all_its_profiles(checkers, crate):
    said = checkers.validate(crate)
    assert said["passed"], json.dumps(said["issues"], indent=1)[:3000]
    assert said["issues"] == []
    checked = said["statistics"]
    assert {profile.rpartition("-")[0] for profile in _names(checked["profiles"])} == {
        "ro-crate",
        "process-run-crate",
        "workflow-ro-crate",
        "workflow-run-crate",
        "provenance-run-crate",
    }
    assert checked["total_checks"] == checked["total_passed_checks"] > 80
    assert checked["total_skipped_checks"] == 0


def test_the_validator_tells_when_a_file_of_the_crate_is_gone(checkers, finished, tmp_path):
    collect(finished.root, SELECTION, "--to", tmp_path / "crate")
    (tmp_path / "crate" / SELECTION).unlink()
    said = checkers.validate(tmp_path / "crate", "workflow-ro-crate")
    assert not said["passed"]
    assert SELECTION in json.dumps(said["issues"])


def test_runcrate_lists_every_job(checkers, crate, records):
    said = checkers.report(crate)
    reported = {part.partition("\n")[0]: part for part in said.split("action: ")}
    ledgers, _ = read_ledgers(RESULTS, crate)
    ancestry = records.ancestry(PAGE, *(path for ledger in ledgers for path in ledger.about))
    assert len(ancestry) > 100
    for record in ancestry:
        of_job = reported.pop(f"#job/{str(record.file).removesuffix('.record.json')}")
        assert f"step: #rule/{record.content['rule']}\n" in of_job
        assert f"started: {record.content['time']['started']}" in of_job
        for path in record.inputs | record.outputs:
            assert f"{path} <- #rule/{record.content['rule']}/" in of_job
    assert set(reported) == {"", "#run"}


def test_cq1_and_cq4_the_image_of_a_step(checkers, finished, tmp_path):
    root = shutil.copytree(finished.root, tmp_path / "repository", symlinks=True)
    file = root / "results/pico/vit/selection.record.json"
    record = read_record(file)
    record.pop("digest")
    image = {"lock": None, "image": "containers/ffmerge-cpu-0123.sif", "image_sha256": "0123" * 16}
    write_record(file, record | {"environment": record["environment"] | image})
    collect(root, SELECTION, "--to", tmp_path / "crate")
    images = """SELECT ?job ?name ?digest ?kind WHERE { ?job wfrun:containerImage ?image .
        ?image schema:name ?name ; wfrun:sha256 ?digest ; schema:additionalType ?kind }"""
    with checkers.asking(tmp_path / "crate") as ask:
        found = ask(images)
    sif = "https://w3id.org/ro/terms/workflow-run#SIFImage"
    job_of_image = "#job/results/pico/vit/selection"
    assert found == [[job_of_image, "ffmerge-cpu-0123.sif", "0123" * 16, sif]]
    assert checkers.validate(tmp_path / "crate")["passed"]


def test_cq2_memory_and_processor_time(answer, records):
    measured = answer("""SELECT ?job ?quantity ?value WHERE { ?job wfrun:resourceUsage ?used .
        ?used schema:name ?quantity ; schema:value ?value ; schema:propertyID ?what ;
        schema:unitCode ?unit }""")
    found = {(each, name): float(value) for each, name, value in measured}
    for record in records.by_file.values():
        for name in ("peak_memory_bytes", "cpu_seconds"):
            key = f"#job/{str(record.file).removesuffix('.record.json')}", name
            assert found[key] == record.content["time"][name]


def test_cq3_the_configuration_of_a_run(answer):
    files = answer("""SELECT ?file WHERE {
        ?run schema:instrument <https://crate.invalid/workflow/Snakefile> ; schema:object ?file .
        ?file schema:exampleOfWork ?parameter . ?parameter schema:name "configuration" }""")
    assert ["config/run.yaml"] in files


def test_cq4_the_lock_of_a_step(answer, records):
    record = records.maker(TUNED)
    (lock,) = answer(f"""SELECT ?name ?digest WHERE {{ {job(record)} schema:instrument ?tool .
        ?tool codemeta:buildInstructions ?file .
        ?file schema:name ?name ; wfrun:sha256 ?digest }}""")
    assert lock == list(record.content["environment"]["lock"].values())


def test_cq5_how_long_a_step_takes(answer, records):
    rows = answer("""SELECT ?start ?end ?seconds WHERE { ?control a schema:ControlAction ;
        schema:instrument ?step ; schema:object ?job . ?step schema:name "fine_tune" .
        ?job schema:startTime ?start ; schema:endTime ?end ; wfrun:resourceUsage ?used .
        ?used schema:name "seconds" ; schema:value ?seconds }""")
    times = [each.content["time"] for each in records.by_file.values()]
    tuned = [
        [each["started"], each["ended"], str(each["seconds"])]
        for each, record in zip(times, records.by_file.values(), strict=True)
        if record.content["rule"] == "fine_tune"
    ]
    assert sorted(rows) == sorted(tuned)


def test_the_archive_for_readers_is_a_valid_crate(checkers, finished, tmp_path):
    key, archive = tmp_path / "key", tmp_path / "run.zip"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]
    subprocess.run(make, check=True)
    collect(finished.root, "--paper", "--to", archive, "--sign", key)
    shutil.unpack_archive(archive, tmp_path / "run")
    assert checkers.validate(tmp_path / "run")["issues"] == []
    readme = (tmp_path / "run/README.md").read_text()
    assert "data-dictionary.csv" in readme


def test_cq6_how_long_the_workflow_takes(answer, records):
    ((start, end),) = answer("""SELECT ?start ?end WHERE {
        ?run schema:instrument <https://crate.invalid/workflow/Snakefile> ;
        schema:startTime ?start ; schema:endTime ?end }""")
    times = [record.content["time"] for record in records.by_file.values()]
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    assert seconds > max(time["seconds"] for time in times)
    assert start == min(time["started"] for time in times)


def test_cq7_whether_it_was_successful(answer, records):
    rows = answer(
        "SELECT ?job ?status WHERE { ?job a schema:CreateAction ; schema:actionStatus ?status }"
    )
    assert len(rows) == len(records.by_file) + 1  # and the run
    assert {status for _, status in rows} == {"http://schema.org/CompletedActionStatus"}


def test_cq8_inputs_and_outputs_of_the_whole(answer, crate, records):
    whole = "?run schema:instrument <https://crate.invalid/workflow/Snakefile> ."
    made = answer(f"SELECT ?file WHERE {{ {whole} ?run schema:result ?file }}")
    shown = [path for ledger in read_ledgers(RESULTS, crate)[0] for path in ledger.about]
    shown.append(PAGE)
    assert sorted(made) == sorted([path] for path in shown)
    given = answer(f"""SELECT ?name ?digest WHERE {{ {whole} ?run schema:object ?file .
        ?file schema:name ?name ; wfrun:sha256 ?digest }}""")
    origins = records.origins(*shown)
    assert any(path.endswith(".parquet") for path in origins)
    assert origins.items() <= dict(given).items()


def test_cq9_and_cq10_the_version_of_a_component_and_the_script_around_it(answer, records):
    for record in (records.maker(TUNED), records.maker(SELECTION)):
        (row,) = answer(f"""SELECT ?version ?name ?digest WHERE {{
            {job(record)} schema:instrument ?tool .
            ?tool schema:softwareVersion ?version ; schema:mainEntity ?script .
            ?script schema:name ?name ; wfrun:sha256 ?digest }}""")
        code = record.content["code"]
        script = f"workflow/scripts/{Path(row[1]).name}"
        assert row == [code["digest"], script, code["files"][script]]
        needed = answer(f"""SELECT ?name ?version WHERE {{ {job(record)} schema:instrument ?tool .
            ?tool schema:softwareRequirements ?each . ?each schema:name ?name .
            {{ ?each wfrun:sha256 ?version }} UNION
            {{ ?each schema:softwareVersion ?version }} }}""")
        environment = record.content["environment"]
        expected = code["files"] | environment["packages"] | {"python": environment["python"]}
        assert dict(needed) == expected


def test_cq11_how_the_configuration_got_into_a_job(answer, records):
    record = records.maker(TUNED)
    name = "task.fine_tuning.learning_rate"
    (row,) = answer(f"""SELECT ?value WHERE {{
        ?link wfrun:sourceParameter ?from ; wfrun:targetParameter ?to .
        ?from schema:name "configuration" . ?to schema:name "{name}" .
        ?given schema:exampleOfWork ?to ; schema:value ?value .
        {job(record)} schema:object ?given }}""")
    assert float(row[0]) == record.content["params"]["task"]["fine_tuning"]["learning_rate"]


def test_the_ancestry_of_a_table_is_one_query(answer, records):
    table = "results/pico/tables/table5.csv"
    rows = answer(f"""SELECT DISTINCT ?name ?digest WHERE {{
        <https://crate.invalid/{table}> (^schema:result/schema:object)+ ?file .
        ?file schema:name ?name ; wfrun:sha256 ?digest }}""")
    ancestry = records.ancestry(table)
    assert len(ancestry) > 30
    # the whole run's, which made the table as well: configurations, and what the page shows
    others = {"config/run.yaml", "config/pico.yaml", "docs/discrepancies.md"}
    found = {path: digest for path, digest in rows if path not in others}
    assert found == {path: digest for record in ancestry for path, digest in record.inputs.items()}


def test_where_and_from_which_commit_a_job_ran(answer, records):
    record = records.maker(TUNED)
    known = dict(
        answer(f"""SELECT ?name ?value WHERE {{ {job(record)} schema:additionalProperty ?each .
            ?each schema:name ?name ; schema:value ?value }}""")
    )
    assert known["host"] == record.content["machine"]["host"]
    assert known["git commit"] == record.content["git"]["commit"]
    assert json.loads(known["reproduces"]) == record.content["reproduces"]


def test_embedded_data_have_their_licences(answer):
    licences = dict(
        answer("""SELECT ?name ?licence WHERE { ?file schema:name ?name ; schema:license ?licence .
            ?file wfrun:sha256 ?digest }""")
    )
    spdx = "https://spdx.org/licenses/"
    assert licences["resources/demo/data/images/test.parquet"] == f"{spdx}MIT"
    assert licences["resources/demo/data/translation/test.parquet"] == f"{spdx}MPL-2.0"


def test_the_workflow_and_its_steps(answer, crate, records):
    ((snakefile, digest, language),) = answer("""SELECT ?file ?digest ?language WHERE {
        <https://crate.invalid/> schema:mainEntity ?file . ?file wfrun:sha256 ?digest ;
        schema:programmingLanguage ?its . ?its schema:name ?language }""")
    assert (snakefile, language) == ("workflow/Snakefile", "Snakemake")
    assert digest == sha256_of(crate / snakefile)
    steps = answer("""SELECT ?name ?position WHERE { ?workflow schema:step ?step .
        ?step schema:name ?name ; schema:position ?position ; schema:description ?what }""")
    positions = {name: int(position) for name, position in steps}
    assert set(positions) == {record.content["rule"] for record in records.by_file.values()}
    for record in records.by_file.values():
        for path in record.inputs:
            maker = records.maker(path)
            if maker and maker.content["rule"] != record.content["rule"]:
                assert positions[maker.content["rule"]] < positions[record.content["rule"]]


def _names(profiles: list) -> list[str]:
    return [each if isinstance(each, str) else each["identifier"] for each in profiles]
