"""Chinese-English sentence pairs, in the role of Tatoeba.

Source: the help of LibreOffice (Debian packages libreoffice-help-zh-cn and libreoffice-help-en-us),
where a paragraph and its translation have the same file name and element id.
Licence: MPL-2.0, Copyright LibreOffice contributors and/or their affiliates.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpora import Row, order_key
from corpora.libreoffice_help import Paragraphs, read_paragraphs

N_HELD_OUT = 1_000  # pairs in each of validation and test
MIN_HELD_OUT_WORDS = 3
MAX_ENGLISH_WORDS = 60
MAX_CHINESE_CHARS = 120
LENGTH_RATIO = (
    0.12,
    1.0,
)  # zh to en, in characters; the median is 0.33, and quantiles 1 and 99 % are inside

HAN = re.compile(r"[\u3400-\u9fff]")
ENGLISH_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.) +(?=[\"'(]?[A-Z])")
CHINESE_SENTENCE_END = re.compile(r"(?<=[。！？])(?![”」』）)])\s*")


def features():
    """Feature types of the columns: `zh`, `en`, and `page` (the help page of the pair)."""
    from datasets import Features, Value

    return Features({"zh": Value("string"), "en": Value("string"), "page": Value("string")})


def build_splits(help_zh_cn: Path, help_en_us: Path) -> dict[str, list[Row]]:
    """Rows of train, validation and test from the two packages.

    A page is in one split only. Pages repeat each other, so sentences that a page shares with a
    held-out one are removed: no sentence of test, in either language, is in train or validation,
    and none of validation in train. Rows are shuffled, so that a prefix is a fair sample.
    """
    by_page: dict[str, list[Row]] = {}
    pairs = aligned_pairs(read_paragraphs(help_zh_cn), read_paragraphs(help_en_us))
    for pair in without_repetition(pairs):
        by_page.setdefault(pair["page"], []).append(pair)

    pages = iter(sorted(by_page, key=order_key))
    splits: dict[str, list[Row]] = {}
    taken: set[tuple[str, str]] = set()
    for split in ("test", "validation"):
        candidates: list[Row] = []
        while len(candidates) < N_HELD_OUT:
            page = without_sentences(by_page[next(pages)], taken)
            candidates += [pair for pair in page if len(pair["en"].split()) >= MIN_HELD_OUT_WORDS]
        splits[split] = _mixed(candidates)[:N_HELD_OUT]
        taken |= sentences(splits[split])
    rest = [pair for page in pages for pair in by_page[page]]
    return {"train": _mixed(without_sentences(rest, taken)), **splits}


def aligned_pairs(chinese: Paragraphs, english: Paragraphs) -> Iterator[Row]:
    """Pair sentences, or whole paragraphs if their numbers of sentences differ."""
    for (page, element), zh in chinese.items():
        en = english.get((page, element), "")
        zh_sentences = [sentence for sentence in CHINESE_SENTENCE_END.split(zh) if sentence]
        en_sentences = ENGLISH_SENTENCE_END.split(en)
        if len(zh_sentences) != len(en_sentences):
            zh_sentences, en_sentences = [zh], [en]
        for zh_sentence, en_sentence in zip(zh_sentences, en_sentences, strict=True):
            if is_plausible(zh_sentence, en_sentence):
                yield {"zh": zh_sentence, "en": en_sentence, "page": page}


def is_plausible(zh: str, en: str) -> bool:
    """Whether the two may be translations of each other, by script and length alone."""
    if not HAN.search(zh) or HAN.search(en) or not re.search("[A-Za-z]", en):
        return False
    if len(en.split()) > MAX_ENGLISH_WORDS or len(zh) > MAX_CHINESE_CHARS:
        return False
    return LENGTH_RATIO[0] <= len(zh) / len(en) <= LENGTH_RATIO[1]


def comparable(sentence: str) -> str:
    """Reduce a sentence to a form that is equal for trivial variants.

    Case, width, spaces and punctuation are removed.
    """
    return "".join(c for c in unicodedata.normalize("NFKC", sentence).lower() if c.isalnum())


def sentences(pairs: Iterable[Row]) -> set[tuple[str, str]]:
    """All (language, comparable sentence) of the pairs."""
    return {(language, comparable(pair[language])) for pair in pairs for language in ("zh", "en")}


def without_repetition(pairs: Iterable[Row]) -> Iterator[Row]:
    """Keep the first pair of each comparable source sentence."""
    seen = set()
    for pair in pairs:
        key = comparable(pair["zh"])
        if key not in seen:
            seen.add(key)
            yield pair


def without_sentences(pairs: Iterable[Row], taken: set[tuple[str, str]]) -> list[Row]:
    """Keep pairs with neither side in `taken`, see `sentences`."""
    return [pair for pair in pairs if taken.isdisjoint(sentences([pair]))]


def _mixed(pairs: Iterable[Row]) -> list[Row]:
    return sorted(pairs, key=lambda pair: order_key(pair["zh"]))
