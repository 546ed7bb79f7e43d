# The paper's future work: groups of any sublayers, several in one model, from features alone.


rule propose_groups:
    """Cluster the layers by how alike they are, to remove as many sublayers as the best window."""
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
                # of all but one there is only one group
                "sizes": TASKS[w.task].merge.k.sizes()[:2],
            },
            reproduces="decisions",
        ),
        files=files,
    shell:
        command("propose_groups")


rule score_groups:
    """Merge and score what each strategy selects, before tuning."""
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


rule make_strategies:
    """Ours: what each strategy selects and reaches, at the same number of sublayers removed."""
    input:
        scores=tests("test.json", STRATEGIES),
        per_example=tests("test.csv", STRATEGIES),
        groups=task_files("groups.json"),
        untuned=task_files("groups.csv"),
    output:
        table="{results}/tables/strategies.csv",
        text="{results}/tables/strategies.txt",
        tidy="{results}/tables/strategies_tidy.csv",
        ledger="{results}/tables/strategies.ledger.json",
        record="{results}/tables/strategies.record.json",
    log:
        "{results}/logs/make_strategies.log",
    localrule: True
    params:
        job=job("make_strategies", lambda w: table_params(STRATEGIES)),
        files=files,
    shell:
        command("make_strategies")
