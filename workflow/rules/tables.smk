# The paper's tables, each beside a tidy file with every number unrounded and its interval.


rule make_table1:
    """Table 1: what each kind of compression needs and saves, beside what was measured."""
    input:
        costs=task_files("cost.csv"),
        windows=task_files("windows.csv"),
        layer_drops=task_files("layer_drops.csv"),
        curves=[
            f"{{results}}/{task}/models/{model}/learning_curve.csv"
            for task, model in tuned_models(TABLE1)
        ],
        tests=[
            f"{{results}}/{task}/models/{model}/test.json"
            for task, models in TABLE1.items()
            for model in models
        ],
    output:
        table="{results}/tables/table1.csv",
        text="{results}/tables/table1.txt",
        ledger="{results}/tables/table1.ledger.json",
        record="{results}/tables/table1.record.json",
    log:
        "{results}/logs/make_table1.log",
    localrule: True
    params:
        job=job(
            "make_table1",
            lambda w: {
                "tasks": {
                    name: {
                        "label": task.label,
                        "models": list(map(str, variants.table1_variants(task))),
                    }
                    for name, task in TASKS.items()
                }
            },
        ),
        files=files,
    shell:
        command("make_table1")


rule make_table2:
    """Table 2: the best window of 1/3 beside random ones."""
    input:
        reported=ancient(REPORTED),
        scores=tests("test.json", TABLE2),
        per_example=tests("test.csv", TABLE2),
    output:
        table="{results}/tables/table2.csv",
        text="{results}/tables/table2.txt",
        tidy="{results}/tables/table2_tidy.csv",
        ledger="{results}/tables/table2.ledger.json",
        record="{results}/tables/table2.record.json",
    log:
        "{results}/logs/make_table2.log",
    localrule: True
    params:
        job=job("make_table2", lambda w: printed_params(TABLE2)),
        files=files,
    shell:
        command("make_table2")


rule make_table3:
    """Table 3: the same window merged towards each anchor."""
    input:
        reported=ancient(REPORTED),
        scores=tests("test.json", TABLE3),
        per_example=tests("test.csv", TABLE3),
    output:
        table="{results}/tables/table3.csv",
        text="{results}/tables/table3.txt",
        tidy="{results}/tables/table3_tidy.csv",
        ledger="{results}/tables/table3.ledger.json",
        record="{results}/tables/table3.record.json",
    log:
        "{results}/logs/make_table3.log",
    localrule: True
    params:
        job=job("make_table3", lambda w: printed_params(TABLE3)),
        files=files,
    shell:
        command("make_table3")


rule make_table4:
    """Table 4: our method at 1/3, without and with LLM.int8()."""
    input:
        reported=ancient(REPORTED),
        scores=tests("test.json", TABLE4),
        per_example=tests("test.csv", TABLE4),
        storage=[
            f"{{results}}/{task}/models/{models[-1]}/storage.json"
            for task, models in TABLE4.items()
        ],
    output:
        table="{results}/tables/table4.csv",
        text="{results}/tables/table4.txt",
        tidy="{results}/tables/table4_tidy.csv",
        ledger="{results}/tables/table4.ledger.json",
        record="{results}/tables/table4.record.json",
    log:
        "{results}/logs/make_table4.log",
    localrule: True
    params:
        job=job("make_table4", lambda w: printed_params(TABLE4)),
        files=files,
    shell:
        command("make_table4")


rule make_table5:
    """Table 5: full results at each ratio."""
    input:
        reported=ancient(REPORTED),
        scores=tests("test.json", TABLE5),
        per_example=tests("test.csv", TABLE5),
    output:
        table="{results}/tables/table5.csv",
        text="{results}/tables/table5.txt",
        tidy="{results}/tables/table5_tidy.csv",
        ledger="{results}/tables/table5.ledger.json",
        record="{results}/tables/table5.record.json",
    log:
        "{results}/logs/make_table5.log",
    localrule: True
    params:
        job=job("make_table5", lambda w: printed_params(TABLE5)),
        files=files,
    shell:
        command("make_table5")


rule make_hyperparameters:
    """Tables 6 to 8: what fine-tuning was really done with, from the records of its jobs."""
    input:
        reported=ancient(REPORTED),
        records=lambda w: [
            f"{{results}}/{task}/models/{model}/tuned.record.json"
            for task, model in tuned_models(EVERYTHING, HYPERPARAMETER_TABLES[int(w.n)])
        ],
        curves=lambda w: [
            f"{{results}}/{task}/models/{model}/learning_curve.csv"
            for task, model in tuned_models(EVERYTHING, HYPERPARAMETER_TABLES[int(w.n)])
        ],
    output:
        table="{results}/tables/table{n}.csv",
        text="{results}/tables/table{n}.txt",
        ledger="{results}/tables/table{n}.ledger.json",
        record="{results}/tables/table{n}.record.json",
    log:
        "{results}/logs/make_table{n}.log",
    wildcard_constraints:
        n="|".join(map(str, HYPERPARAMETER_TABLES)),
    localrule: True
    params:
        job=job("make_hyperparameters", lambda w: {"reported": reported_digests()}),
        files=files,
    shell:
        command("make_hyperparameters")
