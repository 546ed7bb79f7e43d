"""A change reruns exactly the jobs whose output it can change, unlike Snakemake alone.

Each of CHANGES has a change of this workflow, the jobs that it reruns, and the same change of a
plain Snakemake workflow (tests/plain_workflow.py) with the response of Snakemake alone.
"""

import copy
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from plain_workflow import IN_AN_IMAGE, Plain
from provenance.digest import sha256_of
from workflow_copy import Copy

pytestmark = pytest.mark.slow

PAGE = ["everything", "make_report"]  # of all tables and figures
AGAINST_PAPER = ["compare_with_paper", "evaluate_claims"]
TABLE, FIGURES = "make_tables_2_to_5", ["plot_figure2", "plot_figure3"]
OF_SCORES = [TABLE, TABLE, TABLE, *FIGURES]
AFTER_TESTS = Counter([*OF_SCORES, "make_table1", TABLE, *AGAINST_PAPER, *PAGE])
EVERY_JOB = Counter(
    {
        **dict.fromkeys(["train_base_model", "collect_features", "align_feed_forwards"], 3),
        **dict.fromkeys(["collect_outputs", "compute_cka", "list_windows"], 3),
        **dict.fromkeys(["score_layer_drops", "list_layer_drops", "quantize"], 3),
        **{"select_windows": 9, "select_layer_drops": 6},
        **dict.fromkeys(["measure_cost", "make_tables_6_to_8"], 3),
        **{"score_windows": 4, "compress": 24, "drop_layers": 6, "tokenize_text": 1},
        **{"fine_tune": 31, "score_test": 37, "score_untuned": 9},
        **{"plot_figure1": 1, "plot_figure4": 1, "plot_figures_5_6": 2},
        **AFTER_TESTS,
    }
)

SAME, MISSED, NEEDLESS = "reruns the same", "misses it", "reruns needlessly"


@dataclass(frozen=True)
class Change:
    """A change of both workflows.

    apply, plainly: make the change in our workflow and in the plain one. reruns: our jobs that run
    again. needed: rules of the plain workflow whose output can change; alone: what Snakemake does.
    """

    name: str
    apply: Callable[[Copy], None]
    reruns: Counter
    plainly: Callable[[Plain], None]
    needed: frozenset[str]
    alone: str


ALL_PLAIN = frozenset({"tune", "tabulate", "plot"})


def edits(file: str, old: str, new: str) -> Callable[[Copy | Plain], None]:
    return lambda workflow: workflow.edit(file, old, new)


def configures(set_value: Callable[[dict], None]) -> Callable[[Copy], None]:
    def apply(workflow: Copy) -> None:
        set_value(workflow.config)
        workflow.write_config()

    return apply


def swap(config: dict) -> None:
    test = config["tasks"]["gpt2"]["test"]
    test["batch_size"], test["max_tokens"] = test["max_tokens"], test["batch_size"]


def reorder(config: dict) -> None:
    """Reverse the keys of each task, not the tasks, whose order is that of a table's rows."""

    def reversed_in(value):
        if not isinstance(value, dict):
            return value
        return {name: reversed_in(each) for name, each in reversed(value.items())}

    config["tasks"] = {name: reversed_in(task) for name, task in config["tasks"].items()}


def revise_test_data(workflow: Copy) -> None:
    """Another revision of ViT's test split."""
    shown = workflow.root / "resources/demo/data/images/validation.parquet"
    revised = workflow.root / "data/test-2.parquet"
    revised.parent.mkdir(exist_ok=True)
    shutil.copy(shown, revised)
    split = {"path": "data/test-2.parquet", "sha256": sha256_of(revised)}
    workflow.config["tasks"]["vit"]["dataset"]["test"] = split
    workflow.write_config()


def revise_under_the_old_time(workflow: Plain) -> None:
    """Replace data and keep the old time, as downloads and mirrors do."""
    data = workflow.root / "data.csv"
    time = data.stat()
    data.write_bytes(data.read_bytes().replace(b"1", b"2"))
    os.utime(data, ns=(time.st_atime_ns, time.st_mtime_ns))


def comment_scripts(workflow: Copy | Plain) -> None:
    for file in _code(workflow):
        file.write_text(f"# a comment\n{file.read_text()}\n\n# another\n")


def format_code(workflow: Copy | Plain) -> None:
    options = ["--isolated", "--line-length", "60", "--no-cache", "--quiet"]
    command = [sys.executable, "-m", "ruff", "format", *options, *_code(workflow)]
    subprocess.run(command, check=True)


def touch(workflow: Copy | Plain) -> None:
    for file in _code(workflow):
        os.utime(file)
    if isinstance(workflow, Copy):
        for file in workflow.results.rglob("selection.*json"):
            os.utime(file)


def check_out_back_and_forth(workflow: Copy | Plain) -> None:
    """Check out a branch with other code, and the first one again."""
    git = ["git", "-C", workflow.root, "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "checkout", "-q", "-B", "other"], check=True)
    for file in _code(workflow):
        file.write_text(file.read_text() + "\nOTHER = 1\n")
    subprocess.run([*git, "commit", "-qam", "Other code"], check=True)
    subprocess.run([*git, "checkout", "-q", "-"], check=True)


def _code(workflow: Copy | Plain) -> list[Path]:
    folder = "workflow" if isinstance(workflow, Copy) else "."
    return sorted((workflow.root / folder).rglob("*.py"))


CHANGES = [
    Change(
        "a figure's colour",
        edits("workflow/experiment/figures/figure1.py", "#555555", "#666666"),
        Counter(["plot_figure1", *PAGE]),
        edits("plot_library.py", "one", "two"),
        frozenset({"plot"}),
        MISSED,
    ),
    Change(
        "a table's rounding",
        edits("workflow/experiment/tables/table1.py", "×{:.2f}", "×{:.1f}"),
        Counter(["make_table1", *PAGE]),
        edits("tabulate_library.py", "one", "two"),
        frozenset({"tabulate"}),
        MISSED,
    ),
    Change(
        "a library module on the path of one rule",
        edits(
            "workflow/ffmerge/method/cka.py", "\n    return matrix\n", "\n    return 1 * matrix\n"
        ),
        Counter(["plot_figures_5_6", "plot_figures_5_6", "evaluate_claims", *PAGE])
        + Counter({"compute_cka": 3}),
        edits("tune_library.py", "one", "two"),
        ALL_PLAIN,
        MISSED,
    ),
    Change(
        "a library module that several rules reach",
        edits(
            "workflow/ffmerge/evaluation/intervals.py",
            "100 * (1 - confidence) / 2",
            "50 * (1 - confidence)",
        ),
        Counter([*OF_SCORES, TABLE, *AGAINST_PAPER, *PAGE]),
        edits("tune_library.py", "one", "two"),
        ALL_PLAIN,
        MISSED,
    ),
    Change(
        "a module that only int8 models reach",
        edits("workflow/ffmerge/method/quantization.py", "THRESHOLD = 6.0", "THRESHOLD = 5.0"),
        Counter(["make_table1", TABLE, *AGAINST_PAPER, *PAGE])
        + Counter({"quantize": 3, "measure_cost": 3, "score_test": 3}),
        edits("tune_library.py", "one", "two"),
        ALL_PLAIN,
        MISSED,
    ),
    Change("a comment", comment_scripts, Counter(), comment_scripts, frozenset(), NEEDLESS),
    Change("formatting", format_code, Counter(), format_code, frozenset(), NEEDLESS),
    Change("a touched file", touch, Counter(), touch, frozenset(), NEEDLESS),
    Change(
        "a checkout back and forth",
        check_out_back_and_forth,
        Counter(),
        check_out_back_and_forth,
        frozenset(),
        NEEDLESS,
    ),
    Change(
        "the order of a configuration's keys",
        configures(reorder),
        Counter(),
        edits("config.yaml", "rate: 5, steps: 8", "steps: 8, rate: 5"),
        frozenset(),
        SAME,
    ),
    Change(
        "a seed",
        configures(lambda config: config.update(seed=2)),
        EVERY_JOB,
        edits("config.yaml", "seed: 1", "seed: 2"),
        ALL_PLAIN,
        SAME,
    ),
    Change(
        "a hyperparameter of a task",
        configures(lambda config: config["tasks"]["vit"]["fine_tuning"].update(learning_rate=2e-3)),
        AFTER_TESTS
        + Counter({"fine_tune": 9, "score_test": 10, "quantize": 1, "measure_cost": 1})
        + Counter(["make_tables_6_to_8"]),
        edits("config.yaml", "rate: 5", "rate: 6"),
        ALL_PLAIN,
        SAME,
    ),
    Change(
        "two parameters that swap their values",
        configures(swap),
        AFTER_TESTS + Counter({"score_test": 15, "score_untuned": 3}),
        edits("config.yaml", "rate: 5, steps: 8", "rate: 8, steps: 5"),
        ALL_PLAIN,
        MISSED,
    ),
    Change(
        "a dataset's revision",
        revise_test_data,
        AFTER_TESTS + Counter({"score_test": 11, "score_untuned": 3}),
        revise_under_the_old_time,
        ALL_PLAIN,
        MISSED,
    ),
]
each_change = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
IN_SHORT = {"a figure's colour", "a library module on the path of one rule", "a comment", "a seed"}
in_short_first = pytest.mark.parametrize(
    "change",
    [pytest.param(c, marks=[pytest.mark.long] * (c.name not in IN_SHORT)) for c in CHANGES],
    ids=lambda change: change.name,
)


@pytest.fixture
def changed(finished):
    """The finished run, which a test may edit and which is restored afterwards."""
    kept = finished.root.with_name("kept")
    shutil.copytree(finished.root / "workflow", kept)
    config = copy.deepcopy(finished.config)
    yield finished
    shutil.rmtree(finished.root / "workflow")
    shutil.move(kept, finished.root / "workflow")
    finished.config = config
    finished.write_config()


@in_short_first
def test_a_change_reruns_exactly_what_it_can_change(changed, change):
    change.apply(changed)
    assert Counter(changed.jobs_to_run()) == change.reruns


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Plain:
    """A finished run of the plain workflow."""
    return Plain.finished(tmp_path_factory.mktemp("plain"))


@pytest.mark.long
@each_change
def test_what_snakemake_alone_would_have_done(plain, tmp_path, change):
    workflow = plain.copy(tmp_path / "plain")
    assert workflow.rules_to_run() == set()
    change.plainly(workflow)
    rerun = workflow.rules_to_run()
    did = {rerun == change.needed: SAME, rerun < change.needed: MISSED}.get(True, NEEDLESS)
    assert did == change.alone


needs_apptainer = pytest.mark.skipif(
    shutil.which("apptainer") is None, reason="needs Apptainer, as Snakemake's dry run does"
)


@needs_apptainer
@pytest.mark.long
def test_a_rebuilt_image_reruns_every_job(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "run", symlinks=True)
    workflow = copy.copy(finished)
    workflow.root = tmp_path / "run"
    lock = workflow.root / "containers/lock.yaml"
    (image,) = [line.split()[-1] for line in lock.read_text().splitlines() if "ffmerge-cpu" in line]
    (workflow.root / "containers" / image).touch()
    workflow.run("--touch", *IN_AN_IMAGE)  # as if all jobs had run in it
    assert workflow.jobs_to_run(*IN_AN_IMAGE) == []
    workflow.edit("containers/lock.yaml", image, "ffmerge-cpu-000000000000.sif")
    assert Counter(workflow.jobs_to_run(*IN_AN_IMAGE)) == EVERY_JOB


@needs_apptainer
@pytest.mark.long
def test_snakemake_alone_misses_an_image_that_was_rebuilt(plain, tmp_path):
    workflow = plain.copy(tmp_path / "plain")
    workflow.snakemake("--touch", *IN_AN_IMAGE)
    assert workflow.rules_to_run(*IN_AN_IMAGE) == set()
    (workflow.root / "image.sif").write_text("rebuilt")
    assert workflow.rules_to_run(*IN_AN_IMAGE) == set()
