"""Signatures by `ssh-keygen`: what a forger can make agree, a signature tells apart."""

import csv
import json
import re
import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import pytest

import small_run
from experiment.cli import main
from provenance.page.command import gather
from provenance.seal import SEAL, ssh_keygen
from provenance.verify.command import verify

NAMES = ("alice@example.org", "bob@example.org")
SEALED = Path("results/demo") / SEAL


def test_ssh_keygen_is_there():
    """The tests below need it: Debian's package openssh-client."""
    assert shutil.which("ssh-keygen")


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """Keys of Alice and Bob, and files of allowed signers: `alice` and `both`."""
    folder = tmp_path_factory.mktemp("keys")
    lines = []
    for name in NAMES:
        key = folder / f"{name}.key"
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key]
        subprocess.run(make, check=True)
        lines.append(f'{name} namespaces="ffmerge" {key.with_suffix(".key.pub").read_text()}')
    (folder / "alice").write_text(lines[0])
    (folder / "both").write_text("".join(lines))
    (folder / "expired").write_text(lines[0].replace(" names", ' valid-before="20200101",names'))
    (folder / "of_git").write_text(lines[0].replace("ffmerge", "git"))
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A run that nobody signed yet."""
    small_run.write(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


def sign(keys: Path, name: str = NAMES[0]) -> int:
    return main(["sign", str(keys / f"{name}.key")])


def found(keys: Path, signers: str = "alice", *targets: str):
    return verify(targets=targets, signers=keys / signers)


def test_a_consistent_forgery_passes_without_the_signature_and_fails_with_it(root, keys, capsys):
    assert sign(keys) == 0
    assert found(keys).faults == []
    small_run.write(root, score=12.0, ended="2026-02-02T00:00:00+00:00")  # all digests agree
    assert "12.0" in (root / "results/demo" / small_run.TABLE).read_text()
    assert main(["verify"]) == 0
    assert main(["verify", "--signers", str(keys / "alice")]) == 1
    told = capsys.readouterr().out
    assert "results/demo/m/test.record.json" in told
    assert "alice@example.org signed on" in told
    assert "ended at 2026-02-02" in told
    faulty = {fault.what for fault in found(keys).faults}
    assert {f"results/demo/{each}" for each in (small_run.TABLE, small_run.LEDGER)} < faulty
    assert found(keys).state_of("table1:1:ppl") == "broken"


def test_it_is_said_who_signed_what_and_when(root, keys, capsys):
    assert sign(keys) == 0
    assert "4 records, 1 ledger, 1 other file" in capsys.readouterr().out
    [line] = found(keys).signed
    assert line.startswith("alice@example.org with ED25519 key SHA256:")
    assert line.endswith(" UTC: 4 records, 1 ledger, 1 other file")
    assert main(["verify", "--signers", str(keys / "alice"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] == [line]
    repository = Path(__file__).parents[2]
    for name in ("workflow/report/page", "docs"):
        shutil.copytree(repository / name, root / name)
    assert gather(Path("results/demo"), {}, found(keys))["signed"] == [line]


def test_two_people_vouch_for_the_same_and_either_is_enough(root, keys):
    for name in (*NAMES, NAMES[1]):  # the same signature twice is one
        assert sign(keys, name) == 0
    assert len(list(root.glob("results/demo/*.sig"))) == 2
    assert [line.split()[0] for line in found(keys, "both").signed] == [*NAMES]
    only = found(keys)
    assert only.faults == []
    assert any("does not name" in remark.why for remark in only.remarks)


def test_what_is_sealed_again_loses_the_signatures_of_what_it_was(root, keys):
    sign(keys, NAMES[1])
    small_run.write(root, score=12.0)
    assert sign(keys) == 0
    assert [line.split()[0] for line in found(keys, "both").signed] == [NAMES[0]]
    assert found(keys, "both").faults == []


@pytest.mark.parametrize(
    ("signers", "done", "why"),
    [
        ("alice", "unsigned", "nobody signed these results"),
        ("alice", "other", "does not name"),
        ("expired", "signed", "does not name for that time"),
        ("of_git", "signed", "does not name"),
        ("alice", "edited seal", "no signature of this seal"),
        ("alice", "other file", "no signature of this seal"),
        ("alice", "seal gone", "nobody signed"),
    ],
)
def test_a_signature_counts_only_if_it_is_good_and_the_key_is_allowed(
    root, keys, signers, done, why
):
    if done != "unsigned":
        assert sign(keys, NAMES[done == "other"]) == 0
    seal = root / SEALED
    if done == "edited seal":
        seal.write_text(seal.read_text() + f"{'0' * 64}  more\n")
    if done == "other file":
        seal.with_name(f"{SEAL}.1.sig").write_text("signature")
    if done == "seal gone":
        seal.unlink()
    report = found(keys, signers)
    assert [why in fault.why for fault in report.faults] == [True]
    assert report.state_of("table1:1:ppl") == "missing"
    assert report.signed == []


def test_a_signature_never_takes_the_place_of_another(root, keys):
    for name in NAMES:
        sign(keys, name)
    (root / SEALED).with_name(f"{SEAL}.1.sig").unlink()
    sign(keys)
    assert [line.split()[0] for line in found(keys, "both").signed] == [*NAMES]


@pytest.mark.parametrize(("n", "size", "why"), [(1, 1 << 42, "too large"), (101, 9, "more than")])
def test_signatures_without_end_are_refused_in_a_line(root, keys, n, size, why, capsys):
    """ssh-keygen would read each of them to its end."""
    sign(keys)
    for number in range(2, 2 + n):
        with (root / SEALED).with_name(f"{SEAL}.{number}.sig").open("wb") as stream:
            stream.truncate(size)
    capsys.readouterr()
    signers, key = str(keys / "alice"), str(keys / f"{NAMES[0]}.key")
    for command in (["verify", "--signers", signers], ["sign", key]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert why in error and error.count("\n") == 1


def test_a_seal_of_too_many_files_is_refused_in_a_line_though_it_is_signed(root, keys, capsys):
    sign(keys)
    text = (root / SEALED).read_text() + f"{'0' * 64}  a\n" * 50_000
    (root / SEALED).write_text(text)
    key = keys / f"{NAMES[0]}.key"
    signed = ssh_keygen("sign", "-n", "ffmerge", "-f", key, reads=text.encode())
    (root / SEALED).with_name(f"{SEAL}.1.sig").write_bytes(signed)
    why = "the seal seal.txt has more than 50,000 lines"
    assert [(fault.what, fault.why) for fault in found(keys).faults] == [(str(SEALED), why)]
    capsys.readouterr()
    assert sign(keys) == 2
    assert capsys.readouterr().err == f"error: {why}\n"


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "now"])
def test_a_seal_of_no_time_has_no_good_signature(root, keys, when):
    sign(keys)
    text = re.sub("(?<=sealed at ).*", when, (root / SEALED).read_text())
    (root / SEALED).write_text(text)
    key = keys / f"{NAMES[0]}.key"
    signed = ssh_keygen("sign", "-n", "ffmerge", "-f", key, reads=text.encode())
    (root / SEALED).with_name(f"{SEAL}.1.sig").write_bytes(signed)
    assert ["no signature of this seal" in fault.why for fault in found(keys).faults] == [True]


@pytest.mark.parametrize("name", ["m/new.record.json", "tables/table2.ledger.json"])
def test_a_record_or_ledger_that_was_added_is_not_among_what_was_signed(root, keys, name):
    sign(keys)
    old = "m/test.record.json" if "record" in name else small_run.LEDGER
    (root / "results/demo" / name).write_bytes((root / "results/demo" / old).read_bytes())
    told = [fault.why for fault in found(keys).faults if fault.what == f"results/demo/{name}"]
    assert any(why.startswith("not among what alice@example.org signed") for why in told)


def test_a_signed_file_that_is_gone_is_missing(root, keys):
    sign(keys)
    (root / "results/demo" / small_run.TABLE).unlink()
    states = {fault.why.partition(";")[0][:8]: fault.state for fault in found(keys).faults}
    assert states["not what"] == "missing"


def test_a_number_is_held_to_what_was_signed_of_it_alone(root, keys):
    sign(keys)
    chosen = root / "results/demo/m/selection.record.json"
    chosen.write_text(chosen.read_text().replace("choose", "chose"))
    assert found(keys, "alice", "results/demo/m/loss.json").faults == []
    assert found(keys, "alice", "table1:1:window").faults


def test_what_does_not_hold_is_not_signed(root, keys, capsys):
    (root / "results/demo/m/test.json").write_text('{"score": 1}')
    assert sign(keys) == 2
    assert "results/demo/m/test.json: not what score_test wrote" in capsys.readouterr().err
    assert not (root / SEALED).exists()


@pytest.mark.parametrize("name", ["a\nb", "gone"])
def test_a_folder_with_what_cannot_be_listed_is_not_signed(root, keys, name, capsys):
    (root / "left-behind.txt").write_text(
        ""
    )  # as in a collected folder, whose files are all signed
    (root / name).symlink_to("nowhere")
    assert sign(keys) == 2
    assert f"{name!r} is no file that can be listed" in capsys.readouterr().err
    assert not (root / SEALED).exists()


@pytest.mark.parametrize("key", ["none", "alice"])
def test_a_key_that_cannot_sign_is_told_in_a_line_and_the_old_signature_stays(
    root, keys, key, capsys
):
    sign(keys)
    before = (root / SEALED).read_bytes()
    small_run.write(root, score=12.0)
    assert main(["sign", str(keys / key)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ssh-keygen: ") and error.count("\n") == 1
    assert (root / SEALED).read_bytes() == before
    assert (root / SEALED).with_name(f"{SEAL}.1.sig").exists()


def test_without_ssh_keygen_the_package_is_named(root, keys, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert sign(keys) == 2
    assert "install openssh-client" in capsys.readouterr().err


def test_a_file_of_signers_that_is_not_there_is_told(root, capsys):
    assert main(["verify", "--signers", "nobody"]) == 2
    assert "nobody is not there" in capsys.readouterr().err


def test_what_is_collected_is_signed_with_all_its_files(root, keys, tmp_path, capsys):
    (root / "workflow").mkdir()
    (root / "workflow/Snakefile").write_text("rule all:\n")
    crate = tmp_path / "crate"
    assert main(["collect", "--to", str(crate), "--sign", str(keys / "none")]) == 2
    assert not crate.exists()
    assert main(["collect", "--to", str(crate), "--sign", str(keys / f"{NAMES[0]}.key")]) == 0
    assert subprocess.run(["sha256sum", "--check", "--quiet", SEALED], cwd=crate).returncode == 0
    with chdir(crate):
        assert found(keys).faults == []
        Path("workflow/Snakefile").write_text("rule other:\n")
        assert main(["verify"]) == 0  # nothing else knows what it was
        [fault] = found(keys).faults
    assert fault.what == "workflow/Snakefile"


def test_the_archive_for_readers_is_one_signed_file_that_explains_itself(root, keys, tmp_path):
    for name in ("workflow/Snakefile", "README.md", "docs/x.md"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("of the repository")
    (root / "workflow/report").mkdir()
    (root / "workflow/report/columns.yaml").write_text("PPL: test perplexity\n")
    key, archive = str(keys / f"{NAMES[0]}.key"), tmp_path / "run.zip"
    assert main(["collect", "--paper", "--to", str(archive), "--sign", key]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.zip"]
    shutil.unpack_archive(archive, tmp_path / "there")
    with chdir(tmp_path / "there"):
        assert found(keys).faults == []
        with Path("data-dictionary.csv").open(newline="") as stream:
            rows = {row["column"]: row for row in csv.DictReader(stream)}
        readme = Path("README.md").read_text()
        metadata = Path("ro-crate-metadata.json").read_text()
        assert Path("README-workflow.md").read_text() == "of the repository"
        named = re.findall(r"^\| `([^`…]+)`", readme, re.MULTILINE)
        assert len(named) > 4
        assert [name for name in named if not list(Path().glob(name))] == []
    assert len(readme.splitlines()) < 50  # a page
    assert "2 numbers of 1 tables" in readme
    assert rows["PPL"] == {
        "file": f"results/demo/{small_run.TABLE}",
        "title": "",
        "column": "PPL",
        "means": "test perplexity",
        "holds": "numbers",
        "example": "20.0",
        "shown_as": "{:.1f}",
        "derived_as": "value",
        "read_from": "test.json /score",
    }
    assert rows["Model"]["holds"] == "text"
    assert all(name in metadata for name in ("README-workflow.md", "data-dictionary.csv"))


@pytest.mark.parametrize(
    "arguments", [["--to", "run.zip"], ["--to", "run", "--sign", "key"]], ids=["unsigned", "no zip"]
)
def test_an_archive_for_readers_is_a_zip_and_signed(root, arguments, capsys):
    assert main(["collect", "--paper", *arguments]) == 2
    assert "it needs --to NAME.zip and --sign KEY" in capsys.readouterr().err
