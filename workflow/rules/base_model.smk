# The embedded base models: trained from scratch on the embedded data (resources/demo/README.md).


rule train_base_model:
    """Train a base model by the recipe of the configuration; resumes after a kill."""
    input:
        train=training_data,
        validation=dataset("validation"),
    output:
        model=directory("{results}/{task}/trained_base_model"),
        curve="{results}/{task}/trained_base_model.learning_curve.csv",
        record="{results}/{task}/trained_base_model.record.json",
    log:
        "{results}/{task}/logs/train_base_model.log",
    params:
        job=job(
            "train_base_model",
            lambda w: {
                "task": part(w.task, "validation"),
                "recipe": in_one_order(
                    TASKS[w.task].base_model.from_scratch.model_dump(mode="json")
                ),
                "seed": CONFIG.seed,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"score": 1.0, "validation_loss": 0.05},
        ),
        files=files,
    shell:
        command("train_base_model")
