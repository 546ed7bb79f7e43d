"""The workflow on a cluster: real SLURM, the real image in Apptainer, and all that goes wrong.

One story is played before the first test, for a cluster's time is in its waiting: Snakemake is told
to make the pico Table 5 with the profile `slurm`, and while it does

    a job is cancelled,
    Snakemake is killed, its jobs run on, and `slurm/resume.py` goes on,
    a job hangs until its time is over,
    a node crashes.

Then the tests ask what became of it.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import yaml
from cluster import ACCOUNT, PARTITION, Cluster

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
TARGET = "results/pico/tables/table5.csv"
SECONDS = 300  # for anything that the story waits for
# As a user would: another configuration, and a look at the queue as often as short jobs deserve.
OPTIONS = ["--configfile", "config/run.yaml", "--slurm-init-seconds-before-status-checks", "3"]


def prepare() -> None:
    """Skip the tests where the machine cannot play a cluster, and say why."""
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons and Debian's packages want root")
    for script in ("slurm-install.sh", "apptainer-install.sh"):
        done = subprocess.run([HERE / script], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
            pytest.skip(f"{script} failed, which said: {said[-1]}")


def image() -> Path:
    """The image of containers/lock.yaml, built if it is not there."""
    locked = yaml.safe_load((REPOSITORY / "containers/lock.yaml").read_text())["cpu"]
    file = REPOSITORY / "containers" / locked["file"]
    if not file.exists():
        command = ["make", "images", "ENV=cpu"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"make images failed, which said: {done.stderr.strip()[-500:]}")
    return file


class Clone:
    """A repository as somebody has it who cloned this one and adapted it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        said = subprocess.run(listed, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True).stdout
        for name in filter(None, said.decode().split("\0")):
            if os.path.lexists(REPOSITORY / name):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, root / name, follow_symlinks=False)
        config = yaml.safe_load((root / "config/pico.yaml").read_text())
        config["tasks"] = {"vit": config["tasks"]["vit"]}
        (root / "config/run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        shutil.copy(HERE / "tracer.py", root / "workflow/sitecustomize.py")

    def environment(self) -> dict[str, str]:
        """What a shell has where `.venv` is active; root in a sandbox has to tell Apptainer."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        outer = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return outer | {"PATH": path, "APPTAINER_NO_PRIVS": "1"}

    def start(self, *command: str) -> subprocess.Popen:
        """Start a command here; what it says goes to a file."""
        with (self.root / "said.txt").open("a") as said:
            return subprocess.Popen(
                command, cwd=self.root, env=self.environment(), stdout=said, stderr=said
            )

    def run(self, *command: str) -> str:
        """Run a command here to its end and return what it says, whatever its status."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), text=True, timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.stdout

    def said(self) -> str:
        return (self.root / "said.txt").read_text()

    def table(self) -> list[dict[str, str]]:
        with (self.root / TARGET).open(newline="") as file:
            return list(csv.DictReader(file))

    def records(self) -> dict[str, dict]:
        files = sorted((self.root / "results/pico").rglob("*record.json"))
        return {str(file.relative_to(self.root)): json.loads(file.read_text()) for file in files}

    def processes(self) -> list["Trace"]:
        """Every process of a job that ever lived here."""
        return [trace for file in (self.root / "trace").glob("*") if (trace := Trace.read(file))]

    def at_work(self, job: str = "", but: Sequence[str] = ()) -> "Trace | None":
        """A SLURM job's process that is at work now, but none of these SLURM jobs'.

        job: how its rule and wildcards begin.
        """
        found = [trace for trace in self.processes() if trace.job.startswith(job) and trace.node]
        found = [trace for trace in found if trace.slurm_job not in but]
        return next((trace for trace in found if time.time() - trace.last < 1), None)


@dataclass
class Trace:
    """When a process of a job lived, in which SLURM job and on which node."""

    job: str
    slurm_job: str | None
    node: str | None
    offline: bool
    first: float
    last: float

    @classmethod
    def read(cls, file: Path) -> "Trace | None":
        lines = file.read_text().splitlines()
        if len(lines) < 2:
            return None
        named = json.loads(lines[0])
        times = [float(line) for line in lines[1:] if re.fullmatch(r"\d+\.\d+", line)]
        return cls(**named, first=times[0], last=times[-1])


@dataclass
class Story:
    """What happened: the SLURM jobs that were struck, and what was said."""

    clone: Clone
    cancelled: str = ""
    orphans: list[str] = field(default_factory=list)
    refused: str = ""
    timed_out: str = ""
    crashed: list[str] = field(default_factory=list)
    status: int = -1
    seconds: dict[str, float] = field(default_factory=dict)


def wait_for(what: str, ready: Callable, run: subprocess.Popen | None = None):
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + SECONDS
    while not (found := ready()):
        assert time.monotonic() < deadline, f"waited {SECONDS} s for {what}"
        assert run is None or run.poll() is None, f"the run ended before {what}"
        time.sleep(0.1)
    return found


def suspend(clone: Clone, script: str = "") -> None:
    """Stop the processes of the jobs of a script, or of all, as if they hung."""
    for process in psutil.process_iter(["name", "cmdline"]):
        words = process.info["cmdline"] or []
        of_job = any(word.startswith(f"workflow/scripts/{script}") for word in words)
        is_python = process.info["name"].startswith("python")
        if of_job and is_python and process.cwd() == str(clone.root):
            process.suspend()


@pytest.fixture(scope="session")
def cluster():
    prepare()
    # Who ends the tests wants the daemons to end, too.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    cluster = Cluster()
    cluster.up()
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """The same table made without a cluster and without an image, while the cluster is at work."""
    clone = Clone(tmp_path_factory.mktemp("local"))
    command = [sys.executable, "workflow/run.py", TARGET, "--configfile", "config/run.yaml"]
    run = clone.start(*command, "--cores", "1")
    yield clone, run
    run.terminate()


def adapted(root: Path) -> Clone:
    """A clone with the image, adapted to the cluster in the lines that the profile marks."""
    clone = Clone(root)
    built = image()
    try:
        os.link(built, clone.root / "containers" / built.name)
    except OSError:  # on another disk
        shutil.copy(built, clone.root / "containers")
    profile = clone.root / "slurm/config.yaml"
    text = profile.read_text()
    for key, value in (("slurm_account", ACCOUNT), ("slurm_partition", PARTITION)):
        text, found = re.subn(rf'# {key}: "…"( *# HERE)', rf'{key}: "{value}"\1', text)
        assert found >= 1, f"the profile has no line for {key}"
    profile.write_text(text)
    return clone


@pytest.fixture(scope="session")
def clone(cluster, tmp_path_factory):
    return adapted(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="session")
def story(cluster, clone, local):
    story = Story(clone)
    begun = time.monotonic()

    def note(what: str) -> None:
        story.seconds[what] = time.monotonic() - begun
        print(f"{story.seconds[what]:6.1f} s  {what}", flush=True)

    run = clone.start("snakemake", "--profile", "slurm", TARGET, *OPTIONS)
    try:
        # A job is cancelled, by an administrator or by hand.
        job = wait_for("the first job", lambda: clone.at_work("train_base_model"), run)
        story.cancelled = job.slurm_job
        cluster.ask("scancel", job.slurm_job)
        note(f"cancelled job {job.slurm_job}: {job.job}")

        # Snakemake is killed; its jobs do not notice.
        job = wait_for("features", lambda: clone.at_work("collect_features"), run)
        run.kill()
        run.wait()
        suspend(clone)  # so that the jobs are still there when the next commands ask
        note(f"killed Snakemake while job {job.slurm_job} ran: {job.job}")
        story.refused = clone.run("snakemake", "--profile", "slurm", TARGET, *OPTIONS)
        story.orphans = [job for job, *_ in cluster.jobs()]
        run = clone.start(sys.executable, "slurm/resume.py", TARGET, *OPTIONS)
        note(f"resumed over the orphans {story.orphans}")

        # A job hangs. Its time is over sooner than the profile says, for the tests' sake.
        base = "score_test results/pico vit base"
        job = wait_for("a test score", lambda: clone.at_work(base, story.orphans), run)
        story.timed_out = job.slurm_job
        suspend(clone, "score_test")
        cluster.ask("scontrol", "update", f"JobId={job.slurm_job}", "TimeLimit=1")
        note(f"stopped the processes of job {job.slurm_job}: {job.job}")

        # A node crashes, with whatever is on it.
        wait_for("the hung job to end", lambda: not cluster.running([story.timed_out]), run)
        job = wait_for("a job", lambda: clone.at_work(), run)
        story.crashed = jobs = cluster.running(node=job.node)
        cluster.kill_node(job.node)
        note(f"killed node {job.node} under jobs {jobs}")
        wait_for("SLURM to miss the node", lambda: not cluster.running(jobs), run)
        for requeued in jobs:  # which SLURM lets wait for two minutes
            cluster.ask("scontrol", "update", f"JobId={requeued}", "StartTime=now")
        wait_for("them to start", lambda: not cluster.waiting(jobs), run)
        note(f"jobs {jobs} run again")
        cluster.start_node(job.node)

        story.status = run.wait(SECONDS)
        note("the run ended")
    finally:
        run.kill()  # and the cluster cancels its jobs
    return story


def test_the_table_is_that_of_a_local_run(story, local):
    assert story.status == 0, story.clone.said()[-3000:]
    clone, run = local
    assert run.wait(SECONDS) == 0, clone.said()
    assert story.clone.table() == clone.table()


def test_every_record_names_the_image_and_a_slurm_record_its_job_and_node(story, cluster):
    locked = yaml.safe_load((REPOSITORY / "containers/lock.yaml").read_text())["cpu"]
    ran = {run["JobIDRaw"]: run for run in cluster.history() if run["State"] == "COMPLETED"}
    records = story.clone.records()
    assert len(records) == 17
    for name, record in records.items():
        assert locked["sha256"] in json.dumps(record["environment"]), name
        machine = record["machine"]
        if record["rule"] in ("select_windows", "make_table5"):  # on the login node
            assert machine["slurm_job"] is None
        else:
            assert machine["slurm_node"] == ran[machine["slurm_job"]]["NodeList"], name


def test_jobs_go_where_the_profile_says_and_short_ones_share_one(story, cluster):
    said = cluster.ask("sacct", "-XnP", "--format=Account,Partition").stdout
    assert set(said.split()) == {f"{ACCOUNT}|{PARTITION}"}
    windows = [r for r in story.clone.records().values() if r["rule"] == "score_windows"]
    assert len({record["machine"]["slurm_job"] for record in windows}) == 1


def test_a_job_on_a_node_has_the_hub_offline_and_downloads_are_for_the_login_node(story):
    assert all(trace.offline for trace in story.clone.processes() if trace.node)
    said = story.clone.run("snakemake", "--profile", "slurm", "everything", "--dry-run")
    assert "config/paper.yaml" in said  # alone: no other is merged
    rules = "".join(file.read_text() for file in story.clone.root.glob("workflow/rules/*.smk"))
    downloads = [rule for rule in rules.split("\nrule ")[1:] if "offline=False" in rule]
    assert len(downloads) == 4 and all("localrule: True" in rule for rule in downloads)


def test_no_job_runs_twice_at_once(story):
    lives = defaultdict(list)
    for trace in story.clone.processes():
        lives[trace.job].append((trace.first, trace.last))
    assert len(lives) == 17
    for job, spans in lives.items():
        assert all(before[1] < after[0] for before, after in pairwise(sorted(spans))), job


def test_a_cancelled_job_runs_again(story, cluster):
    states = states_of(cluster, story.cancelled)
    assert len(states) == 1 and states[0].startswith("CANCELLED")
    record = story.clone.records()["results/pico/vit/trained_base_model.record.json"]
    assert record["machine"]["slurm_job"] != story.cancelled


def test_after_a_kill_a_plain_run_refuses_and_resume_cancels_what_ran_on(story, cluster):
    assert "LockException" in story.refused
    assert story.orphans
    assert f"Cancelling {len(story.orphans)} jobs" in story.clone.said()
    for job in story.orphans:
        assert states_of(cluster, job)[-1].startswith("CANCELLED")


def test_a_job_over_its_time_runs_again(story, cluster):
    assert states_of(cluster, story.timed_out) == ["TIMEOUT"]
    record = story.clone.records()["results/pico/vit/models/base/test.record.json"]
    assert record["machine"]["slurm_job"] != story.timed_out


def test_a_job_whose_node_crashed_is_queued_again(story, cluster):
    assert story.crashed
    for job in story.crashed:
        assert states_of(cluster, job) == ["NODE_FAIL", "COMPLETED"]


def test_logs_are_kept_for_every_job(story, cluster):
    logs = {log.stem for log in (story.clone.root / "results/logs/slurm").rglob("*.log")}
    started = {run["JobIDRaw"] for run in cluster.history() if run["NodeList"] != "None assigned"}
    assert started <= logs


def test_a_finished_run_has_nothing_to_do(story):
    said = story.clone.run("snakemake", "--profile", "slurm", TARGET, *OPTIONS)
    assert "Nothing to be done" in said


def test_a_wrong_image_is_refused(cluster, tmp_path):
    clone = adapted(tmp_path)
    other = clone.root / "containers" / image().name
    other.unlink()
    other.write_bytes(image().read_bytes() + b"\0")
    target = "results/pico/vit/trained_base_model"
    said = clone.run("snakemake", "--profile", "slurm", target, *OPTIONS, "--retries", "0")
    assert "At least one job did not complete successfully" in said
    (log,) = (clone.root / "results/logs/slurm").rglob("*.log")  # which the message names
    assert str(log) in said
    assert re.search(
        "image .* has sha256 .*containers/lock.yaml has .*make images", log.read_text()
    )
    assert not (clone.root / target).exists()
    other.unlink()  # half a gigabyte


def test_the_cluster_leaves_nothing_behind(story, cluster):
    before = cluster.daemons()
    assert len(before) >= 6
    cluster.down()
    assert not [pid for pid in before if psutil.pid_exists(pid)]
    assert not cluster.folder.exists()
    left = [p.info for p in psutil.process_iter(["name", "cmdline"]) if is_slurm(p)]
    assert left == []


def states_of(cluster: Cluster, job: str) -> list[str]:
    """What became of each run of a SLURM job."""
    return [run["State"] for run in cluster.history() if run["JobIDRaw"] == job]


def is_slurm(process: psutil.Process) -> bool:
    return str(Cluster().folder) in " ".join(process.info["cmdline"] or [])
