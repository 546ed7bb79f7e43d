"""The workflow on a cluster, after all that story.py does to it: what became of it."""

import json
import re
import time
from collections import defaultdict
from itertools import pairwise

import psutil
import yaml
from clone import TARGET, adapted
from machine import LOCK, image
from slurm_files import ACCOUNT, PARTITION
from story import OPTIONS, SECONDS

from cluster import Cluster

N_JOBS = 19  # of Table 5 for one task


def test_the_table_is_that_of_a_local_run(story, local):
    assert story.status == 0, story.clone.said()[-3000:]
    clone, run = local
    assert run.wait(SECONDS) == 0, clone.said()
    assert story.clone.rows(TARGET) == clone.rows(TARGET)


def test_every_record_names_the_image_and_a_slurm_record_its_job_and_node(story, cluster):
    locked = yaml.safe_load(LOCK.read_text())["cpu"]
    ran = {run["JobIDRaw"]: run for run in cluster.history() if run["State"] == "COMPLETED"}
    records = story.clone.records()
    assert len(records) == N_JOBS
    for name, record in records.items():
        assert locked["sha256"] in json.dumps(record["environment"]), name
        machine = record["machine"]
        if record["rule"] in ("select_windows", "make_tables_2_to_5"):  # on the login node
            assert machine["slurm_job"] is None
        else:
            assert machine["slurm_node"] == ran[machine["slurm_job"]]["NodeList"], name


def test_every_record_names_the_commit_and_keeps_what_was_changed_since(story):
    commit = story.clone.git("rev-parse", "HEAD")
    for name, record in story.clone.records().items():  # read by git in the image
        assert record["git"]["commit"] == commit, name
        patch = (story.clone.root / record["git"]["patch"]).read_text()
        assert f'+  slurm_account: "{ACCOUNT}"' in patch, name


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
    assert len(lives) == N_JOBS
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


def test_a_fine_tuning_that_slurm_stops_goes_on_from_there_as_if_nothing_had_been(
    story, cluster, local
):
    stopped, clone = story.interrupted, story.clone
    assert states_of(cluster, stopped.slurm_job) == ["FAILED"]  # it ended before its time
    (said,) = (clone.root / "results/logs/slurm").rglob(f"{stopped.slurm_job}.log")
    step = int(re.search(r"stopped by SIGTERM at step (\d+);", said.read_text())[1])
    assert 0 < step < 1000
    log = clone.root / f"results/pico/vit/logs/fine_tune-{stopped.model}.log"
    assert f"going on from step {step}\n" in log.read_text()
    record = clone.records()[clone.of_model(stopped.model, "tuned.record.json")]
    assert record["machine"]["slurm_job"] != stopped.slurm_job
    curve = clone.of_model(stopped.model, "learning_curve.csv")
    assert local[1].wait(SECONDS) == 0
    assert clone.rows(curve) == local[0].rows(curve) != []


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


def test_what_jobs_ask_for_is_no_reason_to_run_them_again(story):
    other = ["--set-resources", "fine_tune:gpu=2", "score_windows:mem_mb=1000"]
    said = story.clone.run("snakemake", "--profile", "slurm", TARGET, *OPTIONS, *other)
    assert "Nothing to be done" in said


def test_fine_tuning_on_several_devices_gets_as_many_gpus_and_shares_them_with_its_group(
    story, cluster
):
    clone, model = story.clone, "permute-k2-first-best"
    config = yaml.safe_load((clone.root / "config/run.yaml").read_text())
    tuning = {"devices": 2, "max_steps": 4, "evaluate_every": 2}
    config["tasks"]["vit"]["fine_tuning"] |= tuning
    clone.configure("config/two_devices.yaml", config)
    since = time.time()
    target = clone.of_model(model, "tuned")
    options = ["config/two_devices.yaml" if "run.yaml" in word else word for word in OPTIONS]
    said = clone.run("snakemake", "--profile", "slurm", target, *options, "--forcerun", "compress")
    jobs = {t.job.split()[0]: t for t in clone.processes() if t.first > since}
    assert sorted(jobs) == ["compress", "fine_tune"], said[-3000:]
    assert len({job.slurm_job for job in jobs.values()}) == 1
    assert jobs["fine_tune"].gpus == "0,1"
    (asked,) = [r for r in cluster.history() if r["JobIDRaw"] == jobs["fine_tune"].slurm_job]
    assert asked["State"] == "COMPLETED"
    given = dict(each.split("=") for each in asked["AllocTRES"].split(","))
    assert (given["gres/gpu"], given["cpu"], given["node"]) == ("2", "2", "1")
    assert (
        clone.records()[clone.of_model(model, "tuned.record.json")]["params"]["task"][
            "fine_tuning"
        ]["devices"]
        == 2
    )


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
    before = cluster.living()
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
