# Section 3.2: permutations that align feed-forward sublayers (Eqs. 1 and 2).


rule align_feed_forwards:
    """Solve the assignment of every pair of layers that a window needs, whichever its anchor."""
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
        job=job(
            "align_feed_forwards",
            lambda w: {
                "pairs": windows.pairs_in_windows(
                    TASKS[w.task].base_model.n_layers, TASKS[w.task].merge.k.sizes()
                ),
            },
            reproduces="decisions",
        ),
        files=files,
    shell:
        command("align_feed_forwards")
