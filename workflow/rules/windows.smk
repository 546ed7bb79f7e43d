# Section 3.4: every window is merged and scored before tuning, and the best one is selected.


rule score_windows:
    """Merge and score many windows, one after the other, in one job: the model is loaded once."""
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
                "candidates": of_part(variants.candidates(TASKS[w.task]), w.part),
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"score": 0.05, "loss": 1e-3},
        ),
        files=files,
    shell:
        command("score_windows")


rule select_windows:
    """The best window of each ratio under the full range of starts and under the printed one."""
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
