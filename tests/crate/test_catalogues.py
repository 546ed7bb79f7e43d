"""The files that catalogues and citation managers read are valid."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def citation() -> dict:
    return yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())


def test_the_citation_is_valid(checkers, tmp_path):
    assert "valid according to schema version 1.2.0" in checkers.cites(REPOSITORY / "CITATION.cff")
    broken = tmp_path / "CITATION.cff"
    broken.write_text((REPOSITORY / "CITATION.cff").read_text().replace("title: ", "titel: "))
    with pytest.raises(AssertionError):
        checkers.cites(broken)


def test_the_citation_is_of_this_version_and_names_the_paper(citation):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]
    assert citation["preferred-citation"]["title"].startswith("Merging Feed-Forward Sublayers")


def test_the_workflow_has_what_snakemakes_catalog_asks_of_standardized_usage():
    readme = (REPOSITORY / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    for file in ("workflow/Snakefile", "config/README.md", "LICENSE"):
        assert (REPOSITORY / file).is_file()
    rules = list((REPOSITORY / "workflow/rules").iterdir())
    assert {file.suffix for file in rules if file.is_file()} == {".smk"}
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["mandatory-flags"]["flags"] == []


def test_the_catalog_is_told_of_the_deployment_and_the_report_that_there_are():
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    rules = [*(REPOSITORY / "workflow/rules").glob("*.smk"), REPOSITORY / "workflow/Snakefile"]
    code = "\n".join(file.read_text() for file in rules)
    told = usage["software-stack-deployment"]
    assert told["apptainer"] == ("\ncontainer:" in code)
    assert told["conda"] == ("conda:" in code)
    assert usage["report"] == bool(re.search(r"^report:|\breport\(", code, flags=re.M))
