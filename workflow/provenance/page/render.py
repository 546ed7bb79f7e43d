"""The data of a report page, put into its template; the result is one file that needs no other."""

import json
from pathlib import Path
from typing import Any

import jinja2
import yaml

TEMPLATES = Path("workflow/report/page")


def captions(root: Path = Path()) -> dict[str, Any]:
    """Title and text of every table and figure."""
    return yaml.safe_load((root / TEMPLATES / "captions.yaml").read_text(encoding="utf-8"))


def render(page: dict[str, Any], root: Path = Path()) -> str:
    """The page of `gather`'s data, as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root / TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "size": size, "when": when}
    lineage = json.dumps(page["lineage"], ensure_ascii=False, separators=(",", ":"))
    template = environment.get_template("page.html.jinja")
    whole = template.render(
        page,
        style=(root / TEMPLATES / "page.css").read_text(encoding="utf-8"),
        program=(root / TEMPLATES / "page.js").read_text(encoding="utf-8"),
        data=lineage.replace("<", "\\u003c"),  # so that no text in it ends the script
    )
    return whole.lstrip()  # what the macros at its top leave


def duration(seconds: float) -> str:
    """A time as a person says it: `8.2 s`, `4 min 10 s`, `3 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(n_bytes: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{n_bytes:.1f} {unit}"


def when(moment: str | None) -> str:
    """A time in UTC to the minute: `2026-11-25 04:50`."""
    return (moment or "")[:16].replace("T", " ")
