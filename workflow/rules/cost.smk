# Table 1: what a compressed model costs to run.


rule measure_cost:
    """Time a forward pass of the base model and of a compressed model of each method, in turns."""
    input:
        base_model=base_model,
        models=measured_models,
        validation=dataset("validation"),
    output:
        cost="{results}/{task}/cost.csv",
        record="{results}/{task}/cost.record.json",
    log:
        "{results}/{task}/logs/measure_cost.log",
    params:
        job=job(
            "measure_cost",
            lambda w: {
                "task": part(w.task, "features"),
                "loaders": {
                    model: loader(model)
                    for model in [
                        variants.BASE,
                        *map(str, variants.table1_variants(TASKS[w.task])),
                    ]
                },
                "rounds": 9,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"ratio": 0.2},
        ),
        files=files,
    shell:
        command("measure_cost")
