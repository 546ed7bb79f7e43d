# Section 5: the reported score of a model. Table 1: the cost of running it.


rule score_test:
    """Measure perplexity, accuracy or BLEU of a model on the test split."""
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
    threads: cores
    resources:
        workers=workers,
    params:
        **job(
            "score_test",
            lambda w: {
                "task": part(w.task, "test"),
                "loader": loader(w.model),
                "device": CONFIG.device,
                "inputs": pinned(w.task, "test"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
    shell:
        command("score_test", loads=True)


use rule score_test as score_untuned with:
    # Section 5.2: the same test of a merged model before recovery fine-tuning
    input:
        model="{results}/{task}/models/{model}/compressed",
        base_model=base_model,
        test=dataset("test"),
    output:
        score="{results}/{task}/models/{model}/untuned.json",
        per_example="{results}/{task}/models/{model}/untuned.csv",
        record="{results}/{task}/models/{model}/untuned.record.json",
    log:
        "{results}/{task}/logs/score_untuned-{model}.log",


rule measure_cost:
    """Time a forward pass of the base model and of a compressed model of each method, in turns."""
    input:
        base_model=base_model,
        models=lambda w: [finished(w.task, model) for model in measured(w.task)],
        validation=dataset("validation"),
    output:
        cost="{results}/{task}/cost.csv",
        record="{results}/{task}/cost.record.json",
    log:
        "{results}/{task}/logs/measure_cost.log",
    params:
        **job(
            "measure_cost",
            lambda w: {
                "task": part_for_features(w.task, "aligned", "n_tokens"),
                "loaders": {model: loader(model) for model in measured(w.task)},
                "rounds": 9,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"ratio": 0.2},
        ),
    shell:
        command("measure_cost")
