# Section 3.4: merge and score every window before tuning, and select the best one.
# Section 4.4: do the same for the baseline, which drops windows of whole layers.
# The paper's future work: groups of any sublayers, several in one model, from features alone.


rule score_windows:
    """Merge and score many windows one after the other in a job that loads the model once."""
    input:
        base_model=base_model,
        validation=dataset("validation"),
        permutations="{results}/{task}/permutations.safetensors",
    output:
        scores="{results}/{task}/windows/{part}.csv",
        record="{results}/{task}/windows/{part}.record.json",
    log:
        "{results}/{task}/logs/score_windows-{part}.log",
    params:
        job=job(
            "score_windows",
            lambda w: {
                "task": part(w.task, "validation"),
                "anchor": TASKS[w.task].merge.anchor,
                "candidates": candidates_of_part(variants.candidates(TASKS[w.task]), w.part),
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
        files=files,
    shell:
        command("score_windows")


rule select_windows:
    """Select the best window of each ratio, under the full and the printed range of starts."""
    input:
        scores=window_parts,
    output:
        scores="{results}/{task}/windows.csv",
        selection="{results}/{task}/selection.json",
        record="{results}/{task}/selection.record.json",
    log:
        "{results}/{task}/logs/select_windows.log",
    localrule: True
    params:
        job=job(
            "select_windows",
            lambda w: {
                "metric": TASKS[w.task].kind,
                "n_layers": TASKS[w.task].base_model.n_layers,
                "starts": TASKS[w.task].windows.starts,
                "n_random": variants.RANDOM_WINDOWS,
                "seed": CONFIG.seed,
                **only_windows(w.task),
            },
            reproduces="decisions",
        ),
        files=files,
    shell:
        command("select_windows")


rule score_layer_drops:
    """Score the uncompressed model, and the model without every window of layers, untuned."""
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
                "candidates": candidates_of_part(variants.drop_candidates(TASKS[w.task]), w.part),
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
        files=files,
    shell:
        command("score_layer_drops")


rule select_layer_drops:
    """Select the best window of layers to drop at each ratio."""
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


rule propose_groups:
    """Cluster the layers by similarity, to remove as many sublayers as the best window."""
    input:
        alignment="{results}/{task}/alignment.csv",
        cka="{results}/{task}/cka.csv",
        selection="{results}/{task}/selection.json",
    output:
        groups="{results}/{task}/groups.json",
        record="{results}/{task}/groups.record.json",
    log:
        "{results}/{task}/logs/propose_groups.log",
    localrule: True
    params:
        job=job(
            "propose_groups",
            lambda w: {
                "n_layers": TASKS[w.task].base_model.n_layers,
                "anchor": TASKS[w.task].merge.anchor,
                # with all but one removed there is only one group
                "sizes": TASKS[w.task].merge.k.sizes()[:2],
            },
            reproduces="decisions",
        ),
        files=files,
    shell:
        command("propose_groups")


rule score_groups:
    """Merge and score the groups of each strategy, before tuning."""
    input:
        base_model=base_model,
        validation=dataset("validation"),
        permutations="{results}/{task}/permutations.safetensors",
        groups="{results}/{task}/groups.json",
    output:
        scores="{results}/{task}/groups.csv",
        record="{results}/{task}/group_scores.record.json",
    log:
        "{results}/{task}/logs/score_groups.log",
    params:
        job=job(
            "score_groups",
            lambda w: {
                "task": part(w.task, "validation"),
                "anchor": TASKS[w.task].merge.anchor,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
        files=files,
    shell:
        command("score_groups")
