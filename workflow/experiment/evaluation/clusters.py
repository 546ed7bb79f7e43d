"""Name the article or page that each test example is part of: examples of one are alike.

Apart from the tasks and the intervals, so that training does not depend on this, nor a test on
those.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from experiment.config.settings import JOINS
from experiment.evaluation.perplexity import sliding_windows

if TYPE_CHECKING:
    import datasets

COLUMNS = ("article", "page")  # of data, and of what ffmerge.evaluation.intervals resamples
HEADING = re.compile(r" = ([^=].*[^=]) = ?\n?")  # of an article of WikiText


def clusters(task: Any, split: str) -> dict[str, list[str]]:
    """Column name -> article or page of each example of a split; empty if the data name none.

    A window of a language model counts to the article of the first token that it scores; only a
    tokenizer of the library `tokenizers` says where in the text that is.
    """
    kind = task.settings.kind
    if kind == "language_modeling" and not (task.settings.pack and task.tokenizer.is_fast):
        return {}
    named = _of_rows(task.rows(split))
    if not named:
        return {}
    if kind == "language_modeling":
        rows = list(_of_windows(task, split))
    elif kind == "sentence_retrieval":
        rows = task.pairs(split, getattr(task.settings, split).max_examples).places
    else:
        rows = range(len(task.limited(split)))
    return {name: [of_row[i] for i in rows] for name, of_row in named.items()}


def _of_rows(rows: "datasets.Dataset") -> dict[str, list[str]]:
    """The article or page of each row, from a column of that name or WikiText's headings."""
    for name in COLUMNS:
        if name in rows.column_names:
            return {name: list(map(str, rows[name]))}
    if "text" not in rows.column_names:
        return {}
    titles = [match and match[1] for match in map(HEADING.fullmatch, rows["text"])]
    first = next(filter(None, titles), None)  # blank lines stand before its heading
    if first is None:
        return {}
    return {"article": list(accumulate(titles, lambda last, t: t or last, initial=first))[1:]}


def _of_windows(task: Any, split: str) -> Iterable[int]:
    """The row that the first scored token of each window is in."""
    how, text = getattr(task.settings, split), list(task.rows(split)["text"])
    between = JOINS[how.join]
    begins = list(accumulate((len(row) + len(between) for row in text[:-1]), initial=0))
    joined = between.join(text)
    offsets = task.tokenizer(
        joined, add_special_tokens=False, verbose=False, return_offsets_mapping=True
    )["offset_mapping"]
    n_tokens = len(task.token_ids(split, how.join)[: how.max_tokens])
    for _, first, _ in sliding_windows(n_tokens, how.context, how.stride):
        yield bisect_right(begins, offsets[min(first, len(offsets) - 1)][0]) - 1
