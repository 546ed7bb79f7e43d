# Section 4.4: the baseline, which leaves the best window of whole layers out.


rule score_layer_drops:
    """Score the uncompressed model and every window of layers that may be left out, untuned."""
    input:
        base_model=base_model,
        validation=dataset("validation"),
    output:
        scores="{results}/{task}/layer_drops/{part}.csv",
        record="{results}/{task}/layer_drops/{part}.record.json",
    log:
        "{results}/{task}/logs/score_layer_drops-{part}.log",
    params:
        job=job(
            "score_layer_drops",
            lambda w: {
                "task": part(w.task, "validation"),
                "candidates": of_part(variants.drop_candidates(TASKS[w.task]), w.part),
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
        files=files,
    shell:
        command("score_layer_drops")


rule select_layer_drops:
    """The best window of layers at each ratio, among all of them."""
    input:
        scores=layer_drop_parts,
    output:
        scores="{results}/{task}/layer_drops.csv",
        selection="{results}/{task}/layer_drop_selection.json",
        record="{results}/{task}/layer_drop_selection.record.json",
    log:
        "{results}/{task}/logs/select_layer_drops.log",
    localrule: True
    params:
        job=job(
            "select_windows",
            lambda w: {
                "metric": TASKS[w.task].kind,
                "n_layers": TASKS[w.task].base_model.n_layers,
                "starts": "full",
                "n_random": 0,
                "seed": CONFIG.seed,
            },
            reproduces="decisions",
        ),
        files=files,
    shell:
        command("select_windows")


rule drop_layers:
    """Leave the selected window of layers out of the base model."""
    input:
        base_model=base_model,
        selection="{results}/{task}/layer_drop_selection.json",
    output:
        model=weights("compressed", "{results}/{task}/models/{variant}/compressed"),
        record="{results}/{task}/models/{variant}/compressed.record.json",
    log:
        "{results}/{task}/logs/drop_layers-{variant}.log",
    wildcard_constraints:
        variant=variants.DROPPED,
    params:
        job=job("drop_layers", variant_params),
        files=files,
    shell:
        command("drop_layers")
