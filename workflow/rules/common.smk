# The configuration, and the functions that turn a rule into a command line.
import atexit
import gc
import json
import os
import sys
import threading
from functools import cache, partial
from pathlib import Path

WORKFLOW = Path(workflow.current_basedir).parent
SCRIPTS = "workflow/scripts"
sys.path.insert(0, str(WORKFLOW))

from snakemake.scheduling.job_scheduler import JobScheduler

from provenance import sources
from experiment import variants
from experiment.config.checks import classes_of, recipe_errors
from experiment.config.run import validated
from experiment.config.tasks import PACKAGE_FILE, READING, SCORING
from experiment.inputs import own_data
from ffmerge.compression.read import read_yaml
from provenance.digest import sha256_of


def refuse(errors):
    """End the run with a line for each error of the configuration, if there are any."""
    if errors := list(errors):
        sys.exit("\n".join(f"error: configuration: {line}" for line in errors))


try:
    for file in workflow.configfiles:
        # of a key that comes twice, Snakemake takes the last
        read_yaml(Path(os.path.relpath(file)))
    CONFIG = validated(config)
except ValueError as error:
    refuse(str(error).splitlines())

RESULTS = CONFIG.results
TASKS = CONFIG.tasks


def exit_in_thread(scheduler, *args, exit_gracefully=JobScheduler.exit_gracefully):
    """Handle SIGTERM in a thread. Snakemake's handler takes the scheduler's lock in the main thread:
    with a second SIGTERM on top of the first, as SLURM and workflow/run.py send it, that waits forever.
    """
    threading.Thread(target=exit_gracefully, args=(scheduler, *args)).start()


JobScheduler.exit_gracefully = exit_in_thread

# A third of the time to resolve all jobs would be Python's search for garbage. workflow/Snakefile enables it again once
# jobs run; at the end nothing is searched.
gc.disable()
atexit.register(gc.freeze)


wildcard_constraints:
    task="|".join(TASKS),
    variant=variants.MERGED_PATTERN,
    model=variants.MODEL_PATTERN,
    part=r"\d+-of-\d+|[a-z]+-k\d+",


def job(script, params=lambda wildcards: {}, reproduces="bits", folder=SCRIPTS):
    """The `params` of a rule: its job, described as JSON, and the job's files.

    The description is one JSON value, so that Snakemake compares it as a whole and two parameters
    that swap their values count as a change. The digest covers all code that the script can reach
    (provenance.sources): an edited library module changes it, a touched file or a comment does not.
    The files are apart, because Snakemake ignores changes of a parameter that depends on them.
    reproduces: what a second run must repeat: "bits", "decisions", or {metric: tolerance}.
    """

    def described(wildcards):
        chosen = params(wildcards)
        imports = named_modules(chosen)
        description = {
            "rule": script,
            "wildcards": dict(wildcards.items()),
            "params": chosen,
            "reproduces": reproduces,
            "imports": imports,
            "code": code_digest(f"{folder}/{script}.py", *imports),
        }
        return json.dumps(description, ensure_ascii=False)

    def files(wildcards, input, output):
        named = {
            kind: {name: plain(value) for name, value in paths.items()}
            for kind, paths in (("input", input), ("output", output))
        }
        return json.dumps(named, ensure_ascii=False)

    return {"job": described, "files": files}


def named_modules(params):
    """The modules that a job's parameters name, its task kind and its loaders."""
    kind = [f"experiment.tasks.{params['task']['kind']}"] if "task" in params else []
    loaders = [params["loader"]] if "loader" in params else []
    return sorted({*kind, *loaders, *params.get("loaders", {}).values()})


@cache
def code_digest(script, *imports):
    """The digest of the code that a script can reach, computed once for all jobs of a rule."""
    return sources.code_digest(sources.closure(WORKFLOW.parent / script, imports))


def plain(value):
    return str(value) if isinstance(value, str) else [str(item) for item in value]


def loader(model):
    """The module that loads a model, by the name of its folder."""
    return f"ffmerge.{'method.quantization' if model.endswith(variants.INT8_SUFFIX) else 'models.checkpoint'}"


def workers(wildcards):
    """Resource: the processes that make a task's batches in advance; no parameter, for no result depends on it."""
    return getattr(TASKS[wildcards.task], "workers", 0)


def cores(wildcards):
    """Threads: one that computes, and one for each worker."""
    return 1 + workers(wildcards)


def command(script, offline=True, folder=SCRIPTS, loads=False):
    """The command line of a rule, which anybody can copy from a record and run.

    The script replaces its shell; a signal to the whole job would otherwise end the shell before
    the script has saved its state (ffmerge.training.processes). Without MKL_CBWR the bits of a
    product would depend on the position of its arrays in memory. loads: whether workers have some of its threads.
    """
    computing, workers = "{threads}", ""
    if loads:
        computing = "$(({threads}>{resources.workers}?{threads}-{resources.workers}:1))"
        workers = "--workers {resources.workers} "
    hub = "HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 " if offline else ""
    return (
        f"exec env PYTHONPATH=workflow PYTHONUTF8=1 {hub}HF_HOME=.cache/huggingface TOKENIZERS_PARALLELISM=false "
        f"TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS={computing} "
        "MKL_CBWR=${{MKL_CBWR-AUTO,STRICT}} "
        f"python {folder}/{script}.py "
        f"{{params.job:q}} {{params.files:q}} --threads {computing} {workers}--log {{log}}"
    )


def weights(kind, path):
    """Output: a model's directory, temporary if the configuration says so."""
    return temp(directory(path)) if kind in CONFIG.temporary else directory(path)


def part(task, *keys):
    """The part of a task's configuration that a job depends on.

    Besides `keys` it has those for reading data and, if the job scores or trains, those for that.
    """
    scores = {"validation", "test", "fine_tuning"}.intersection(keys)
    needed = READING + (SCORING if scores else ())
    settings = TASKS[task]
    present = [key for key in needed if hasattr(settings, key)]
    return settings.model_dump(mode="json", include={"kind", *present, *keys})


def part_for_features(task, *unread):
    """The same for jobs that take batches as features do; unread: keys of `features` left out."""
    found = part(task, "features")
    return found | {"features": {k: v for k, v in found["features"].items() if k not in unread}}


def part_for_search(task):
    """The same for scoring windows: as `validation`, where `search` does not say otherwise."""
    search = getattr(TASKS[task], "search", None)
    replaced = {"validation": search.model_dump(mode="json")} if search else {}
    return part(task, "validation") | replaced
