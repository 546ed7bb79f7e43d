"""Whatever the arguments and the files, a command answers, or says in one line why it cannot."""

import fcntl
import json
import os
import random
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

import small_run
from experiment.cli import main
from provenance.numbers import read_ledgers
from provenance.record import write_record
from provenance.records import Records
from provenance.reproduce.command import run_snakemake
from provenance.sources import WORKFLOW

TABLE, NUMBER = "results/demo/tables/table1.csv", "table1:1:ppl"
RECORD = Path("results/demo/m/test.record.json")
LEDGER = Path("results/demo/tables/table1.ledger.json")


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run of four jobs with one table, as the working directory."""
    root = tmp_path / "run"
    small_run.write(root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PWD", str(root))
    for file in ("docs/discrepancies.md", "workflow/Snakefile"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text("# Title\n")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files if file.stat().st_size < 1 << 20}


def said(capsys, *arguments: str) -> tuple[int, str]:
    """Run a command; return the status and all that it prints."""
    try:
        status = main(list(arguments))
    except SystemExit as stop:  # of argparse
        status = stop.code
    return status, "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ("trace {root}/" + TABLE, 0, NUMBER),
        ("trace ./" + TABLE, 0, NUMBER),
        ("trace results//demo/tables/../tables/table1.csv", 0, NUMBER),
        ("trace --json {root}/" + TABLE, 0, NUMBER),
        ("trace " + TABLE + " --json --row 1 --column PPL", 0, NUMBER),
        ("trace --results {root}/results/demo " + NUMBER, 0, NUMBER),
        ("trace --results results/demo/ table1", 0, NUMBER),
        ("trace /etc/passwd", 2, "/etc/passwd is no table or figure with a ledger in results/demo"),
        ("trace ../other/tables/table1.csv", 2, "is no table or figure with a ledger"),
        ("trace /", 2, "/ is no table or figure"),
        ("trace .", 2, ". is no table or figure"),
        ("trace /proc/kmsg", 2, "/proc/kmsg is no table or figure"),
        ("trace table1:1:none", 2, "is not one of the numbers"),
        ("trace --results .. table1", 2, ".. is no folder of results"),
        ("verify --no-plan {root}/" + TABLE, 0, "0 faults"),
        ("verify --no-plan " + TABLE + " --json " + NUMBER, 0, '"holds": true'),
        ("verify --no-plan {root}/results/demo", 0, "0 faults"),
        ("verify --no-plan results/demo/", 0, "0 faults"),
        ("verify --no-plan /etc/passwd", 2, "no record says what made /etc/passwd"),
        ("verify --no-plan /", 2, "no record says what made /"),
        ("verify --no-plan ..", 2, "no record says what made .."),
        ("verify --no-plan --results /etc", 2, "/etc holds neither records nor ledgers"),
        ("verify --configfile none.yaml", 2, "none.yaml cannot be read: no such file"),
        ("verify --configfile config", 2, "config cannot be read: no such file"),
        ("explain --configfile none.yaml", 2, "none.yaml cannot be read: no such file"),
        ("explain --results /etc", 2, "may write to /etc"),
        ("collect --to {root}/crate /etc/passwd", 2, "no record says how /etc/passwd was made"),
        ("collect --to {root}/crate --results / table1", 2, "/ is no folder of results"),
        ("collect --to {root}/crate table1 nothing", 2, "no record says how nothing was made"),
        ("reproduce table1:1:none --json -- --cores 1", 2, "is not one of the numbers"),
        ("reproduce --configfile none.yaml " + NUMBER + " -- -n", 2, "none.yaml cannot be read"),
        ("report --results /etc --no-check --out x.html", 2, "/etc has no ledgers"),
        ("report --results results/demo --out results", 2, "results cannot be a file"),
        ("report --results results/demo --out " + TABLE + "/a", 2, "/a cannot be a file"),
    ],
)
def test_arguments_are_understood_or_refused_in_one_line(arguments, status, line, run, capsys):
    Path("config").mkdir()
    Path("config/demo.yaml").write_text("{results: results/demo, tasks: {}}")
    before = contents(run)
    got, text = said(capsys, *arguments.format(root=run).split())
    assert (got, line in text) == (status, True), text
    assert status != 2 or "there are\n" in text or text.strip().count("\n") == 0
    assert contents(run) == before


@pytest.mark.parametrize("content", ["a: [", "[1]", "", "results: 1", "\0", "&a [*a]", "{: }"])
@pytest.mark.parametrize("command", ["verify", "explain", f"reproduce {NUMBER}"])
def test_a_configuration_that_cannot_be_read_is_named(content, command, run, capsys):
    Path("mine.yaml").write_text(content)
    status, text = said(capsys, *command.split(), "--configfile", "mine.yaml")
    assert status == 2
    assert text.startswith("error: mine.yaml cannot be read: ") and text.count("\n") == 1


def endless(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def large(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(1 << 29)  # takes no room on the disk


def loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


@pytest.mark.parametrize(
    "make",
    [
        endless,
        pipe,
        large,
        loop,
        lambda file: file.write_text("[" * 100_000),
        lambda file: file.write_text("{" * 10 + '"a":' * 10),
        lambda file: file.write_bytes(b"\xff\xfe\0"),
        lambda file: file.write_text("null"),
        lambda file: file.write_text("1" * 5000),
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: file.chmod(0),
    ],
)
@pytest.mark.parametrize("file", [RECORD, LEDGER])
@pytest.mark.parametrize("targets", [(), (NUMBER,)])
def test_a_record_or_ledger_that_is_no_such_file_is_a_fault(make, file, targets, run, capsys):
    if make.__name__ == "<lambda>" and os.geteuid() == 0 and "chmod" in make.__code__.co_names:
        pytest.skip("root reads every file")
    make(file)
    status, text = said(capsys, "verify", "--no-plan", *targets)
    assert status == 1 and str(file) in text
    status, _ = said(capsys, "trace", NUMBER)
    assert status in (1, 2)


VALUES = [
    *(None, "text", {}, [{}], "\0", 10**400, -1, True, 1e308, 0.5, "\ud800", "x" * 2000, "", "."),
    *("{:>99999}", "{0.__class__}", "counted of 9", "/", "/proc/kmsg", "..", "-x", "a\nb", [[1]]),
]
COMMANDS = [
    "verify --no-plan",
    f"verify --no-plan {NUMBER}",
    f"trace {NUMBER} --commands",
    "report --no-check --out {out}/page.html",
    "collect --to {out}/crate",
    "diff . .",
]


def sealed(content: dict) -> str:
    """The text of a record with this content, whatever it is."""
    body = json.dumps({key: each for key, each in content.items() if key != "digest"}, indent=2)
    digest = sha256(f"{body}\n".encode()).hexdigest()
    return f'{{\n  "digest": "{digest}",{body[1:]}\n'


def altered(text: str, path: tuple, value: object, as_key: bool) -> dict:
    """A record or ledger with one part replaced by a value, or its key if the value is a string."""
    content = json.loads(text)
    part = content
    for step in path[:-1]:
        part = part[step]
    if as_key and isinstance(part, dict) and isinstance(value, str):
        part[value] = part.pop(path[-1])
    else:
        part[path[-1]] = value
    return content


@pytest.mark.parametrize("file", [RECORD, LEDGER, Path("results/demo/tables/table1.record.json")])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_part_of_a_record_or_ledger_can_end_a_command_in_a_traceback(
    file, command, run, tmp_path, capsys
):
    """The record is sealed again. Each command sees other parts with other values."""
    text, chance = file.read_text(), random.Random(command + str(file))
    for path in list(small_run.places(json.loads(text))):
        value = chance.choice(VALUES)
        content = altered(text, path, value, chance.random() < 0.3)
        file.write_text(json.dumps(content) if file == LEDGER else sealed(content))
        status, printed = said(capsys, *command.format(out=tmp_path / f"{len(path)}").split())
        assert status in (0, 1, 2), (path, value)
        printed.encode()  # as a terminal does
        with suppress(FileNotFoundError):
            subprocess.run(["rm", "-r", tmp_path / f"{len(path)}/crate"], capture_output=True)


@pytest.mark.parametrize("make", [endless, pipe, loop])
@pytest.mark.parametrize("file", [TABLE, "results/demo/m/test.json", "resources/data.txt"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_or_device_in_place_of_a_recorded_file_ends_no_command(
    make, file, command, run, tmp_path, capsys
):
    make(Path(file))
    status, text = said(capsys, *command.format(out=tmp_path).split())
    assert status in (0, 1, 2)
    assert status == 1 or not command.startswith("verify"), text


def test_a_flipped_byte_in_a_key_is_a_fault(run, capsys):
    for file in (RECORD, LEDGER):
        content = file.read_bytes()
        for key in (b'"sha256"', b'"path"', b'"digest"', b'"files"', b'"rows"', b'"output"'):
            place = content.find(key) + 2
            if place > 1:
                file.write_bytes(content[:place] + b"~" + content[place + 1 :])
                status, text = said(capsys, "verify", "--no-plan")
                assert status == 1 and str(file) in text, key
        file.write_bytes(content)


def test_results_in_a_folder_of_results_do_not_count_as_its_own(run, capsys):
    small_run.write(run, "results")
    for results in ("results", "results/demo"):
        assert said(capsys, "verify", "--no-plan", results)[0] == 0
        status, text = said(capsys, "trace", NUMBER, "--results", results)
        assert status == 0 and f"{results}/m/test.json" in text, text
    for file in (Path(TABLE), LEDGER, RECORD):
        file.write_text("half of")
    Path("results/demo/m/more.csv").touch()
    records, (ledgers, broken) = Records(Path("results")), read_ledgers(Path("results"))
    assert (len(records.by_file), len(ledgers), records.broken, broken) == (4, 1, [], [])
    assert said(capsys, "verify", "--no-plan", "results")[0] == 0
    assert said(capsys, "verify", "--no-plan", "results/demo")[0] == 1
    Path("results/m/more.csv").touch()
    status, text = said(capsys, "verify", "--no-plan", "results")
    assert status == 1 and "results/m/more.csv" in text and "results/demo" not in text
    for file, inner in (("tables/table1", "tables"), ("m/test", "m")):  # as a forger would
        content = json.loads(Path(f"results/{file}.record.json").read_text())
        content["wildcards"]["results"] = f"results/{inner}"
        del content["digest"]
        write_record(Path(f"results/{file}.record.json"), content)
    assert len(Records(Path("results")).by_file) == 4
    assert len(read_ledgers(Path("results"))[0]) == 1


def test_a_second_run_in_the_folder_of_a_reproduction_is_refused(run):
    folder = Path(".cache/reproduced/one")
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"^\S+/one is in use by another run, or by jobs"):
            run_snakemake({"results": str(folder)}, [], [])
    assert [file.name for file in folder.iterdir()] == [".lock"]


@pytest.mark.slow
def test_only_snakemake_s_locks_on_the_folder_itself_are_removed(run):
    locks = Path(".snakemake/locks")
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("results/demo/a\nresults/demo/again/b\n")
    (locks / "1.output.lock").write_text("a\n./demo/a\n")
    run_snakemake({"results": "demo"}, [], ["--version"])
    assert [file.name for file in locks.iterdir()] == ["0.output.lock"]


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {}])
@pytest.mark.parametrize("command", [f"trace {NUMBER}", "verify --no-plan", "trace 数字"])
def test_a_locale_that_is_not_utf_8_is_no_obstacle(locale, command, tmp_path):
    small_run.write(tmp_path, "results/é")
    ran = subprocess.run(
        [sys.executable, "-m", "experiment.cli", *command.split(), "--results", "results/é"],
        cwd=tmp_path,
        env=os.environ | {"LC_ALL": "C", "PYTHONPATH": str(WORKFLOW)} | locale,
        capture_output=True,
    )
    text = (ran.stdout + ran.stderr).decode()
    assert ran.returncode == (2 if "数字" in command else 0), text
    assert {"trace": "results/é", "verify": "0 faults"}[command.split()[0]] in text


def sparse(name: str):
    def make() -> None:
        with open(name, "ab") as stream:
            stream.truncate(1 << 43)  # takes no room on the disk

    return make


def piped(name: str):
    def make() -> None:
        Path(name).unlink(missing_ok=True)
        os.mkfifo(name)

    return make


def linked(name: str, text: str | None = None):
    """Put a link in place of a file; it leads to a file beside the run, of the user or the same."""

    def make() -> None:
        Path("../secret").write_text(Path(name).read_text() if text is None else text)
        Path(name).unlink(missing_ok=True)
        Path(name).symlink_to("../" * name.count("/") + "../secret")

    return make


def written(name: str, content: str | bytes):
    def make() -> None:
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def rewritten(**changed):
    """Change the record of a test, with a digest that fits."""

    def make() -> None:
        RECORD.write_text(sealed(json.loads(RECORD.read_text()) | changed))

    return make


def promised_objects() -> None:
    """A repository whose configuration runs a command when git looks for a missing object."""
    Path("tool.py").write_text("rate = 1\n")
    small_run.commit("tool.py")
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "core.fsmonitor": "touch executed",
        "extensions.partialClone": "origin",
        "remote.origin.url": ".",
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": "touch executed;",
    }.items():
        subprocess.run(["git", "config", key, value], check=True)
    content = json.loads(RECORD.read_text())
    content["git"] = {"commit": "a" * 40, "dirty": False}
    content["code"] = {"digest": "c", "files": {"tool.py": "0" * 64}}
    RECORD.write_text(sealed(content))


def leaking_figure() -> None:
    """A figure that is a link to a file elsewhere."""
    linked("results/demo/tables/figure1.png", "SECRET")()
    content = json.loads(LEDGER.read_text())
    content["about"] = {"png": {"path": "results/demo/tables/figure1.png", "sha256": "0"}}
    for cell in content["cells"]:
        cell["id"] = cell["id"].replace("table1", "figure1")
    Path("results/demo/tables/figure1.ledger.json").write_text(json.dumps(content))


def claims_of_another_form() -> None:
    """A ledger of claims without the columns that the page shows, as of another version."""
    text = LEDGER.read_text().replace("table1:", "claims:")
    LEDGER.with_name("claims.ledger.json").write_text(text)


def circle() -> None:
    """Two jobs that wait for each other."""
    file = Path("results/demo/m/model.record.json")
    content = json.loads(file.read_text())
    content["input"]["data"] = {
        "path": SCORE,
        "sha256": sha256(Path(SCORE).read_bytes()).hexdigest(),
    }
    file.write_text(sealed(content))


DOUBLING = "a0: &a0 {k: v}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)
)
PAGE, SCORE = "report --no-check --out {out}/page.html", "results/demo/m/test.json"
HOSTILE = [  # how the folder is made, a command, its exit status, and what it says
    (sparse(SCORE), "verify --no-plan", 1, "cannot be read: most of it is not on the disk"),
    (sparse(SCORE), "diff . .", 0, "4 same bits"),
    (
        lambda: Path("to").symlink_to("results/demo"),
        "collect --to to/crate",
        2,
        "to/crate is in results/demo, which is collected from",
    ),
    (lambda: None, "collect --to resources/data.txt/crate", 2, "File exists: 'resources/data.txt'"),
    (lambda: None, f"reproduce {NUMBER} -- -n", 2, "no configuration here may write to results/d"),
    (rewritten(git={"commit": "a" * 40 + "\n"}), "verify --no-plan", 1, "not a commit"),
    (rewritten(git={"commit": "１" * 40}), "verify --no-plan", 1, "not a commit"),
    (
        lambda: (Path("resources/data.txt").unlink(), Path("resources/data.txt").mkdir()),
        "collect --to {out}/crate",
        1,
        "altered: resources/data.txt",
    ),
    (sparse(SCORE), "collect --to {out}/crate", 1, f"missing: {SCORE}"),
    (
        written("CITATION.cff", "preferred-citation: 5"),
        "collect --to {out}/crate",
        2,
        "error: CITATION.cff cannot be read: preferred-citation is 5, not dict",
    ),
    (written("pyproject.toml", "[" * 100_000), "collect --to {out}/crate", 0, "4 jobs"),
    (written("resources/demo/sources.yaml", "data: 1"), "collect --to {out}/crate", 2, "packages"),
    (
        rewritten(environment={"packages": {str(n): "1" for n in range(30_000)}}),
        "verify --no-plan",
        1,
        "a record, found it holds more than 20,000 values",
    ),
    (
        written(str(LEDGER), json.dumps({"cells": [0] * 300_000})),
        "verify --no-plan",
        1,
        "a ledger, found it holds more than 300,000 values",
    ),
    (rewritten(command="x.py " * 30_000), "verify --no-plan", 1, "a record, found command is"),
    (rewritten(machine={"host": "a\n0 faults."}), "diff . .", 0, "3 same bits"),
    (linked(str(RECORD)), "collect --to {out}/crate", 1, f"not a record: {RECORD}"),
    (linked(str(LEDGER)), "collect --to {out}/crate", 2, "has no table or figure with a ledger"),
    (sparse(TABLE), "verify --no-plan", 1, "cannot be read: most of it is not on the disk"),
    (sparse("docs/discrepancies.md"), PAGE, 2, "discrepancies.md cannot be read: it has more than"),
    (piped("docs/discrepancies.md"), PAGE, 2, "docs/discrepancies.md cannot be read: no such file"),
    (linked("docs/discrepancies.md", "# SECRET"), PAGE, 2, "is a link out of this folder"),
    (written("docs/discrepancies.md", b"# \xff"), PAGE, 0, "page.html: 0.0 MB"),
    (leaking_figure, PAGE, 0, "page.html: 0.0 MB"),
    (claims_of_another_form, PAGE, 2, "a ledger of results/demo lacks what the page shows: "),
    (written("workflow/scripts/train.py", "x = " + "-" * 100_000 + "1"), PAGE, 0, "page.html"),
    (written("workflow/scripts/train.py", b"\xff\0"), PAGE, 0, "page.html"),
    (written("config/a.yaml", DOUBLING + "results: results/demo\n"), PAGE, 0, "page.html"),
    (
        written("mine.yaml", DOUBLING),
        "explain --configfile mine.yaml",
        2,
        "mine.yaml cannot be read: a mapping has more than 1000 keys",
    ),
    (sparse("mine.yaml"), "verify --configfile mine.yaml", 2, "mine.yaml cannot be read: it has"),
    (sparse("left-behind.txt"), f"trace {NUMBER}", 2, "left-behind.txt cannot be read: it has"),
    (piped("left-behind.txt"), "verify", 2, "left-behind.txt cannot be read: no such file"),
    (written("left-behind.txt", b"\xff"), "verify", 2, "has a line that is not a digest and a"),
    (written("left-behind.txt", b"0  \xff\n"), "verify", 0, "0 faults"),
    (
        piped("results/demo/seal.txt"),
        "verify --no-plan --signers {root}/signers",
        2,
        "no such file",
    ),
    (sparse("results/demo/seal.txt"), "verify --no-plan --signers {root}/signers", 2, "more than"),
    (
        written(TABLE, 'Model,Window,PPL\n"' + "x" * 200_000),
        "verify --no-plan",
        1,
        "not what make_table1 wrote",
    ),
    (written("results/demo/m/\x1b[2J.txt", ""), "verify --no-plan", 1, r"demo/m/\x1b[2J.txt"),
    (written("results/demo/m/a\n0 faults.", ""), "verify --no-plan", 1, r"demo/m/a\n0 faults."),
    (written(os.fsdecode(b"results/demo/\xff"), ""), "verify --no-plan", 1, r"demo/\udcff"),
    (promised_objects, "verify --no-plan", 1, "code.trees are not those of code.digest"),
    (promised_objects, "report --no-plan --out {out}/page.html", 1, "faults were found"),
    (promised_objects, "explain --no-plan", 0, "Nothing is stale"),
    (circle, "explain --no-plan", 2, "the records say that jobs wait for each other in a circle"),
    (circle, "verify --no-plan", 0, "0 faults"),
    (Path("left-behind.txt").mkdir, "audit --sample 1 --seed 1", 2, "this folder was collected"),
    (
        lambda: Path("ro-crate-metadata.json").symlink_to("nowhere"),
        "audit --sample 1 --seed 1",
        2,
        "this folder was collected",
    ),
]


@pytest.mark.parametrize(("make", "command", "status", "line"), HOSTILE)
def test_a_hostile_folder_is_read_in_bounds_and_nothing_of_it_executed(
    make, command, status, line, run, tmp_path, capsys
):
    Path("signers").touch()
    make()
    out = tmp_path / "out"
    got, text = said(capsys, *command.format(out=out, root=run).split())
    assert (got, line in text) == (status, True), text
    assert got != 2 or text.count("\n") == 1
    assert not text.count("\x1b")
    text.encode()
    assert not [file for file in tmp_path.rglob("executed")]
    assert not [file for file in out.rglob("*.html") if b"SECRET" in file.read_bytes()]
    assert not [file for file in out.rglob("*.html") if b"U0VDUkVU" in file.read_bytes()]


def test_what_lies_elsewhere_is_not_read_for_a_folder_that_was_collected(run, capsys):
    """Another machine's paths may be anything here, such as all of its disk."""
    content = json.loads(RECORD.read_text())
    Path("../elsewhere").write_text("mine")
    content["input"]["data"] = {"path": "../elsewhere", "sha256": sha256(b"mine").hexdigest()}
    RECORD.write_text(sealed(content))
    _, text = said(capsys, "verify", "--no-plan")
    assert "../elsewhere" not in text
    Path("left-behind.txt").touch()
    _, text = said(capsys, "verify")
    assert "missing   ../elsewhere" in text
