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
    threads: cores
    resources:
        workers=workers,
    params:
        **job(
            "score_windows",
            lambda w: {
                "task": part_for_search(w.task),
                "anchor": TASKS[w.task].merge.anchor,
                "candidates": windows(w.task)[w.part],
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
    shell:
        command("score_windows", loads=True)


rule select_windows:
    """Select the windows of one ratio, under the full and the printed range of starts."""
    input:
        scores=window_scores,
    output:
        selection="{results}/{task}/selection/k{k}.json",
        record="{results}/{task}/selection/k{k}.record.json",
    log:
        "{results}/{task}/logs/select_windows-k{k}.log",
    wildcard_constraints:
        k=r"\d+",
    localrule: True
    params:
        **job("select_windows", selection_params, reproduces="decisions"),
    shell:
        command("select_windows")


use rule select_windows as list_windows with:
    # the scores of all windows, with the winners of every ratio and method
    output:
        scores="{results}/{task}/windows.csv",
        selection="{results}/{task}/selection.json",
        record="{results}/{task}/selection.record.json",
    log:
        "{results}/{task}/logs/list_windows.log",


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
    threads: cores
    resources:
        workers=workers,
    params:
        **job(
            "score_layer_drops",
            lambda w: {
                "task": part_for_search(w.task),
                "candidates": windows(w.task, dropped=True)[w.part],
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
    shell:
        command("score_layer_drops", loads=True)


use rule select_windows as select_layer_drops with:
    # the best window of layers to drop at one ratio
    input:
        scores=partial(window_scores, dropped=True),
    output:
        selection="{results}/{task}/layer_drop_selection/k{k}.json",
        record="{results}/{task}/layer_drop_selection/k{k}.record.json",
    log:
        "{results}/{task}/logs/select_layer_drops-k{k}.log",
    params:
        **job("select_windows", partial(selection_params, dropped=True), reproduces="decisions"),


use rule select_layer_drops as list_layer_drops with:
    output:
        scores="{results}/{task}/layer_drops.csv",
        selection="{results}/{task}/layer_drop_selection.json",
        record="{results}/{task}/layer_drop_selection.record.json",
    log:
        "{results}/{task}/logs/list_layer_drops.log",


rule propose_groups:
    """Cluster the layers by similarity, to remove as many sublayers as the best window."""
    input:
        alignment=of_all_pairs("alignment.csv"),
        cka="{results}/{task}/cka.csv",
        selections=lambda w: [
            f"{{results}}/{{task}}/selection/k{k}.json"
            for k in variants.partial_sizes(TASKS[w.task])
        ],
    output:
        groups="{results}/{task}/groups.json",
        record="{results}/{task}/groups.record.json",
    log:
        "{results}/{task}/logs/propose_groups.log",
    localrule: True
    params:
        **job(
            "propose_groups",
            lambda w: {
                "n_layers": TASKS[w.task].base_model.n_layers,
                "anchor": TASKS[w.task].merge.anchor,
                # with all but one removed there is only one group
                "sizes": variants.partial_sizes(TASKS[w.task]),
            },
            reproduces="decisions",
        ),
    shell:
        command("propose_groups")


rule score_groups:
    """Merge and score the groups of each strategy, before tuning."""
    input:
        base_model=base_model,
        validation=dataset("validation"),
        permutations=of_all_pairs("permutations.safetensors"),
        groups="{results}/{task}/groups.json",
    output:
        scores="{results}/{task}/groups.csv",
        record="{results}/{task}/group_scores.record.json",
    log:
        "{results}/{task}/logs/score_groups.log",
    threads: cores
    resources:
        workers=workers,
    params:
        **job(
            "score_groups",
            lambda w: {
                "task": part_for_search(w.task),
                "method": variants.selecting_method(TASKS[w.task]),
                "anchor": TASKS[w.task].merge.anchor,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
    shell:
        command("score_groups", loads=True)
