"""Write the configuration's documentation: `python -m experiment.config.reference`.

Writes `config/README.md` for people and `config/schema.json` for editors. Both say what the classes
of experiment.config say; only the head below is written by hand.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from experiment.config.faults import Schema, in_words, resolved
from experiment.config.run import Config
from experiment.config.tasks import KINDS, TaskBase

DIRECTORY = Path(__file__).parents[3] / "config"

HEAD = """\
# Configuration

<!-- Made by `python -m experiment.config.reference` from workflow/experiment/config/; edit there. -->

One YAML file says what is computed: which models, on which data, merged how, tuned how, scored how.

| file | what it computes | needs | results in |
|---|---|---|---|
| [demo.yaml](demo.yaml) | the paper's experiment in small, with models and data of this repository | CPU | `results/demo/` |
| [paper.yaml](paper.yaml) | the paper's experiment; each value says whose it is | GPUs, and a network once | `results/` |
| [rehearsal.yaml](rehearsal.yaml) | every stage at the paper's size, with random weights: what it takes (`make rehearsal`) | CPU, 16 GB of memory | `results/rehearsal/` |
| [pico.yaml](pico.yaml) | the same jobs with tiny models, for the tests; its scores mean nothing | CPU | `results/pico/` |
| [examples/minilm.yaml](examples/minilm.yaml) | the same for a model of one's own, here a sentence encoder out of a package | CPU, and a network once | `results/minilm/` |

Without a word it is the demo:

    snakemake                                    # demo.yaml
    snakemake --configfile config/paper.yaml

**A configuration stands alone.** The file that is named is read, and no other: a key that it leaves
out has the default of the tables below, not the demo's value. Name one file, for Snakemake merges
two. At the end of the command line, `--config` sets keys of the top level: `--config device=cpu`.

**It is checked before any job starts**, together with the files that it names. Each fault is one
line with the key, what is allowed, and the value:

    error: configuration: tasks.gpt2.merge.k.all: has to be from 2 to base_model.n_layers, 12 (is 13)

Many editors complete and check keys as you type if a file begins with

    # yaml-language-server: $schema=schema.json

## A configuration of your own

Copy [examples/minilm.yaml](examples/minilm.yaml), where each line to change is marked, or the file
whose task is the nearest. In the order in which people usually need them, change

1. `results`: no two configurations share a directory;
2. `device`, and what fits your machine: `windows.jobs`, and `batch_size` of `features`, `validation`
   and `test`, which decide speed and memory (`fine_tuning.batch_size` is part of the experiment);
3. `dataset`: where your data are, or where your copy of ImageNet is;
4. `base_model`: a directory, a commit on the hub or a package of a registry, of an architecture in
   [architectures](../workflow/ffmerge/models/architectures), and `merge.k` for its number of layers:
   merging k sublayers into one removes k - 1, so that a third of 12 is removed by k = 5;
5. `tasks`: leave out the models that you do not want, or add one. Its `kind` says what it does. An
   encoder without a head, whose use is embeddings, has `sentence_retrieval`, which needs no labels.

All tables and figures are made of the models that there are. What the paper prints stands beside the
numbers of tasks that are named as its own: `gpt2`, `vit` and `marian`. Name another model otherwise.

## What has been run, and what has not

| | run | not run |
|---|---|---|
| demo.yaml, pico.yaml, examples/minilm.yaml | every job, on a CPU | on a GPU |
| paper.yaml | its DAG is resolved; the arithmetic of its sizes is tested | every job: no hub and no GPU was within reach |
| `repository`, `url`, `devkit` | against files of the same layout from a local server: splits by pattern, gated and missing files, broken downloads, the tar files of ILSVRC 2012, the archive of aligned lines, weights as safetensors and as pickle | the hubs themselves |
| rehearsal.yaml: the three models at full size | with random weights, on a CPU: every stage of `make rehearsal` ([performance.md](../docs/performance.md#at-the-papers-size)); layers dropped, in a test | on a GPU; with their own weights; all windows, all steps of tuning |
| `device: cuda`, `precision: fp16` | | anything |

## On a SLURM cluster

The configuration says nothing of machines. Where jobs run is in the profile
[workflow/profiles/slurm/config.yaml](../workflow/profiles/slurm/config.yaml), of which `slurm` at
the top is a link; with it the configuration is paper.yaml, unless another is named:

    snakemake --profile slurm results/tables/table5.csv
    snakemake --profile slurm everything --configfile config/demo.yaml

How many GPUs and cores `fine_tune` asks for follows from `fine_tuning.devices`. The lines to adapt
end in `HERE`:

| line | what to write |
|---|---|
| `slurm_account` | the account that pays; without the line, your default one |
| `slurm_partition` of `default-resources` | where jobs without a GPU run; without it, the cluster's default |
| `slurm_partition` and `gpu_model` of `&node` | where jobs with a GPU run, and of which kind |
| `mem_mb` of `fine_tune` | for `fine_tuning.devices` above 1, as many times as much: each is a process |
| `runtime` of `fine_tune` | the longest that the partition allows; what takes longer is resumed |
| `apptainer-args` | a `--bind` for data, results or temporary files that are outside this folder |

After Snakemake was killed while its jobs ran on, this cancels them and goes on:

    python slurm/resume.py results/tables/table5.csv

## Reading the tables

A key is written with dots: `merge.k.third` is `third` in `k` in `merge`. A key that is *needed* has
no default; one that is *unset* may be left out. Sections and tables are the paper's.
"""  # noqa: E501
TASK = """
## One model with its data

From here on, `tasks.<name>.` goes before each key. The keys of each `kind` of task follow below.
"""


def schema() -> str:
    """`schema.json`: JSON Schema of a whole configuration."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def reference() -> str:
    """`README.md`: the head, then a table for each group of keys."""
    whole = Config.model_json_schema()
    task = TaskBase.model_json_schema()
    sections = [HEAD, "\n## The whole run\n", *_tables(whole), TASK, *_tables(task)]
    for kind, model in KINDS.items():
        group = model.model_json_schema()
        own = {k: v for k, v in group["properties"].items() if k not in task["properties"]}
        sections += [f"\n## `kind: {kind}`\n\n{group['description']}\n"]
        sections += _tables(group | {"properties": own}, f" of {kind}")
    return "".join(sections)


def _tables(whole: Schema, where: str = "") -> Iterator[str]:
    """The table of a group of keys, then those of the groups in it, each group once.

    where: what tells the headings from those of the same keys elsewhere.
    """
    found = list(_groups("", whole, whole))
    places: dict[str, list[str]] = {}
    for place, group in found:
        places.setdefault(group["title"], []).append(place)
    headings = {}
    for title, keys in places.items():
        keys.sort(key=lambda key: key.count("."))
        headings[title] = f"`{keys[0]}`{where}"
    for place, group in found:
        first, *others = places[group["title"]]
        if place != first:
            continue
        if place:
            same = f" The same keys: {', '.join(f'`{key}`' for key in others)}." if others else ""
            text = " ".join(group["description"].split())
            yield f"\n### {headings[group['title']]}\n\n{text}{same}\n"
        yield "\n" + "".join(_rows(place, group, whole, headings))


def _groups(key: str, group: Schema, whole: Schema) -> Iterator[tuple[str, Schema]]:
    """All groups of keys in a group, itself first, with the key each is found at."""
    yield key, group
    for name, allowed in group["properties"].items():
        inner = resolved(allowed, whole)
        if "properties" in inner:
            yield from _groups(_below(key, name), inner, whole)


def _rows(key: str, group: Schema, whole: Schema, headings: dict[str, str]) -> Iterator[str]:
    yield "| key | value | default | meaning |\n|---|---|---|---|\n"
    for name, allowed in group["properties"].items():
        inner = resolved(allowed, whole)
        if "properties" in inner:
            value = f"[keys](#{_anchor(headings[inner['title']])})"
        elif "patternProperties" in inner:
            value = f"at least one name, each with [keys](#{_anchor(TASK.splitlines()[1])})"
        else:
            words = in_words(inner, whole, mark="`").partition(", pattern")[0]
            value = re.sub(r"^an? ", "", words)
        cells = (f"`{_below(key, name)}`", value, _default(allowed, inner), allowed["description"])
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _anchor(heading: str) -> str:
    """The anchor that a Markdown viewer gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def _default(allowed: Schema, inner: Schema) -> str:
    if "default" not in allowed:
        return "needed"
    match allowed["default"]:
        case None:
            return "unset"
        case dict():
            return "see there"
        case list(names):
            return f"`[{', '.join(names)}]`"
        case default:
            return f"`{json.dumps(default)}`".replace('"', "")


def write(directory: Path) -> None:
    """Write both files."""
    (directory / "README.md").write_text(reference())
    (directory / "schema.json").write_text(schema())


if __name__ == "__main__":
    write(DIRECTORY)
