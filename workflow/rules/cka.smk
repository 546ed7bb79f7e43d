# Section 5.5 and Appendix C: how similar the sublayers' outputs are.


rule collect_outputs:
    """What FF and self-attention sublayers put out at the positions that features come from."""
    input:
        base_model=base_model,
        validation=dataset("validation"),
    output:
        outputs="{results}/{task}/outputs.safetensors",
        record="{results}/{task}/outputs.record.json",
    log:
        "{results}/{task}/logs/collect_outputs.log",
    params:
        job=job(
            "collect_outputs",
            lambda w: {
                "task": part(w.task, "features"),
                "n_layers": TASKS[w.task].base_model.n_layers,
                "device": CONFIG.device,
                "inputs": pinned(w.task, "validation"),
            },
            reproduces={"outputs": 1e-3},
        ),
        files=files,
    shell:
        command("collect_outputs")


rule compute_cka:
    """Linear CKA of all pairs of layers, and its mean for each distance between two layers."""
    input:
        outputs="{results}/{task}/outputs.safetensors",
    output:
        cka="{results}/{task}/cka.csv",
        similarity="{results}/{task}/cka_similarity.csv",
        record="{results}/{task}/cka.record.json",
    log:
        "{results}/{task}/logs/compute_cka.log",
    threads: 2
    params:
        job=job("compute_cka", reproduces={"cka": 1e-3}),
        files=files,
    shell:
        command("compute_cka")
