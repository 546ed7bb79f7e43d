"""Where sentences end."""

import re

# A full stop ends a sentence unless it follows an initial or one of these abbreviations.
SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<![ .][A-Z]\.)(?<!Mr\.)(?<!Dr\.)(?<!No\.)(?<!St\.)(?<!Mrs\.)(?<!Gen\.) "
    r"(?=[\"A-Z[])"
)


def sentences(paragraph: str) -> list[str]:
    """The sentences of an English paragraph whose words are single spaces apart."""
    return SENTENCE_END.split(paragraph)
