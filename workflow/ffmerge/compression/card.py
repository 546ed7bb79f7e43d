"""The model card (README.md) of a merged model: its origin, its layers and how to load it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ffmerge.compression.record import Lineage
from ffmerge.compression.source import SourceModel
from ffmerge.compression.summary import Compressed, Exported, layers_text, windows_table
from ffmerge.method.groups import Group

DONE = {"permute": "aligned, averaged", "vanilla": "averaged without aligning them"}
LOADING = {
    "tied": """import ffmerge

model = ffmerge.load("PATH")  # or, after `import ffmerge.auto`, by transformers' Auto classes""",
    "code": """from transformers import AutoModel  # or AutoModelFor…, as for the original

model = AutoModel.from_pretrained("PATH", trust_remote_code=True)""",
    "expanded": """from transformers import CLASS

model = CLASS.from_pretrained("PATH")  # of full size: merged sublayers are stored once a layer""",
}


def card(result: Compressed, source: SourceModel, digests: dict[str, str], model_class: str) -> str:
    """Write the text of a compressed model's card.

    digests: the original's files, name -> sha256. model_class: in transformers.
    """
    licence = _licence(source.directory)
    revision = f"revision `{source.revision}`" if source.revision else "files with these sha256:"
    facts = [
        f"- original: `{source.name}` ({model_class}), {revision}",
        *_digests(digests),
        f"- merged layers: {layers_text(result.groups)}",
        *(_anchors(result.groups) if result.method == "permute" else ()),
        f"- FF sublayers stored: {result.sublayers[1]} of {result.sublayers[0]}",
        f"- parameters: {result.parameters[1]:,} of {result.parameters[0]:,}",
        f"- {result.loss}: {result.losses[0]:.4f} before, {result.losses[1]:.4f} after, on "
        f"{result.n_held_out:,} held-out examples",
        f"- licence of the original: {licence or 'not stated in its files'}",
        f"- record: `ffmerge_record.json`, digest `{result.record}`",
    ]
    if result.tried:
        facts += ["", "Windows that were tried:", "", "```text"]
        facts += [*windows_table(result.tried, result.groups), "```"]
    return _text(
        result,
        facts,
        model_class,
        name=source.name,
        repository=source.name if source.revision else None,
        licence=licence,
        method=result.method,
        tuned=False,
    )


def export_card(
    result: Exported, lineage: Lineage, digests: dict[str, str], model_class: str
) -> str:
    """Write the text of an exported model's card.

    digests: the merged model's files, name -> sha256. model_class: in transformers.
    """
    repository, revision = lineage.origin.get("repository"), lineage.origin.get("revision")
    name = repository or (lineage.base_model or Path(result.model)).name
    if repository:
        origin = f"`{repository}`, revision `{revision}`"
    elif lineage.base_model:
        origin = f"`{name}`, by the records below"
    else:
        origin = "named by the records below" if lineage.records else "not recorded"
    licence = _licence(lineage.base_model) if lineage.base_model else None
    computed, stored = result.sublayers
    facts = [
        f"- original: {origin} ({model_class})",
        f"- exported from: `{result.model}`, files with these sha256:",
        *_digests(digests),
        f"- merged layers: {layers_text(result.groups)}",
        *(_anchors(result.groups) if lineage.method == "permute" else ()),
        f"- FF sublayers stored: {computed if result.form == 'expanded' else stored} of {computed}",
        f"- distinct parameters: {result.parameters:,}",
    ]
    if lineage.score:
        facts.append(f"- {lineage.score['metric']} on the test split: {lineage.score['score']:.4g}")
    facts += [
        f"- licence of the original: {licence or 'not stated in its files'}",
        f"- record: `ffmerge_record.json`, digest `{result.record}`",
        *(f"  - of `{step}`: digest `{digest}`" for step, digest in lineage.records.items()),
    ]
    return _text(
        result,
        facts,
        model_class,
        name=name,
        repository=repository,
        licence=licence,
        method=lineage.method,
        tuned=lineage.tuned,
    )


def _text(
    result: Compressed | Exported,
    facts: Sequence[str],
    model_class: str,
    *,
    name: str,
    repository: str | None,
    licence: str | None,
    method: str | None,
    tuned: bool | None,
) -> str:
    """The whole card. name, repository (on a hub), licence: the original's."""
    metadata: dict[str, Any] = {"library_name": "transformers", "tags": ["ffmerge", "compressed"]}
    if repository:
        metadata["base_model"] = repository
    if licence:
        metadata["license"] = licence
    after = {True: " It was tuned afterwards.", False: " It was not tuned afterwards.", None: ""}
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {name}, with fewer feed-forward sublayers",
        "",
        f"Feed-forward sublayers of a trained Transformer were {DONE.get(method, 'averaged')} and "
        "tied into one set of weights, as in "
        '"Merging Feed-Forward Sublayers for Compressed Transformers" (by `ffmerge`).'
        f"{after[tuned]}",
        "",
        *facts,
        "",
        "To load it:",
        "",
        "```python",
        LOADING[result.form].replace("PATH", str(result.out)).replace("CLASS", model_class),
        "```",
    ]
    return "\n".join([*lines, ""])


def _digests(digests: dict[str, str]) -> list[str]:
    return [f"  - `{name}` `{digest}`" for name, digest in digests.items()]


def _anchors(groups: Sequence[Group]) -> list[str]:
    """The anchor of each group."""
    return [
        f"  - {g.tower} {layers_text([g]).split(' ', 1)[1]}, aligned to layer {g.anchor}"
        for g in groups
    ]


def _licence(original: Path) -> str | None:
    """The licence in the card of the original model."""
    file = original / "README.md"
    if not file.exists():
        return None
    text = file.read_text(errors="replace")
    if not text.startswith("---\n"):
        return None
    try:
        metadata = yaml.safe_load(text.removeprefix("---\n").partition("\n---")[0])
        return metadata.get("license")
    except (yaml.YAMLError, AttributeError):
        return None
