"""The plan of a whole run: what each rule takes, and how long everything takes on some GPUs."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiment.config.run import Config
from experiment.planning import simulation
from experiment.planning.estimates import Estimate, Subject, estimate
from experiment.planning.rates import Rates, Shape
from experiment.planning.simulation import Step
from provenance.dag import PlannedJob, paths

KINDS = {
    "data, as fetched and unpacked": (
        "fetch_dataset",
        "fetch_archive",
        "unpack_parallel_text",
        "unpack_ilsvrc2012",
        "tokenize_text",
    ),
    "base models": ("fetch_package", "fetch_base_model", "unpack_base_model", "convert_base_model"),
    "features and outputs of sublayers": ("collect_features", "collect_outputs"),
    "compressed models, not yet tuned": ("compress", "drop_layers"),
    "tuned models": ("fine_tune",),
    "int8 models": ("quantize",),
}
"""Kind of file -> the rules that write it."""
CACHE, OTHERS = "cache of the library datasets", "scores, tables, figures, records"


@dataclass(frozen=True)
class Costed:
    """A job with what it takes: seconds from start to end, and bytes of each of its outputs."""

    job: PlannedJob
    estimate: Estimate
    seconds: float
    bytes_of: dict[str, float]  # path -> bytes

    @property
    def disk(self) -> float:
        """Bytes of all its outputs."""
        return sum(self.bytes_of.values())

    @property
    def step(self) -> Step:
        """What a schedule needs to know of it."""
        return Step(self.seconds, self.job.n_gpus, self.job.threads, self.job.after)


def costed(
    jobs: Sequence[PlannedJob], settings: Config, shapes: dict[str, Shape], rates: Rates
) -> list[Costed]:
    """What each job takes: start, inputs read, work, outputs written.

    Raises ValueError naming a rule, a model, or a data set that nothing is known about.
    """
    if settings.device == "cpu":
        raise ValueError("device: cpu: the rates are those of a GPU, so a plan needs device: cuda")
    estimates, bytes_of = [], []
    for job in jobs:
        task = settings.tasks.get(job.wildcards.get("task", ""))
        shape = None
        if task is not None and (shape := shapes.get(task.base_model.repository)) is None:
            raise ValueError(
                f"base model of {task.label}: config/paper_reported/models.csv has no shape of "
                f"repository {task.base_model.repository or '(it is from none)'}"
            )
        found = estimate(Subject(job, task, shape, rates))
        estimates.append(found)
        bytes_of.append(_bytes_of(job, found, rates["small_file"]))
    made = {path: size for of in bytes_of for path, size in of.items()}
    result = []
    for job, found, of in zip(jobs, estimates, bytes_of, strict=True):
        read = sum(made.get(path, 0.0) for path in paths(job.inputs)) / rates["read"]
        written = sum(of.values()) / rates["write"]
        seconds = rates["start_up"] + read + found.seconds + written
        result.append(Costed(job, found, seconds, of))
    return result


def _bytes_of(job: PlannedJob, found: Estimate, small: float) -> dict[str, float]:
    return {
        path: found.outputs.get(name, small)
        for name, value in job.outputs.items()
        for path in ([value] if isinstance(value, str) else value)
    }


class Plan:
    """Jobs with what they take, and what follows from it."""

    def __init__(self, jobs: Sequence[Costed], rates: Rates) -> None:
        self.jobs = jobs
        self.rates = rates
        self.steps = [job.step for job in jobs]

    def by_rule(self) -> dict[str, list[Costed]]:
        """The jobs of each rule, in the order in which Snakemake names them."""
        rules: dict[str, list[Costed]] = {}
        for job in self.jobs:
            rules.setdefault(job.job.rule, []).append(job)
        return rules

    def longest_path(self) -> list[Costed]:
        """The jobs that take the longest one after the other."""
        return [self.jobs[i] for i in simulation.longest_path(self.steps)]

    def disk(self) -> dict[str, float]:
        """Bytes of everything that is ever written, by kind, scratch not counted."""
        kinds = {kind: 0.0 for kind in (*KINDS, CACHE, OTHERS)}
        for job in self.jobs:
            kind = next((kind for kind, rules in KINDS.items() if job.job.rule in rules), OTHERS)
            kinds[kind] += job.disk
            kinds[CACHE] += job.estimate.cache
        return kinds

    def run(self, n_gpus: int) -> "Run":
        """How everything goes with so many GPUs.

        A job's outputs and scratch count from its start on, its scratch until its end, a temporary
        output until the last job that reads it.
        """
        started = simulation.schedule(self.steps, n_gpus, self.rates.machine["cores"])
        ended = [begin + step.seconds for begin, step in zip(started, self.steps, strict=True)]
        last_read: dict[str, float] = {}
        for job, end in zip(self.jobs, ended, strict=True):
            for path in paths(job.job.inputs):
                last_read[path] = max(last_read.get(path, 0.0), end)
        written, removed = [], []
        for job, begin, end in zip(self.jobs, started, ended, strict=True):
            scratch = job.estimate.scratch
            written += [(begin, scratch + job.disk + job.estimate.cache), (end, -scratch)]
            removed += [(last_read.get(p, end), -job.bytes_of[p]) for p in job.job.temporary]
        return Run(n_gpus, max(ended), simulation.peak(written), simulation.peak(written + removed))


@dataclass(frozen=True)
class Run:
    """A whole run on n_gpus: seconds, and the most bytes on disk, without and with removals."""

    n_gpus: int
    seconds: float
    peak_kept: float
    peak: float
