"""Markdown of the project as HTML: captions, and the discrepancies section by section."""

import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

PREFIX = "discrepancy-"  # of the names of headings, apart from all others on the page
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def inline(text: str) -> str:
    """A line or a few, without a paragraph around them."""
    return MARKDOWN.renderInline(text)


def sections(text: str) -> list[dict[str, Any]]:
    """A document's parts, each with `title`, `name`, `level` and the `html` below its heading.

    The document's own title, of level 1, is left to who shows it; links to headings lead to names.
    """
    tokens = MARKDOWN.parse(text)
    _point_to_names(tokens)
    starts = [n for n, token in enumerate(tokens) if token.type == "heading_open"]
    found = []
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        title = tokens[start + 1].content
        found.append(
            {
                "title": title,
                "name": PREFIX + anchor(title),
                "level": int(tokens[start].tag[1]),
                "html": MARKDOWN.renderer.render(tokens[start + 3 : end], MARKDOWN.options, {}),
            }
        )
    return found


def anchor(title: str) -> str:
    """The name by which a link finds a heading, as code hosts have it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _point_to_names(tokens: Sequence[Token]) -> None:
    for token in tokens:
        for child in token.children or []:
            target = child.attrGet("href") if child.type == "link_open" else None
            if target and target.startswith("#"):
                child.attrSet("href", f"#{PREFIX}{target[1:]}")
