# Section 5: the reported score, with the per-example values behind it.


rule score_test:
    """Perplexity, accuracy or BLEU of a model on the test split."""
    input:
        model=finished_model,
        base_model=base_model,
        test=dataset("test"),
    output:
        score="{results}/{task}/models/{model}/test.json",
        per_example="{results}/{task}/models/{model}/test.csv",
        record="{results}/{task}/models/{model}/test.record.json",
    log:
        "{results}/{task}/logs/score_test-{model}.log",
    params:
        job=job(
            "score_test",
            lambda w: {
                "task": part(w.task, "test"),
                "loader": loader(w.model),
                "device": CONFIG.device,
                "inputs": pinned(w.task, "test"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
        files=files,
    shell:
        command("score_test")
