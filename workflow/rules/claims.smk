# The paper's numbers and findings, compared with those of this run.


rule compare_with_paper:
    """Set every number that the paper prints beside the one recomputed here, with a verdict."""
    input:
        reported=ancient(REPORTED),
        base_models=[base_model_of(task) for task in TASKS],
        scores=tests("test.json", EVERYTHING),
        per_example=tests("test.csv", EVERYTHING),
        storage=quantized_storage(),
        collected=task_files("features.record.json"),
        tested=task_files(f"models/{variants.BASE}/test.record.json"),
        tuned=[
            f"{{results}}/{task}/models/{model}/tuned.record.json"
            for task, model in tuned_models(EVERYTHING)
        ],
    output:
        table="{results}/tables/comparison.csv",
        text="{results}/tables/comparison.txt",
        ledger="{results}/tables/comparison.ledger.json",
        record="{results}/tables/comparison.record.json",
    log:
        "{results}/logs/compare_with_paper.log",
    localrule: True
    params:
        job=job("compare_with_paper", lambda w: comparison_params()),
        files=files,
    shell:
        command("compare_with_paper")


rule evaluate_claims:
    """Test each of the paper's findings on this run's per-example scores."""
    input:
        reported=ancient(REPORTED),
        scores=tests("test.json", EVERYTHING),
        per_example=tests("test.csv", EVERYTHING),
        untuned=untuned_windows("untuned.json"),
        untuned_per_example=untuned_windows("untuned.csv"),
        cka=task_files("cka.csv"),
    output:
        table="{results}/tables/claims.csv",
        text="{results}/tables/claims.txt",
        ledger="{results}/tables/claims.ledger.json",
        record="{results}/tables/claims.record.json",
    log:
        "{results}/logs/evaluate_claims.log",
    localrule: True
    params:
        job=job(
            "evaluate_claims",
            lambda w: {
                "tasks": {
                    name: {"label": task.label, "models": claimed_models(name)}
                    for name, task in TASKS.items()
                },
                "draws": CONFIG.intervals.permutations,
                "confidence": CONFIG.intervals.confidence,
                "seed": CONFIG.seed,
                "reported": reported_digests(),
            },
        ),
        files=files,
    shell:
        command("evaluate_claims")
