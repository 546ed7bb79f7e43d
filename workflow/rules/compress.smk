# Section 3.3: the sublayers of the selected window become one (Eqs. 3 and 4), stored once.


rule compress:
    """Merge and tie the selected window of the base model."""
    input:
        base_model=base_model,
        permutations="{results}/{task}/permutations.safetensors",
        selection=selection_for_variant,
    output:
        model=weights("compressed", "{results}/{task}/models/{variant}/compressed"),
        record="{results}/{task}/models/{variant}/compressed.record.json",
    log:
        "{results}/{task}/logs/compress-{variant}.log",
    wildcard_constraints:
        variant=variants.MERGED,
    params:
        job=job("compress", variant_params),
        files=files,
    shell:
        command("compress")
