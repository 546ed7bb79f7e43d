"""The model card (README.md) of a merged or tuned model: its origin, and how to load it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import metadata_load

from ffmerge.compression import summary
from ffmerge.compression.record import Lineage
from ffmerge.compression.settings import DROP, LOW_RANK
from ffmerge.compression.source import SourceModel

DONE = {"permute": "aligned, averaged", "vanilla": "averaged without aligning them"}
TUNED = {True: " It was tuned afterwards.", False: " It was not tuned afterwards.", None: ""}
LOADING = {
    "tied": """import ffmerge

model = ffmerge.load("PATH")  # or, after `import ffmerge.auto`, by transformers' Auto classes""",
    "code": """from transformers import AutoModel  # or AutoModelFor…, as for the original

model = AutoModel.from_pretrained("PATH", trust_remote_code=True)""",
    "expanded": """from transformers import CLASS

model = CLASS.from_pretrained("PATH")  # of full size: merged sublayers are stored once a layer""",
    "stock": """from transformers import CLASS

model = CLASS.from_pretrained("PATH")""",
}


def card(
    result: summary.Compressed, source: SourceModel, digests: dict[str, str], model_class: str
) -> str:
    """Write the text of a compressed model's card.

    digests: the original's files, name -> sha256. model_class: in transformers.
    """
    revision = f"revision `{source.revision}`" if source.revision else "files with these sha256:"
    facts = [
        f"- original: `{source.name}` ({model_class}), {revision}",
        *_digests(digests),
        *_groups(result, result.method),
        *(f"- {line}" for line in summary.fitted(result.groups, result.reconstruction)),
        f"- {summary.stored_text(result)}",
        f"- distinct parameters: {result.parameters[1]:,} of {result.parameters[0]:,}",
        _losses("compress", result.loss, *result.losses, result.n_held_out),
    ]
    tried = []
    if result.tried:
        table = summary.windows_table(result.tried, result.groups)
        tried = ["", "Windows that were tried:", "", "```text", *table, "```"]
    origin = {"repository": source.name} if source.revision else {}
    lineage = Lineage({}, source.directory, origin, result.method, tuned=False)
    return _text(result, facts, lineage, model_class, source.name, tried)


def tuned_card(
    result: summary.Tuned,
    lineage: Lineage,
    original: Path,
    digests: dict[str, str],
    model_class: str,
) -> str:
    """Write the text of a tuned model's card.

    lineage, original, digests: of the model that was tuned: its origin, its directory, and its
    files, name -> sha256. model_class: in transformers.
    """
    n_evaluated = sum("score" in point for point in result.curve)
    facts = [
        *_groups(result, lineage.method),
        f"- distinct parameters: {result.parameters:,}",
        *(_losses(**losses) for losses in lineage.losses),
        f"- tuned for {result.steps:,} steps on {result.n_examples:,} examples; the weights are "
        f"those of step {result.kept:,}, the best of {n_evaluated} evaluations",
        *([f"- teacher, whose outputs it learned: `{result.teacher}`"] if result.teacher else []),
        *([f"- {result.adapters}"] if result.adapters else []),
        _losses("tune", result.loss, *result.losses, result.n_held_out),
    ]
    lineage = replace(lineage, tuned=True, base_model=lineage.base_model or original)
    return _text_of_step("tuned", result, facts, lineage, digests, model_class)


def export_card(
    result: summary.Exported, lineage: Lineage, digests: dict[str, str], model_class: str
) -> str:
    """Write the text of an exported model's card.

    digests: the merged model's files, name -> sha256. model_class: in transformers.
    """
    facts = [
        *_groups(result, lineage.method),
        f"- {summary.stored_text(result)}",
        f"- distinct parameters: {result.parameters:,}",
        *(_losses(**losses) for losses in lineage.losses),
        *([f"- {result.tested}"] if result.tested else []),
    ]
    return _text_of_step("exported", result, facts, lineage, digests, model_class)


def _text_of_step(
    done: str,
    result: summary.Tuned | summary.Exported,
    facts: list[str],
    lineage: Lineage,
    digests: dict[str, str],
    model_class: str,
) -> str:
    """The card of a model that was made from a merged one. done: tuned or exported."""
    repository, revision = lineage.origin.get("repository"), lineage.origin.get("revision")
    name = repository or Path(lineage.name or result.model).absolute().name
    if repository:
        origin = f"`{repository}`, revision `{revision}`"
    elif lineage.name:
        origin = f"`{lineage.name}`" + (", by the records below" if lineage.records else "")
    else:
        origin = "named by the records below" if lineage.records else "not recorded"
    made = [
        f"- original: {origin} ({model_class})",
        f"- {done} from: `{result.model}`, files with these sha256:",
        *_digests(digests),
    ]
    records = [f"  - of `{step}`: digest `{digest}`" for step, digest in lineage.records.items()]
    return _text(result, made + facts, lineage, model_class, name, records)


def _text(
    result: summary.Result,
    facts: list[str],
    lineage: Lineage,
    model_class: str,
    name: str,
    after: list[str],
) -> str:
    """The whole card. name: the original's. after: lines below that of the record."""
    method, repository = lineage.method, lineage.origin.get("repository")
    licence = _licence(lineage.base_model) if lineage.base_model else None
    metadata: dict[str, Any] = {"library_name": "transformers", "tags": ["ffmerge"]}
    if result.groups or method == DROP:
        metadata["tags"].append("compressed")
    if repository:
        metadata["base_model"] = repository
    if licence:
        metadata["license"] = licence
    if method == DROP:
        what = "with fewer layers"
        intro = "Layers of a trained Transformer were dropped (by `ffmerge`)."
    elif method == LOW_RANK:
        what = "with low-rank feed-forward sublayers"
        intro = (
            "The linear maps of a trained Transformer's feed-forward sublayers were replaced by "
            "products of two smaller ones (by `ffmerge`)."
        )
    elif result.groups:
        what = "with fewer feed-forward sublayers"
        intro = (
            f"Feed-forward sublayers of a trained Transformer were {DONE.get(method, 'averaged')} "
            "and tied into one set of weights, as in "
            '"Merging Feed-Forward Sublayers for Compressed Transformers" (by `ffmerge`).'
        )
    else:
        what, intro = "tuned", "A Transformer that was fine-tuned (by `ffmerge`)."
    if what != "tuned":
        intro += TUNED[lineage.tuned]
    verdict = getattr(result, "verdict", "")
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {name}, {what}",
        "",
        intro,
        "",
        *([f"**{verdict}**", ""] if verdict else ()),
        *facts,
        f"- licence of the original: {licence or 'not stated in its files'}",
        f"- record: `ffmerge_record.json`, digest `{result.record}`",
        *after,
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


def _losses(step: str, of: str, before: float | None, after: float | None, n_held_out: int) -> str:
    losses = f"{summary.loss_text(before)} before, {summary.loss_text(after)} after `{step}`"
    return f"- {of}: {losses}, on {n_held_out:,} held-out examples of its data"


def _groups(result: summary.Result, method: str | None) -> list[str]:
    """The merged layers, their corrections and, if they were aligned, the anchor of each group."""
    groups = result.groups
    if not groups:
        return []
    lines = [f"- {summary.DONE_TO.get(method, 'merged')} layers: {summary.layers_text(groups)}"]
    if method == "permute":
        lines += [
            f"  - {summary.layers_text([group])}, aligned to layer {group.anchor}"
            for group in groups
        ]
    return [*lines, *([f"- {result.corrections}"] if result.corrections else [])]


def _licence(original: Path) -> str | None:
    """The licence in the card of the original model."""
    try:
        return (metadata_load(original / "README.md") or {}).get("license")
    except (OSError, ValueError, yaml.YAMLError):  # there is no card, or its head is not YAML
        return None
