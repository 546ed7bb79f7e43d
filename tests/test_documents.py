"""Every link in a document resolves, and every path that a document names exists."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from provenance.page.content import anchor

REPOSITORY = Path(__file__).resolve().parent.parent
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=True,
).stdout.split("\0")[:-1]
FILES = {Path(name) for name in TRACKED if (REPOSITORY / name).exists()}
FOLDERS = {folder for file in FILES for folder in file.parents}
DOCUMENTS = sorted(file for file in FILES if file.suffix == ".md")
PARSER = MarkdownIt("commonmark").enable("table")


def exists(path: Path) -> bool:
    """Whether git has this file or folder, also by way of a link such as `slurm`."""
    path = path.resolve()
    return path.is_relative_to(REPOSITORY) and path.relative_to(REPOSITORY) in FILES | FOLDERS


def inline(document: Path) -> list:
    """The links, pictures and pieces of code in a document's text; code blocks are left out."""
    tokens = PARSER.parse((REPOSITORY / document).read_text(encoding="utf-8"))
    return [child for token in tokens for child in token.children or []]


def links(document: Path) -> list[str]:
    """Targets of the links and pictures that lead to no other site."""
    targets = [token.attrGet("href") or token.attrGet("src") for token in inline(document)]
    return [target for target in targets if target and "://" not in target]


def anchors(document: Path) -> set[str]:
    """The names of a document's headings, as code hosts make them."""
    tokens = PARSER.parse((REPOSITORY / document).read_text(encoding="utf-8"))
    return {anchor(text.content) for tag, text in pairwise(tokens) if tag.type == "heading_open"}


def named_paths(document: Path) -> list[str]:
    """Paths in backticks, or in a code block, that begin with a folder of this repository.

    A path with a placeholder, and one that a run makes, is left out.
    """
    tokens = PARSER.parse((REPOSITORY / document).read_text(encoding="utf-8"))
    blocks = [token.content for token in tokens if token.type in ("fence", "code_block")]
    pieces = [token.content for token in inline(document) if token.type == "code_inline"]
    words = [word.strip("\"'`,;:()") for text in [*pieces, *blocks] for word in text.split()]
    top = {file.parts[0] for file in FILES} - {"results"}
    return [
        word
        for word in words
        if "/" in word and word.split("/")[0] in top and not re.search(r"[*{}…<>]|DIR|KIND", word)
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(document):
    for link in links(document):
        path, _, heading = link.partition("#")
        target = REPOSITORY / document.parent / path if path else REPOSITORY / document
        assert exists(target), f"{document} links to {link}"
        if heading:
            assert heading in anchors(target), f"{document} links to {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_path_that_a_document_names_exists(document):
    for path in named_paths(document):
        assert exists(REPOSITORY / path), f"{document} names {path}"


def test_the_readme_names_files_and_links_at_all():
    assert len(links(Path("README.md"))) > 5
    assert len(named_paths(Path("README.md"))) > 10
