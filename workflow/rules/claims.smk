# The paper's numbers and findings, compared with those of this run.


rule compare_with_paper:
    """Set every number that the paper prints beside the one recomputed here, with a verdict."""
    input:
        **tested(EVERYTHING),
        reported=ancient(REPORTED),
        base_models=[base_model_of(task) for task in TASKS],
        storage=quantized_storage(),
        collected=task_files("features.record.json"),
        tested=task_files(f"models/{variants.BASE}/test.record.json"),
        tuned=of_models("tuned.record.json", tuned(EVERYTHING)),
    output:
        **table("comparison"),
    log:
        "{results}/logs/compare_with_paper.log",
    localrule: True
    params:
        **job("compare_with_paper", lambda w: comparison_params()),
    shell:
        command("compare_with_paper")


rule evaluate_claims:
    """Test each of the paper's findings on this run's per-example scores."""
    input:
        **tested(EVERYTHING),
        reported=ancient(REPORTED),
        untuned=untuned_windows("untuned.json"),
        untuned_per_example=untuned_windows("untuned.csv"),
        cka=task_files("cka.csv"),
    output:
        **table("claims"),
    log:
        "{results}/logs/evaluate_claims.log",
    localrule: True
    params:
        **job(
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
    shell:
        command("evaluate_claims")
