# Section 3.3: one forward pass collects the features of every feed-forward sublayer.


rule collect_features:
    """The output of W_in before the activation, at exactly n_tokens positions of validation data."""
    input:
        base_model=base_model,
        validation=dataset("validation"),
    output:
        features="{results}/{task}/features.safetensors",
        record="{results}/{task}/features.record.json",
    log:
        "{results}/{task}/logs/collect_features.log",
    params:
        job=job(
            "collect_features",
            lambda w: {
                "task": part(w.task, "features"),
                "n_layers": TASKS[w.task].base_model.n_layers,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"features": 1e-3},
        ),
        files=files,
    shell:
        command("collect_features")
