"""README.md of a compressed model: what it is made of, and how to load it."""

from typing import Any

import yaml

from ffmerge.own_model.output.summary import Compressed, told, windows_table
from ffmerge.own_model.source import Source

DONE = {"permute": "aligned, averaged", "vanilla": "averaged without aligning them"}
LOADING = {
    "tied": """import ffmerge

model = ffmerge.load("PATH")  # or, after `import ffmerge`, by transformers' Auto classes""",
    "code": """from transformers import AutoModel  # or AutoModelFor…, as for the original

model = AutoModel.from_pretrained("PATH", trust_remote_code=True)""",
    "expanded": """from transformers import CLASS

model = CLASS.from_pretrained("PATH")  # of full size: merged sublayers are stored once a layer""",
}


def card(result: Compressed, source: Source, digests: dict[str, str], model_class: str) -> str:
    """The text of a model card.

    digests: the original's files of weights, name -> sha256. model_class: in transformers.
    """
    revision = f"revision `{source.revision}`" if source.revision else "files with these sha256:"
    lines = [
        "---",
        yaml.safe_dump(_metadata(source), sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {source.name}, with fewer feed-forward sublayers",
        "",
        f"Feed-forward sublayers of a trained Transformer were {DONE[result.method]} and tied into "
        'one set of weights, as in "Merging Feed-Forward Sublayers for Compressed Transformers" '
        "(by `ffmerge`). It was not tuned afterwards.",
        "",
        f"- original: `{source.name}` ({model_class}), {revision}",
        *(f"  - `{name}` `{digest}`" for name, digest in digests.items()),
        f"- merged layers: {told(result.groups)}",
        *(
            f"  - {g.tower} {told([g]).split(' ', 1)[1]}, aligned to layer {g.anchor}"
            for g in result.groups
            if result.method == "permute"
        ),
        f"- FF sublayers stored: {result.sublayers[1]} of {result.sublayers[0]}",
        f"- parameters: {result.parameters[1]:,} of {result.parameters[0]:,}",
        f"- {result.loss}: {result.losses[0]:.4f} before, {result.losses[1]:.4f} after, on "
        f"{result.n_held_out:,} held-out examples",
        f"- licence of the original: {_licence(source) or 'not stated in its files'}",
        f"- record: `ffmerge_record.json`, digest `{result.record}`",
    ]
    if result.tried:
        lines += ["", "Windows that were tried:", "", "```text"]
        lines += [*windows_table(result.tried, result.groups), "```"]
    code = LOADING[result.form].replace("PATH", str(result.out)).replace("CLASS", model_class)
    return "\n".join([*lines, "", "To load it:", "", "```python", code, "```", ""])


def _metadata(source: Source) -> dict[str, Any]:
    metadata: dict[str, Any] = {"library_name": "transformers", "tags": ["ffmerge", "compressed"]}
    if source.revision:
        metadata["base_model"] = source.name
    if licence := _licence(source):
        metadata["license"] = licence
    return metadata


def _licence(source: Source) -> str | None:
    """What the original's own card says."""
    file = source.directory / "README.md"
    if not file.exists():
        return None
    text = file.read_text(errors="replace")
    if not text.startswith("---\n"):
        return None
    try:
        found = yaml.safe_load(text.removeprefix("---\n").partition("\n---")[0])
        return found.get("license")
    except (yaml.YAMLError, AttributeError):
        return None
