"""What happens to a run on the cluster, all of it before the first test: time there is waiting.

Snakemake is told to make the pico Table 5 with the profile `slurm`, and while it does

    a job is cancelled,
    Snakemake is killed, its jobs run on, and `slurm/resume.py` goes on,
    a job hangs until its time is over,
    SLURM tells a fine-tuning that its time will be over soon,
    a node crashes.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
from clone import TARGET, Clone, Trace

from cluster import Cluster

SECONDS = 900  # for anything that the story waits for: machines may be busy
# As a user would: another configuration, and a look at the queue as often as short jobs deserve.
OPTIONS = ["--configfile", "config/run.yaml", "--slurm-init-seconds-before-status-checks", "3"]


@dataclass
class Story:
    """What happened: the SLURM jobs that were struck, and what was said."""

    clone: Clone
    cancelled: str = ""
    orphans: list[str] = field(default_factory=list)
    refused: str = ""
    timed_out: str = ""
    interrupted: Trace | None = None  # the fine-tuning that SLURM told to stop
    crashed: list[str] = field(default_factory=list)
    status: int = -1
    begun: float = field(default_factory=time.monotonic)

    def note(self, what: str) -> None:
        """Say what happens, and when."""
        print(f"{time.monotonic() - self.begun:6.1f} s  {what}", flush=True)


def play(cluster: Cluster, clone: Clone) -> Story:
    """Run the workflow, and let all of it happen."""
    story = Story(clone)
    run = clone.start("snakemake", "--profile", "slurm", TARGET, *OPTIONS)
    try:
        cancel_a_job(story, cluster, run)
        run = kill_snakemake(story, cluster, run)
        let_a_job_hang(story, cluster, run)
        interrupt_a_fine_tuning(story, cluster, run)
        crash_a_node(story, cluster, run)
        story.status = run.wait(SECONDS)
        story.note("the run ended")
    finally:
        run.kill()  # and the cluster cancels its jobs
    return story


def cancel_a_job(story: Story, cluster: Cluster, run: subprocess.Popen) -> None:
    """As by an administrator or by hand."""
    job = wait_for("the first job", lambda: story.clone.at_work("train_base_model"), run)
    story.cancelled = job.slurm_job
    cluster.ask("scancel", job.slurm_job)
    story.note(f"cancelled job {job.slurm_job}: {job.job}")


def kill_snakemake(story: Story, cluster: Cluster, run: subprocess.Popen) -> subprocess.Popen:
    """Its jobs do not notice. Returns the run that goes on over them."""
    clone = story.clone
    job = wait_for("features", lambda: clone.at_work("collect_features"), run)
    run.kill()
    run.wait()
    for process in of_jobs(clone):  # so that the jobs are still there when the next commands ask
        process.suspend()
    story.note(f"killed Snakemake while job {job.slurm_job} ran: {job.job}")
    story.refused = clone.run("snakemake", "--profile", "slurm", TARGET, *OPTIONS)
    story.orphans = [job for job, *_ in cluster.jobs()]
    run = clone.start(sys.executable, "slurm/resume.py", TARGET, *OPTIONS)
    story.note(f"resumed over the orphans {story.orphans}")
    return run


def let_a_job_hang(story: Story, cluster: Cluster, run: subprocess.Popen) -> None:
    """Its time is over sooner than the profile says, for the tests' sake."""
    clone, base = story.clone, "score_test results/pico vit base"
    job = wait_for("a test score", lambda: clone.at_work(base, story.orphans), run)
    story.timed_out = job.slurm_job
    for process in of_jobs(clone, job.slurm_job):
        process.suspend()
    cluster.ask("scontrol", "update", f"JobId={job.slurm_job}", "TimeLimit=1")
    story.note(f"stopped the processes of job {job.slurm_job}: {job.job}")


def interrupt_a_fine_tuning(story: Story, cluster: Cluster, run: subprocess.Popen) -> None:
    """SLURM sends the profile's own signal, five minutes before the end, which is made to be now.

    Training stands still until then, for SLURM looks at the clock every half minute: so the signal
    comes while the model trains, on a fast machine, too. SLURM lets go on what it sends one to.
    """
    clone = story.clone
    job = wait_for("fine-tuning", lambda: clone.at_work("fine_tune"), run)
    checkpoints = clone.root / clone.of_model(job.model, ".checkpoints")
    wait_for("a checkpoint", lambda: list(checkpoints.glob("*/*/complete")), run)
    training = of_jobs(clone, job.slurm_job)
    for process in training:
        process.suspend()
    cluster.ask("scontrol", "update", f"JobId={job.slurm_job}", "TimeLimit=5")
    story.note(f"let the last five minutes of job {job.slurm_job} begin: {job.job}")
    wait_for("it to stop", lambda: not any(process.is_running() for process in training), run)
    story.interrupted = job
    story.note(f"job {job.slurm_job} stopped")
    record = clone.of_model(job.model, "tuned.record.json")
    wait_for("the next attempt to end", (clone.root / record).exists, run)
    attempt = clone.records()[record]["machine"]["slurm_job"]
    # or the crash below hits it, done as it is, and a third one starts anew
    wait_for("SLURM to end it", lambda: not cluster.running([attempt]), run)
    story.note(f"{job.job} went on to its end")


def crash_a_node(story: Story, cluster: Cluster, run: subprocess.Popen) -> None:
    """With whatever is on it."""
    wait_for("the hung job to end", lambda: not cluster.running([story.timed_out]), run)
    job = wait_for("a job", lambda: story.clone.at_work(), run)
    story.crashed = jobs = cluster.running(node=job.node)
    cluster.kill_node(job.node)
    story.note(f"killed node {job.node} under jobs {jobs}")
    wait_for("SLURM to miss the node", lambda: not cluster.running(jobs), run)
    for requeued in jobs:  # which SLURM lets wait for two minutes
        cluster.ask("scontrol", "update", f"JobId={requeued}", "StartTime=now")
    wait_for("them to start", lambda: not cluster.waiting(jobs), run)
    story.note(f"jobs {jobs} run again")
    cluster.start_node(job.node)


def wait_for(what: str, ready: Callable, run: subprocess.Popen | None = None):
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + SECONDS
    while not (found := ready()):
        assert time.monotonic() < deadline, f"waited {SECONDS} s for {what}"
        assert run is None or run.poll() is None, f"the run ended before {what}"
        time.sleep(0.1)
    return found


def of_jobs(clone: Clone, slurm_job: str = "") -> list[psutil.Process]:
    """The processes of the jobs that run here, or of one SLURM job's."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        words = process.info["cmdline"] or []
        of_job = any(word.startswith("workflow/scripts/") for word in words)
        is_python = process.info["name"].startswith("python")
        if of_job and is_python and process.cwd() == str(clone.root):
            job = process.environ().get("SLURM_JOB_ID")
            found += [process] if slurm_job in ("", job) else []
    return found
