"""Queries and passages for sentence retrieval, cut from running text.

Texts need no labels. By the inverse cloze task (Lee et al. 2019, Section 5), a sentence is the
query and the rest of its paragraph is the passage to find.
"""

import hashlib
import re
from typing import NamedTuple

# A full stop ends a sentence unless it follows an initial or one of these abbreviations.
SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<![ .][A-Z]\.)(?<!Mr\.)(?<!Dr\.)(?<!No\.)(?<!St\.)(?<!Mrs\.)(?<!Gen\.) "
    r"(?=[\"A-Z[])"
)


class QueryPassage(NamedTuple):
    """A query and its own passage."""

    query: str
    passage: str


def sentences(paragraph: str) -> list[str]:
    """Split an English paragraph with single spaces between words into sentences."""
    return SENTENCE_END.split(paragraph)


def inverse_cloze(paragraph: str, min_words: int) -> QueryPassage | None:
    """Split a paragraph into a sentence and the rest; None if either would be too short.

    min_words: minimum number of words of both. The choice of the sentence depends on the paragraph
    alone, so it is the same in every split and order.
    """
    parts = sentences(" ".join(paragraph.split()))
    lengths = [len(part.split()) for part in parts]
    total = sum(lengths)
    long = [i for i, n in enumerate(lengths) if n >= min_words and total - n >= min_words]
    if not long:
        return None
    digest = hashlib.sha256(paragraph.encode()).digest()
    chosen = long[int.from_bytes(digest[:8], "big") % len(long)]
    return QueryPassage(parts[chosen], " ".join(parts[:chosen] + parts[chosen + 1 :]))
