# The paper's tables, most beside a tidy file of unrounded numbers with their intervals.


rule make_table1:
    """Table 1: the costs and savings of each kind of compression, with measurements."""
    input:
        costs=task_files("cost.csv"),
        windows=task_files("windows.csv"),
        layer_drops=task_files("layer_drops.csv"),
        curves=of_models("learning_curve.csv", tuned(TABLE1)),
        tests=of_models("test.json", TABLE1),
    output:
        **table("table1"),
    log:
        "{results}/logs/make_table1.log",
    localrule: True
    params:
        **job(
            "make_table1",
            lambda w: {
                "tasks": {
                    name: {
                        "label": task.label,
                        "models": list(map(str, variants.table1_variants(task))),
                        "select_by": task.fine_tuning.select_by,
                    }
                    for name, task in TASKS.items()
                }
            },
        ),
    shell:
        command("make_table1")


rule make_tables_2_to_5:
    """Table 2, 3, 4 or 5: test scores by window, by anchor, with LLM.int8(), or of all ratios."""
    input:
        reported=ancient(REPORTED),
        scores=lambda w: tests("test.json", SCORE_TABLES[int(w.n)]),
        per_example=lambda w: tests("test.csv", SCORE_TABLES[int(w.n)]),
        storage=lambda w: quantized_storage() if w.n == "4" else [],
    output:
        **table("table{n}", tidy=True),
    log:
        "{results}/logs/make_table{n}.log",
    wildcard_constraints:
        n="|".join(map(str, SCORE_TABLES)),
    localrule: True
    params:
        **job("make_tables_2_to_5", lambda w: printed_params(SCORE_TABLES[int(w.n)])),
    shell:
        command("make_tables_2_to_5")


rule make_tables_6_to_8:
    """Tables 6 to 8: the hyperparameters of fine-tuning, from the records of its jobs."""
    input:
        reported=ancient(REPORTED),
        records=lambda w: of_models("tuned.record.json", tuned_of_table(w)),
        curves=lambda w: of_models("learning_curve.csv", tuned_of_table(w)),
    output:
        **table("table{n}"),
    log:
        "{results}/logs/make_table{n}.log",
    wildcard_constraints:
        n="|".join(map(str, HYPERPARAMETER_TABLES)),
    localrule: True
    params:
        **job("make_tables_6_to_8", lambda w: {"reported": reported_digests()}),
    shell:
        command("make_tables_6_to_8")


rule make_strategies:
    """Our own table: groups and scores of each strategy, at the same number of sublayers removed."""
    input:
        **tested(STRATEGIES),
        groups=task_files("groups.json"),
        untuned=task_files("groups.csv"),
    output:
        **table("strategies", tidy=True),
    log:
        "{results}/logs/make_strategies.log",
    localrule: True
    params:
        **job("make_strategies", lambda w: table_params(STRATEGIES)),
    shell:
        command("make_strategies")


rule make_seeds:
    """Our own table: our method and vanilla averaging, tuned with several seeds."""
    input:
        **tested(SEEDS),
    output:
        **table("seeds", tidy=True),
    log:
        "{results}/logs/make_seeds.log",
    localrule: True
    params:
        **job("make_seeds", lambda w: table_params(SEEDS)),
    shell:
        command("make_seeds")


rule make_sizes:
    """Our own table: merging beside dropping layers at each ratio, before and after tuning."""
    input:
        **tested(SIZES),
        untuned=untuned_tests("json"),
        untuned_per_example=untuned_tests("csv"),
    output:
        **table("sizes", tidy=True),
    log:
        "{results}/logs/make_sizes.log",
    localrule: True
    params:
        **job("make_sizes", lambda w: table_params(SIZES)),
    shell:
        command("make_sizes")
