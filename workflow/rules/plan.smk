# What a whole run takes, before anybody starts it: from a dry run, shapes of models, and rates.
RATES = "config/planning/rates.yaml"
SHAPES = "config/paper_reported/models.csv"


rule plan:
    """Jobs, hours, disk and memory of each rule; the longest path; the time on 1, 8, 32 GPUs."""
    input:
        rates=ancient(RATES),
        shapes=ancient(SHAPES),
    output:
        table="{results}/plan.csv",
        text="{results}/plan.txt",
        record="{results}/plan.record.json",
    log:
        "{results}/logs/plan.log",
    localrule: True
    params:
        job=job(
            "plan",
            lambda w: {
                "configuration": CONFIG.model_dump(mode="json", exclude_none=True),
                # the jobs follow from the rules, which are no code of the script's
                "rules": sha256_of(WORKFLOW / "rules"),
                "sha256": {file: sha256_of(Path(file)) for file in (RATES, SHAPES)},
            },
        ),
        files=files,
    shell:
        command("plan")
