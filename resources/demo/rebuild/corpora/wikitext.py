"""Extract running prose from the wiki markup of an encyclopaedia article."""

import re
import unicodedata
from collections.abc import Iterator

MIN_PARAGRAPH_CHARS = 60
UNWANTED_SECTIONS = re.compile(
    r"(see also|notes|references|further reading|external links|bibliography|footnotes|sources"
    r"|citations|gallery|filmography|works cited|notes and references)$",
    re.IGNORECASE,
)
NOT_PROSE_TAGS = {"ref", "references", "table", "gallery", "timeline", "imagemap", "code", "pre"}
NOT_PROSE_TAGS |= {"score", "source", "syntaxhighlight", "nowiki"}
NOT_PROSE_LINKS = re.compile(
    r"\s*:?(file|image|media|category|[a-z]{2,3}(-[a-z]+)?):", re.IGNORECASE
)
# Traces of broken markup and of templates that held words.
LEFTOVERS = re.compile(
    r"\{\{|\}\}|\[\[|\]\]|\{\||\||</?[a-z]+|https?://|__[A-Z]+__|, ?,|\b(as|by|in|of|the) [,.;)]"
)
FORMULA = "\ue000"  # placeholder for a formula until its paragraph is dropped

UNITS = {
    "C": "°C",
    "C-change": "°C",
    "F": "°F",
    "km2": "km²",
    "ft3": "cubic feet",
    "sqmi": "square miles",
    "PD/sqmi": "people per square mile",
    "nmi": "nautical miles",
    "oilbbl": "barrels",
    "oilbbl/d": "barrels per day",
    "koilbbl/d": "thousand barrels per day",
    "Moilbbl": "million barrels",
    "Moilbbl/d": "million barrels per day",
    "Goilbbl": "billion barrels",
    "Tcuft": "trillion cubic feet",
    "acre": "acres",
    "e6acre": "million acres",
    "e6carat": "million carats",
    "USgal": "gallons",
    "MUSgal": "million gallons",
}
RANGES = {"-": "–", "–": "–", "to": " to ", "and": " and ", "and(-)": " and ", "by": " by "}


def prose_paragraphs(wikitext: str) -> Iterator[str]:
    """Yield paragraphs of prose, without headings, lists, tables, templates, notes or formulas."""
    import mwparserfromhell

    wanted = True
    for line in _plain(mwparserfromhell.parse(wikitext, skip_style_tags=True)).split("\n"):
        if heading := re.match(r"(=+)(.*?)=+\s*$", line):
            unwanted = UNWANTED_SECTIONS.match(heading[2].strip()) is not None
            if unwanted or len(heading[1]) == 2:  # subsections follow the section they are in
                wanted = not unwanted
            continue
        if not wanted or FORMULA in line or line.startswith(tuple("*#:; ")):
            continue
        paragraph = normalise(line)
        is_whole = len(paragraph) >= MIN_PARAGRAPH_CHARS and paragraph.rstrip("\"')”")[-1:] in ".!?"
        if is_whole and not LEFTOVERS.search(paragraph):
            yield paragraph


def normalise(text: str) -> str:
    """Normalise to NFC and single spaces, and close the gaps that removed templates leave."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[\u200b-\u200f\u2060\ufeff\u00ad]", "", text)
    text = " ".join(text.split())
    text = re.sub(r"\((?: ?[,;:/])+ ?", "(", text)
    text = re.sub(r"(?: ?[,;:/])+ ?\)", ")", text)
    text = re.sub(r" ?\( ?\)", "", text)
    return re.sub(r" ([,.;:!?)])(?!\d)", r"\1", text).replace("( ", "(")


def _plain(wikicode) -> str:
    return "".join(_plain_node(node) for node in wikicode.nodes)


def _plain_node(node) -> str:
    from mwparserfromhell import nodes

    match node:
        case nodes.Text():
            return re.sub("'{2,}", "", node.value)
        case nodes.Wikilink():
            is_prose = not NOT_PROSE_LINKS.match(str(node.title))
            return _plain(node.text or node.title) if is_prose else ""
        case nodes.ExternalLink():
            return _plain(node.title) if node.title else ""
        case nodes.HTMLEntity():
            return node.normalize()
        case nodes.Heading():
            return f"{'=' * node.level}{_plain(node.title)}{'=' * node.level}"
        case nodes.Template():
            return _plain_template(node)
        case nodes.Tag():
            return _plain_tag(node)
        case _:  # comments and arguments
            return ""


def _plain_tag(node) -> str:
    tag = str(node.tag).strip().lower()
    if node.wiki_markup and tag in {"li", "dt", "dd", "hr"}:
        return str(node.wiki_markup)
    if tag == "br":
        return " "
    if tag in {"math", "chem"}:
        return FORMULA
    return _plain(node.contents) if node.contents and tag not in NOT_PROSE_TAGS else ""


def _plain_template(template) -> str:
    """Text of templates that are used within sentences; all others become empty."""
    name = str(template.name).strip().lower()
    arguments = [_plain(p.value).strip() for p in template.params if not p.showkey]
    if name in {"convert", "cvt"} and len(arguments) >= 2:
        value, unit = arguments[0], arguments[1]
        if unit in RANGES and len(arguments) >= 4:
            value, unit = f"{value}{RANGES[unit]}{arguments[2]}", arguments[3]
        return f"{value} {UNITS.get(unit, unit)}"
    if name in {"lang", "transl", "nowrap", "nobr", "sic", "quote", "smaller", "small"}:
        return arguments[-1] if arguments else ""
    if name in {"nihongo", "angbr", "vanchor", "as of"} and arguments:
        return f"As of {arguments[0]}" if name == "as of" else arguments[0]
    if name in {"chem", "chem2", "math", "mvar", "nuclide", "simplenuclide2", "frac", "val"}:
        return FORMULA
    return {"spaced ndash": " – ", "snd": " – ", "ndash": "–", "mdash": "—", "'s": "'s"}.get(
        name, " " if name in {"nbsp", "spaces"} else ""
    )
