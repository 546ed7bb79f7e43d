"""Extract paragraphs of LibreOffice's help from its Debian packages, with one HTML file a page."""

import unicodedata
from html.parser import HTMLParser
from pathlib import Path

from experiment.inputs.packages import iter_members

Paragraphs = dict[tuple[str, str], str]  # (page, element id) -> text

PARAGRAPH_TAGS = {"p", "h1", "h2", "h3", "h4", "h5", "h6"}
NOT_PROSE_CLASSES = {"code", "codeintable", "smathcode", "image", "imageintable", "related"}


def read_paragraphs(package: Path) -> Paragraphs:
    """Text of every paragraph and heading, sorted by page and element id."""
    paragraphs = {}
    for name, content in iter_members(package, "usr/share/libreoffice/help/*/text/*.html"):
        page = name.split("/text/", 1)[1].removesuffix(".html")
        for element, text in page_paragraphs(content.decode()).items():
            paragraphs[page, element] = text
    return dict(sorted(paragraphs.items()))


def page_paragraphs(html: str) -> dict[str, str]:
    """Text of the paragraphs and headings of one page, by element id.

    Where the text differs by operating system or application, the default is taken.
    """
    parser = _HelpPage()
    parser.feed(html)
    return parser.paragraphs


class _HelpPage(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: dict[str, str] = {}
        self._element: str | None = None  # id of the open paragraph, if that is kept
        self._tag = ""
        self._pieces: list[str] = []
        self._hidden_depth = 0  # number of open spans, from the first hidden one inwards

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        identifier = attributes.get("id", "")
        if tag in PARAGRAPH_TAGS:
            is_prose = attributes.get("class") not in NOT_PROSE_CLASSES
            is_wanted = is_prose and identifier.startswith(("par_", "hd_"))
            self._element = identifier if is_wanted else None
            self._tag, self._pieces, self._hidden_depth = tag, [], 0
        elif tag == "span":
            is_variant = "hidden" in attributes and not identifier.startswith("default")
            if self._hidden_depth or is_variant:
                self._hidden_depth += 1
        elif tag == "br":
            self._pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "span" and self._hidden_depth:
            self._hidden_depth -= 1
        elif tag == self._tag and self._element:
            self.paragraphs[self._element] = _normalise("".join(self._pieces))
            self._element = None

    def handle_data(self, data: str) -> None:
        if self._element and not self._hidden_depth:
            self._pieces.append(data)


def _normalise(text: str) -> str:
    """Normalise to NFC and single spaces, without soft hyphens."""
    return " ".join(unicodedata.normalize("NFC", text).replace("\u00ad", "").split())
