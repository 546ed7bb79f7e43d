# Section 3.3: the selected sublayers become one (Eqs. 3 and 4), stored once.
# Section 4.4: the baseline drops whole layers. Section 5.4: LLM.int8() on top of merging.


rule compress:
    """Merge and tie the selected window of the base model."""
    input:
        base_model=base_model,
        permutations=permutations_for_variant,
        selection=selection_for_variant,
    output:
        model=weights("compressed", "{results}/{task}/models/{variant}/compressed"),
        record="{results}/{task}/models/{variant}/compressed.record.json",
    log:
        "{results}/{task}/logs/compress-{variant}.log",
    wildcard_constraints:
        variant=variants.MERGED_PATTERN,
    params:
        **job("compress", variant_params),
    shell:
        command("compress")


rule drop_layers:
    """Drop the selected window of layers from the base model."""
    input:
        base_model=base_model,
        selection=selection_for_dropping,
    output:
        model=weights("compressed", "{results}/{task}/models/{variant}/compressed"),
        record="{results}/{task}/models/{variant}/compressed.record.json",
    log:
        "{results}/{task}/logs/drop_layers-{variant}.log",
    wildcard_constraints:
        variant=variants.DROPPED_PATTERN,
    params:
        **job("drop_layers", variant_params),
    shell:
        command("drop_layers")


rule quantize:
    """Quantize the linear maps of a finished model to int8, and measure its size on disk."""
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
        **job(
            "quantize",
            lambda w: {"device": CONFIG.device, "inputs": pinned(w.task)},
        ),
    shell:
        command("quantize")
