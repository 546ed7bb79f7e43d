# A plan of the whole run before it starts, from a dry run and a table of rates.
RATES = "config/rates.yaml"


rule plan:
    """Jobs, hours and disk of each rule and task; the longest path."""
    input:
        rates=ancient(RATES),
    output:
        table="{results}/plan.csv",
        text="{results}/plan.txt",
        record="{results}/plan.record.json",
    log:
        "{results}/logs/plan.log",
    localrule: True
    params:
        **job(
            "plan",
            lambda w: {
                "configuration": CONFIG.model_dump(mode="json", exclude_none=True),
                # The script reads the rules through a dry run, so they are not in its code digest.
                "rules": sha256_of(WORKFLOW / "rules"),
                "sha256": sha256_of(Path(RATES)),
            },
        ),
    shell:
        command("plan")
