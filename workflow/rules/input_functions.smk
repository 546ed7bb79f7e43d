# Functions that compute the rules' inputs and parameters from wildcards and configuration.


def own_file(wildcards):
    """The data of one's own that a job converts to a split."""
    task = TASKS[wildcards.task]
    if wildcards.split == RECIPE:
        return task.base_model.from_scratch.train
    return getattr(task.dataset, wildcards.split)


def is_plain(task, file):
    """Whether a task's jobs can read a local file as it is; else one converts it."""
    return own_data.is_plain(file.path, own_data.columns_of(TASKS[task]))


def tasks_where(chosen):
    """Wildcard constraint: the tasks that a condition chooses."""
    return "|".join(name for name, task in TASKS.items() if chosen(task)) or "(?!)"


def dataset(split):
    """Input function: the Parquet of a split, embedded, fetched, or converted.

    Only files that no job makes are `ancient`: after a job remakes an ancient file, Snakemake
    does not check the jobs that read it for changes.
    """

    def path_of(wildcards):
        source = TASKS[wildcards.task].dataset
        same = split == "test" and source.test == source.validation
        path = f"{RESULTS}/{wildcards.task}/dataset/{'validation' if same else split}"
        file = getattr(source, split)
        made = not (source.is_local and is_plain(wildcards.task, file))
        return path if made else ancient(file.path)

    return path_of


def base_model(wildcards):
    """Input function: the directory of the base model, embedded, fetched or trained from scratch."""
    return base_model_of(wildcards.task)


def base_model_of(task):
    source = TASKS[task].base_model
    if source.path:
        return ancient(source.path)
    made = "base_model" if source.repository or source.package else "trained_base_model"
    return f"{RESULTS}/{task}/{made}"


def pinned(task, *splits):
    """Digests of the embedded inputs, so that changed content counts and a touched file does not."""
    settings = TASKS[task]
    digests = {split: getattr(settings.dataset, split).sha256 for split in splits}
    return {"base_model": settings.base_model.sha256, **digests}


def tuning_data(wildcards):
    """Input function: the data to fine-tune on, tokenized if it is text."""
    if TASKS[wildcards.task].kind == "language_modeling":
        return "{results}/{task}/dataset/train_tokens.safetensors"
    return dataset("train")(wildcards)


def package(name):
    return f"{{results}}/packages/{SOURCES['packages'][name]['file']}"


def shipped_digests(kind):
    """Digest of every split of a kind of data: "text", "images" or "translation"."""
    digests = {Path(file["path"]): file["sha256"] for file in SOURCES["data"]}
    return {path.stem: sha256 for path, sha256 in digests.items() if path.parent.name == kind}


def in_one_order(recipe):
    """The recipe with its architecture's keys sorted, so that their order does not matter."""
    return {**recipe, "architecture": dict(sorted(recipe["architecture"].items()))}


def training_data(wildcards):
    """Input function: the data to train a base model on, by default the train split."""
    file = TASKS[wildcards.task].base_model.from_scratch.train
    if file is None:
        return dataset("train")(wildcards)
    made = Path(file.path).exists() and not is_plain(wildcards.task, file)
    return f"{{results}}/{{task}}/dataset/{RECIPE}" if made else file.path


def own_train_split(task):
    """The train split, if a base model is trained on it: a recipe pins data of its own itself."""
    return ["train"] if TASKS[task].base_model.from_scratch.train is None else []


def windows(task, dropped=False):
    """The windows of sublayers to merge, or of layers to drop, by the part in which a job scores them."""
    if not dropped:
        return variants.in_parts(variants.candidates(TASKS[task]), TASKS[task].windows.jobs)
    jobs = TASKS[task].layer_drop.jobs if TASKS[task].layer_drop else 1
    return variants.in_parts(variants.drop_candidates(TASKS[task]), jobs)


def window_scores(wildcards, dropped=False):
    """Input function: the scores of a task's windows, or of those that decide about the wildcard k."""
    method = "drop" if dropped else variants.selecting_method(TASKS[wildcards.task])
    return [
        f"{{results}}/{{task}}/{'layer_drops' if dropped else 'windows'}/{part}.csv"
        for part, chosen in windows(wildcards.task, dropped).items()
        if "k" not in wildcards.keys()
        or any((each.method, each.k) == (method, int(wildcards.k)) for each in chosen)
    ]


def selection_params(wildcards, dropped=False):
    """The parameters of a selection of windows: of those of the wildcard k, or of all.

    dropped: whether the windows are of layers to drop.
    """
    task, params = TASKS[wildcards.task], {"seed": CONFIG.seed}
    if "k" in wildcards.keys():  # the method whose scores select
        params["method"] = "drop" if dropped else variants.selecting_method(task)
        params["k"] = int(wildcards.k)
    if task.windows.only is not None and not dropped:
        sizes = [params["k"]] if "k" in params else task.merge.k.sizes()
        params["only"] = {str(k): variants.scored_starts(task, k) for k in sizes}
    return params | {
        "metric": task.kind,
        "n_layers": task.base_model.n_layers,
        "starts": "full" if dropped else task.windows.starts,
        "n_random": 0 if dropped else variants.RANDOM_WINDOWS,
    }


def variant_params(wildcards):
    chosen = vars(variants.Variant.parse(wildcards.variant))
    del chosen["seed"]  # of tuning
    return {**chosen, "inputs": pinned(wildcards.task)}


def of_all_pairs(name):
    """Input function: a file of the pairs that windows need, and that of all others, if any are left."""

    def files_of(wildcards):
        others = [f"other_{name}"] if variants.other_pairs(TASKS[wildcards.task]) else []
        return [f"{{results}}/{{task}}/{file}" for file in (name, *others)]

    return files_of


def permutations_for_variant(wildcards):
    """Input function: the files with the permutations of a variant's layers."""
    variant = variants.Variant.parse(wildcards.variant)
    files = of_all_pairs("permutations.safetensors")(wildcards)
    return files if variants.needs_other_pairs(TASKS[wildcards.task], variant) else files[:1]


def selection_for_variant(wildcards):
    """Input function: the file that says which sublayers a variant merges."""
    variant = variants.Variant.parse(wildcards.variant)
    chosen = "groups" if variant.role in variants.PROPOSED else f"selection/k{variant.k}"
    return f"{{results}}/{{task}}/{chosen}.json"


def selection_for_dropping(wildcards):
    """Input function: the file that says which layers a variant drops."""
    k = variants.Variant.parse(wildcards.variant).k
    return f"{{results}}/{{task}}/layer_drop_selection/k{k}.json"


def untuned_model(wildcards):
    """Input function: the model to fine-tune, compressed or the base model itself."""
    if wildcards.model == variants.TUNED_BASE:
        return base_model(wildcards)
    variant = variants.replace(variants.Variant.parse(wildcards.model), seed=None)
    return f"{{results}}/{{task}}/models/{variant}/compressed"


def seed_of_tuning(wildcards):
    """The seed with which a model is tuned: its own, or that of the configuration."""
    if wildcards.model == variants.TUNED_BASE:
        return CONFIG.seed
    seed = variants.Variant.parse(wildcards.model).seed
    return CONFIG.seed if seed is None else seed


def finished_model(wildcards):
    """Input function: the base model, a fine-tuned model, or its quantized form."""
    return finished(wildcards.task, wildcards.model)


def finished(task, model):
    if model == variants.BASE:
        return base_model_of(task)
    made = "quantized" if model.endswith(variants.INT8_SUFFIX) else "tuned"
    return f"{{results}}/{task}/models/{model}/{made}"


def measured(task):
    """The models whose cost is measured: the base model, and a compressed one of each method."""
    return [variants.BASE, *map(str, variants.table1_variants(TASKS[task]))]


def rehearsed(wildcards):
    """Input function: the records of every stage of our method at 1/3, of each task."""
    records = []
    for name, task in TASKS.items():
        model = str(variants.main_variant(task))
        int8 = f"{model}{variants.INT8_SUFFIX}"
        made = [] if task.base_model.path else [Path(base_model_of(name)).name]
        scored = [f"windows/{part}" for part in windows(name)]
        tokens = ["dataset/train_tokens"] * (task.kind == "language_modeling")
        stages = [*made, *tokens, "features", "outputs", "permutations", "cka", *scored]
        stages += ["selection", f"models/{model}/compressed", f"models/{model}/tuned"]
        stages += [f"models/{model}/test", f"models/{int8}/quantized", f"models/{int8}/test"]
        records += [f"{{results}}/{name}/{stage}.record.json" for stage in stages]
    return records


def task_files(name):
    """One file of each task."""
    return [f"{{results}}/{task}/{name}" for task in TASKS]


def shown_models(variants_of, with_base=False):
    """The models of each task that a table shows, the uncompressed one first if it is shown."""
    return {
        name: [variants.reported_base(task)] * with_base + list(map(str, variants_of(task)))
        for name, task in TASKS.items()
    }


def of_models(name, shown):
    """A file of each model that is shown."""
    return [
        f"{{results}}/{task}/models/{model}/{name}"
        for task, models in shown.items()
        for model in models
    ]


def tuned(shown, kind=None):
    """Those of the models shown that are fine-tuned, of all tasks or of one kind."""
    return {
        task: [m for m in models if m != variants.BASE and not m.endswith(variants.INT8_SUFFIX)]
        for task, models in shown.items()
        if kind in (None, TASKS[task].kind)
    }


def tuned_of_table(wildcards):
    """The fine-tuned models of the kind of task that a table of hyperparameters is of."""
    return tuned(EVERYTHING, HYPERPARAMETER_TABLES[int(wildcards.n)])


def claimed_models(task):
    """The names of the models that the paper's claims are about, by their role in a claim."""
    settings = TASKS[task]
    main = variants.main_variant(settings)

    def by_ratio(method):
        ratios = settings.merge.k.ratios()
        chosen = {ratio: variants.replace(main, method=method, k=k) for ratio, k in ratios.items()}
        return {ratio: str(variant) for ratio, variant in chosen.items()}

    dropped = [v for v in variants.figure3_variants(settings) if v.method == "drop"]
    return {
        **{method: by_ratio(method) for method in settings.merge.methods},
        "base": variants.reported_base(settings),
        "merged": {r: model for r, model in by_ratio(main.method).items() if r != "all"},
        "dropped": list(map(str, dropped)),
        "windows": TABLE2[task],
        "anchors": TABLE3[task],
        "int8": TABLE4[task][-1],
    }


def comparison_params():
    """The parameters of the comparison with the paper."""
    params = printed_params(EVERYTHING)
    for name, task in TASKS.items():
        params["tasks"][name] |= {"repository": task.base_model.repository, "inputs": pinned(name)}
    return params


def reported_digests():
    """Digests of the files with the paper's numbers, so that a touched file does not count."""
    return {Path(file).stem: sha256_of(Path(file)) for file in REPORTED}


def everything_shown():
    """All models of all tables and figures, each once."""
    slices = [TABLE5, TABLE2, TABLE3, TABLE4, FIGURE3]
    return {
        task: list(dict.fromkeys(model for shown in slices for model in shown[task]))
        for task in TASKS
    }


def tests(name, shown):
    """A test file of each model that is shown, and of the base models for their size."""
    return of_models(
        name, {task: dict.fromkeys([variants.BASE, *models]) for task, models in shown.items()}
    )


def tested(shown):
    """Inputs: the tests of the models that are shown."""
    return {"scores": tests("test.json", shown), "per_example": tests("test.csv", shown)}


def table(name, tidy=False):
    """Outputs: a table, and a tidy file of unrounded numbers."""
    path = f"{{results}}/tables/{name}"
    return {
        "table": f"{path}.csv",
        "text": f"{path}.txt",
        **({"tidy": f"{path}_tidy.csv"} if tidy else {}),
        "ledger": f"{path}.ledger.json",
        "record": f"{path}.record.json",
    }


def figure(name):
    """Outputs: a figure."""
    suffixes = {"pdf": "pdf", "png": "png", "ledger": "ledger.json", "record": "record.json"}
    return {key: f"{{results}}/figures/{name}.{end}" for key, end in suffixes.items()}


def untuned_tests(suffix):
    """A test file of each model of the table of sizes before tuning."""
    return [
        f"{{results}}/{task}/models/{model}/{name}.{suffix}"
        for task, (_, *models) in SIZES.items()
        for model, name in [(variants.BASE, "test"), *((m, "untuned") for m in models)]
    ]


def untuned_windows(name):
    """A test file of each window of Table 2 before tuning, where it has several."""
    return of_models(name, {task: models for task, models in TABLE2.items() if len(models) > 1})


def quantized_storage():
    """The sizes on disk of each task's quantized model."""
    return of_models("storage.json", {task: models[-1:] for task, models in TABLE4.items()})


def table_params(shown):
    """The parameters of a table of scores."""
    return {
        "tasks": {
            name: {"label": task.label, "models": shown[name], "ratios": task.merge.k.ratios()}
            for name, task in TASKS.items()
        },
        "intervals": CONFIG.intervals.model_dump(include={"resamples", "confidence"}),
        "seed": CONFIG.seed,
    }


def printed_params(shown):
    """The parameters of a table of scores with the paper's numbers."""
    return {**table_params(shown), "reported": reported_digests()}


def figure_tasks():
    return {
        name: {"kind": task.kind, "label": task.label, "k": task.merge.k.third}
        for name, task in TASKS.items()
    }


REPORTED_FILES = ("hyperparameters", "models", "scores", "text", "tolerances")
TABLE1 = shown_models(variants.table1_variants, with_base=True)
TABLE2 = shown_models(variants.table2_variants)
TABLE3 = shown_models(variants.table3_variants)
TABLE4 = shown_models(variants.table4_variants)
SEEDS = shown_models(
    lambda task: variants.seed_variants(task, CONFIG.further_seeds, CONFIG.further_seeds_at)
)
SIZES = shown_models(variants.size_variants, with_base=True)
STRATEGIES = shown_models(variants.strategy_variants, with_base=True)
TABLE5 = shown_models(variants.table5_variants, with_base=True)
FIGURE3 = shown_models(variants.figure3_variants, with_base=True)
SCORE_TABLES = {2: TABLE2, 3: TABLE3, 4: TABLE4, 5: TABLE5}
EVERYTHING = everything_shown()
REPORTED = [f"config/paper_reported/{name}.csv" for name in REPORTED_FILES]
HYPERPARAMETER_TABLES = {
    6: "language_modeling",
    7: "image_classification",
    8: "translation",
    9: "sentence_retrieval",  # not in the paper
}


def shown_tables():
    """The names of the tables to make: those of a kind of task need one, that of seeds several.

    The table of sizes is among them if a task has the smallest ratio, which only that table needs.
    """
    kinds = {task.kind for task in TASKS.values()}
    numbers = [1, 2, 3, 4, 5, *(n for n, kind in HYPERPARAMETER_TABLES.items() if kind in kinds)]
    seeds = ["seeds"] * bool(CONFIG.further_seeds)
    sizes = ["sizes"] * any(task.merge.k.sixth for task in TASKS.values())
    return [f"table{n}" for n in numbers] + seeds + sizes
