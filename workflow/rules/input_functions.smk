# What the rules' inputs and parameters are, as functions of wildcards and configuration.


def dataset(split):
    """Input function: the Parquet of a split, embedded, fetched, or made from an archive.

    Only what no job makes is `ancient`: where a job makes an ancient file anew, Snakemake does not
    look for changes in those that read it.
    """

    def found(wildcards):
        source = TASKS[wildcards.task].dataset
        same = split == "test" and source.test == source.validation
        path = f"{RESULTS}/{wildcards.task}/dataset/{'validation' if same else split}"
        fetched = source.repository or source.url or source.devkit
        return path if fetched else ancient(getattr(source, split).path)

    return found


def base_model(wildcards):
    """Input function: the directory of the base model, embedded, fetched or trained from scratch."""
    source = TASKS[wildcards.task].base_model
    if source.path:
        return ancient(source.path)
    made = "base_model" if source.repository else "trained_base_model"
    return f"{RESULTS}/{wildcards.task}/{made}"


def pinned(task, *splits):
    """Digests of the embedded inputs: a change of content is a change, a touched file is none."""
    settings = TASKS[task]
    digests = {split: getattr(settings.dataset, split).sha256 for split in splits}
    return {"base_model": settings.base_model.sha256, **digests}


def tasks_with(key):
    """Wildcard constraint: the tasks whose data set has this key."""
    return "|".join(name for name, task in TASKS.items() if getattr(task.dataset, key)) or "(?!)"


def package(name):
    return f"{{results}}/rebuild/packages/{SOURCES['packages'][name]['file']}"


def shipped_digests(kind):
    """Digest of every split of a kind of data: "text", "images" or "translation"."""
    digests = {Path(file["path"]): file["sha256"] for file in SOURCES["data"]}
    return {path.stem: sha256 for path, sha256 in digests.items() if path.parent.name == kind}


def training_data(wildcards):
    """Input function: what a base model is trained on, where that is more than the train split."""
    recipe = TASKS[wildcards.task].base_model.from_scratch
    return recipe.train.path if recipe.train else dataset("train")(wildcards)


def window_parts(wildcards):
    """Input function: the files over which a task's candidates are spread."""
    n = TASKS[wildcards.task].windows.jobs
    return [f"{{results}}/{{task}}/windows/{i}-of-{n}.csv" for i in range(1, n + 1)]


def candidates_of(wildcards):
    """The candidates of one part: every n-th one."""
    i, n = map(int, wildcards.part.split("-of-"))
    return variants.candidates(TASKS[wildcards.task])[i - 1 :: n]


def variant_params(wildcards):
    chosen = variants.Variant.parse(wildcards.variant)
    return {**vars(chosen), "inputs": pinned(wildcards.task)}


def untuned_model(wildcards):
    """Input function: what is fine-tuned, a compressed model or the base model itself."""
    if wildcards.model == variants.TUNED_BASE:
        return base_model(wildcards)
    return f"{{results}}/{{task}}/models/{wildcards.model}/compressed"


def finished_model(wildcards):
    """Input function: the base model as it is, or what fine-tuning made."""
    if wildcards.model == variants.BASE:
        return base_model(wildcards)
    return f"{{results}}/{{task}}/models/{wildcards.model}/tuned"


def table5_models(task):
    """The models in a task's rows of Table 5: the uncompressed one first."""
    settings = TASKS[task]
    return [variants.reported_base(settings), *map(str, variants.table5_variants(settings))]


def table5_files(name):
    return [
        f"{{results}}/{task}/models/{model}/{name}"
        for task in TASKS
        for model in dict.fromkeys([variants.BASE, *table5_models(task)])
    ]


def figure_tasks():
    return {
        name: {"kind": task.kind, "label": task.label, "k": task.merge.k.third}
        for name, task in TASKS.items()
    }
