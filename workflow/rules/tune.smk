# Section 3.4, Appendix B: recovery fine-tuning.


rule tokenize_text:
    """Tokenize the training text once, for all models tuned on it."""
    input:
        base_model=base_model,
        train=dataset("train"),
    output:
        tokens="{results}/{task}/dataset/train_tokens.safetensors",
        record="{results}/{task}/dataset/train_tokens.record.json",
    log:
        "{results}/{task}/logs/tokenize_text.log",
    wildcard_constraints:
        task=tasks_where(lambda task: task.kind == "language_modeling"),
    params:
        **job(
            "tokenize_text",
            lambda w: {"task": part(w.task), "inputs": pinned(w.task, "train")},
        ),
    shell:
        command("tokenize_text")


rule fine_tune:
    """Tune a model by Tables 6-8 and keep the weights of its best validation score."""
    input:
        model=untuned_model,
        base_model=base_model,
        train=tuning_data,
        validation=dataset("validation"),
    output:
        model=weights("tuned", "{results}/{task}/models/{model}/tuned"),
        curve="{results}/{task}/models/{model}/learning_curve.csv",
        record="{results}/{task}/models/{model}/tuned.record.json",
    log:
        "{results}/{task}/logs/fine_tune-{model}.log",
    threads: cores
    resources:
        # one process for each device (ffmerge.training.processes)
        gpu=lambda w: TASKS[w.task].fine_tuning.devices,
        cpus_per_task=lambda w: TASKS[w.task].fine_tuning.devices * cores(w),
        workers=workers,
    params:
        **job(
            "fine_tune",
            lambda w: {
                "task": part(w.task, "fine_tuning", "validation"),
                "seed": seed_of_tuning(w),
                "device": CONFIG.device,
                "inputs": pinned(w.task, "train", "validation"),
            },
            reproduces={"score": 0.5, "validation_loss": 0.02},
        ),
    shell:
        command("fine_tune", loads=True)
