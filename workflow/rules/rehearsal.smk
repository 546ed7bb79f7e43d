# A rehearsal at the paper's size, with random weights: time, memory and disk of every stage.
ALIGNED_ALONE = 8  # pairs whose steps are timed alone


rule measure_alignment:
    """Time the steps of alignment alone: centring, matrix product, assignment."""
    input:
        features="{results}/{task}/features.safetensors",
    output:
        alone="{results}/{task}/alignment_alone.json",
        record="{results}/{task}/alignment_alone.record.json",
    log:
        "{results}/{task}/logs/measure_alignment.log",
    threads: 2
    params:
        **job(
            "measure_alignment",
            lambda w: {"pairs": variants.aligned_pairs(TASKS[w.task]), "n_pairs": ALIGNED_ALONE},
            # seconds differ; sizes and counts do not
            reproduces="decisions",
        ),
    shell:
        command("measure_alignment")


rule report_stages:
    """Seconds, peak memory and disk of each stage, against what it may take."""
    input:
        records=rehearsed,
        alone=task_files("alignment_alone.json"),
    output:
        table="{results}/stages.csv",
        alignment="{results}/stages_alignment.csv",
        text="{results}/stages.txt",
        record="{results}/stages.record.json",
    log:
        "{results}/logs/report_stages.log",
    localrule: True
    params:
        **job(
            "report_stages",
            lambda w: {
                "tasks": list(TASKS),
                "base_models": [plain(base_model_of(task)) for task in TASKS],
            },
            reproduces="decisions",
        ),
    shell:
        command("report_stages")
