# The paper's tables.


rule make_table5:
    """Table 5, and beside it every number unrounded with its interval."""
    input:
        scores=table5_files("test.json"),
        per_example=table5_files("test.csv"),
        selections=expand("{{results}}/{task}/selection.json", task=TASKS),
    output:
        table="{results}/tables/table5.csv",
        text="{results}/tables/table5.txt",
        tidy="{results}/tables/table5_tidy.csv",
        record="{results}/tables/table5.record.json",
    log:
        "{results}/logs/make_table5.log",
    localrule: True
    params:
        job=job(
            "make_table5",
            lambda w: {
                "tasks": {
                    name: {
                        "kind": task.kind,
                        "label": task.label,
                        "n_layers": task.base_model.n_layers,
                        "base": variants.reported_base(task),
                        "k": task.merge.k.sizes(),
                    }
                    for name, task in TASKS.items()
                },
                "intervals": CONFIG.intervals.model_dump(),
                "seed": CONFIG.seed,
            },
        ),
        files=files,
    shell:
        command("make_table5")
