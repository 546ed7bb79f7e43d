"""Add to a collection what a reader of the paper needs first: a README, and what each column is."""

import re
from collections.abc import Iterator
from pathlib import Path

import jinja2

from provenance.collect.collection import Collection
from provenance.collect.crate import CITATION
from provenance.csv_files import read_csv, write_csv
from provenance.digest import sha256_of
from provenance.hashing import omitted_files
from provenance.numbers import Ledger, numbers_of
from provenance.project import PROJECT
from provenance.records import Mapped, Maybe, a_source_file, read_checked
from provenance.seal import SEAL

README, MOVED, DICTIONARY = "README.md", "README-workflow.md", "data-dictionary.csv"
NUMERAL, ROW = r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", r"/\d+(?=/|$)"
COLUMNS = (
    *("file", "title", "column", "means", "holds", "example"),
    *("shown_as", "derived_as", "read_from"),
)


def add_paper_parts(chosen: Collection, folder: Path) -> dict[str, str]:
    """Write the README and the data dictionary. Return path -> sha256 of what is new.

    The repository's README takes another name beside it, so that its links still lead somewhere.
    """
    if (folder / README).exists():
        (folder / README).rename(folder / MOVED)
    write_csv(data_dictionary(chosen, folder), folder / DICTIONARY, COLUMNS)
    (folder / README).write_text(_readme(chosen, folder), encoding="utf-8")
    names = (name for name in (README, MOVED, DICTIONARY) if (folder / name).exists())
    return {name: sha256_of(folder / name) for name in names}


def data_dictionary(chosen: Collection, folder: Path) -> list[dict[str, str]]:
    """Describe each column of each table of a collection.

    The ledgers say where the numbers are from; the workflow's captions and columns.yaml the rest.
    """
    of_figure = Mapped({"title": Maybe(str)})
    captions = read_checked(folder / PROJECT.page_template / "captions.yaml", of_figure)
    meanings = read_checked(folder / PROJECT.columns, Mapped(str))
    return [
        {
            "file": path,
            "title": captions.get(ledger.name, {}).get("title", ""),
            "means": meanings.get(column["column"], ""),
            **column,
        }
        for ledger in chosen.ledgers
        for path in ledger.about
        if path.endswith(".csv") and a_source_file(path) and (folder / path).is_file()
        for column in _columns(ledger, path, folder)
    ]


def _columns(ledger: Ledger, path: str, folder: Path) -> Iterator[dict[str, str]]:
    table = ledger.content["about"].get("table", {}).get("path")
    rows = read_csv(folder / path)
    for name in rows[0] if rows else ():
        every = ledger.content["cells"] if path == table else ()
        cells = [cell for cell in every if cell["column"] == name]
        texts = [row[name] for row in rows if row[name]]
        sources = [source for cell in cells for source in cell["sources"]]
        listed = {
            "shown_as": [cell["rule"] for cell in cells],
            "derived_as": [cell["derivation"] for cell in cells],
            "read_from": [  # without the numbers of rows: `/*/score`
                f"{Path(each['file']).name} {re.sub(ROW, '/*', each['pointer'])}".strip()
                for each in sources
            ],
        }
        numeric = cells or all(re.fullmatch(NUMERAL, text, re.IGNORECASE) for text in texts)
        yield {
            "column": name,
            "holds": "numbers" if numeric else "text",
            "example": texts[0] if texts else "",
            **{key: "; ".join(dict.fromkeys(words)) for key, words in listed.items()},
        }


def _readme(chosen: Collection, folder: Path) -> str:
    cited, results = read_checked(folder / PROJECT.citation, CITATION), chosen.records.results
    parts = {name: [r.part(name) for r in chosen.ancestry] for name in ("time", "git")}
    times = [time.get(key) for time in parts["time"] for key in ("started", "ended")]
    commits = {commit for git in parts["git"] if (commit := git.get("commit"))}
    numbers = [number.id for number in numbers_of(chosen.ledgers)]
    shown = [path for ledger in chosen.ledgers for path in ledger.about]
    page = results / PROJECT.page
    environments = [record.part("environment") for record in chosen.ancestry]
    locks = {each["lock"]["path"] for each in environments if each.get("lock")}
    locks |= {str(PROJECT.image_lock) for each in environments if each.get("image")}
    template = Path(__file__).with_name("README.md.jinja").read_text(encoding="utf-8")
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return jinja2.Template(template, undefined=jinja2.StrictUndefined, **options).render(
        results=results,
        paper=(cited.get("preferred-citation") or {}).get("title"),
        n_numbers=len(numbers),
        n_shown=len(chosen.ledgers),
        n_jobs=len(chosen.ancestry),
        days=[time[:10] for time in times if time],
        page=page if (folder / page).is_file() else None,
        tables=_common(shown, ".csv"),
        figures=_common(shown, ".png"),
        locks=sorted(locks),
        seal=results / SEAL,
        n_left=len(omitted_files(folder)),
        commit=commits.pop() if len(commits) == 1 else None,
        number=next((name for name in numbers if name.startswith("table")), "NUMBER"),
        licence=cited.get("license", "see LICENSE"),
    )


def _common(paths: list[str], suffix: str) -> str | None:
    """Name the files with an ending by the folder that most are in."""
    folders = sorted(str(Path(path).parent) for path in paths if path.endswith(suffix))
    return f"{max(folders, key=folders.count)}/*{suffix}" if folders else None
