# Section 5.4, Table 4: LLM.int8() on top of a merged model.


rule quantize:
    """Make the linear maps of a finished model int8 and measure what is left on disk."""
    input:
        model="{results}/{task}/models/{variant}/tuned",
        base_model=base_model,
    output:
        model=directory("{results}/{task}/models/{variant}-int8/quantized"),
        storage="{results}/{task}/models/{variant}-int8/storage.json",
        record="{results}/{task}/models/{variant}-int8/quantized.record.json",
    log:
        "{results}/{task}/logs/quantize-{variant}.log",
    params:
        job=job(
            "quantize",
            lambda w: {"device": CONFIG.device, "inputs": pinned(w.task)},
        ),
        files=files,
    shell:
        command("quantize")
