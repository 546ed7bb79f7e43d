# Sections 3.2 and 3.3: features, and the permutations that align sublayers (Eqs. 1 and 2).
# Section 5.5 and Appendix C: outputs of sublayers, and their similarity.


rule collect_features:
    """Collect W_in's output before the activation, at exactly n_tokens validation positions."""
    input:
        base_model=base_model,
        validation=dataset("validation"),
    output:
        features="{results}/{task}/features.safetensors",
        record="{results}/{task}/features.record.json",
    log:
        "{results}/{task}/logs/collect_features.log",
    params:
        **job(
            "collect_features",
            lambda w: {
                "task": part(w.task, "features"),
                "n_layers": TASKS[w.task].base_model.n_layers,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"features": 1e-3},
        ),
    shell:
        command("collect_features")


rule align_feed_forwards:
    """Solve the assignment of every pair of layers that the windows of tables and figures need."""
    input:
        features="{results}/{task}/features.safetensors",
    output:
        permutations="{results}/{task}/permutations.safetensors",
        alignment="{results}/{task}/alignment.csv",
        record="{results}/{task}/permutations.record.json",
    log:
        "{results}/{task}/logs/align_feed_forwards.log",
    threads: 2
    params:
        **job(
            "align_feed_forwards",
            lambda w: {"pairs": variants.aligned_pairs(TASKS[w.task])},
            reproduces="decisions",
        ),
    shell:
        command("align_feed_forwards")


use rule align_feed_forwards as align_other_pairs with:
    # all other pairs, for proposed groups and for windows with other anchors
    output:
        permutations="{results}/{task}/other_permutations.safetensors",
        alignment="{results}/{task}/other_alignment.csv",
        record="{results}/{task}/other_permutations.record.json",
    log:
        "{results}/{task}/logs/align_other_pairs.log",
    params:
        **job(
            "align_feed_forwards",
            lambda w: {"pairs": variants.other_pairs(TASKS[w.task])},
            reproduces="decisions",
        ),


rule collect_outputs:
    """Collect the outputs of FF and self-attention sublayers at the positions of the features."""
    input:
        base_model=base_model,
        validation=dataset("validation"),
    output:
        outputs="{results}/{task}/outputs.safetensors",
        record="{results}/{task}/outputs.record.json",
    log:
        "{results}/{task}/logs/collect_outputs.log",
    params:
        **job(
            "collect_outputs",
            lambda w: {
                "task": part_for_features(w.task, "aligned"),
                "n_layers": TASKS[w.task].base_model.n_layers,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"outputs": 1e-3},
        ),
    shell:
        command("collect_outputs")


rule compute_cka:
    """Compute linear CKA of all pairs of layers, and its mean by distance between layers."""
    input:
        outputs="{results}/{task}/outputs.safetensors",
    output:
        cka="{results}/{task}/cka.csv",
        similarity="{results}/{task}/cka_similarity.csv",
        record="{results}/{task}/cka.record.json",
    log:
        "{results}/{task}/logs/compute_cka.log",
    threads: 2
    params:
        **job("compute_cka", reproduces={"cka": 1e-3}),
    shell:
        command("compute_cka")
