"""The model card (README.md) of a merged or tuned model: its origin, and how to load it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ffmerge.compression.record import Lineage
from ffmerge.compression.settings import DROP, LOW_RANK
from ffmerge.compression.source import SourceModel
from ffmerge.compression.summary import (
    DONE_TO,
    Compressed,
    Exported,
    Tuned,
    fitted,
    layers_text,
    windows_table,
)

DONE = {"permute": "aligned, averaged", "vanilla": "averaged without aligning them"}
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


def card(result: Compressed, source: SourceModel, digests: dict[str, str], model_class: str) -> str:
    """Write the text of a compressed model's card.

    digests: the original's files, name -> sha256. model_class: in transformers.
    """
    licence = _licence(source.directory)
    revision = f"revision `{source.revision}`" if source.revision else "files with these sha256:"
    facts = [
        f"- original: `{source.name}` ({model_class}), {revision}",
        *_digests(digests),
        *_groups(result, result.method),
        *(f"- {line}" for line in fitted(result.groups, result.reconstruction)),
        f"- FF sublayers stored: {result.sublayers[1]} of {result.sublayers[0]}",
        f"- parameters: {result.parameters[1]:,} of {result.parameters[0]:,}",
        _losses("compress", result.loss, *result.losses, result.n_held_out),
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


def tuned_card(
    result: Tuned, lineage: Lineage, original: Path, digests: dict[str, str], model_class: str
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
        *([f"- {result.adapters}"] if result.trained != result.parameters else []),
        _losses("tune", result.loss, *result.losses, result.n_held_out),
    ]
    lineage = replace(lineage, tuned=True, base_model=lineage.base_model or original)
    return _text_of_step("tuned", result, facts, lineage, digests, model_class)


def export_card(
    result: Exported, lineage: Lineage, digests: dict[str, str], model_class: str
) -> str:
    """Write the text of an exported model's card.

    digests: the merged model's files, name -> sha256. model_class: in transformers.
    """
    computed, stored = result.sublayers
    facts = [
        *_groups(result, lineage.method),
        f"- FF sublayers stored: {computed if result.form == 'expanded' else stored} of {computed}",
        f"- distinct parameters: {result.parameters:,}",
        *(_losses(**losses) for losses in lineage.losses),
    ]
    if lineage.score:
        facts.append(f"- {lineage.score['metric']} on the test split: {lineage.score['score']:.4g}")
    return _text_of_step("exported", result, facts, lineage, digests, model_class)


def _text_of_step(
    done: str,
    result: Tuned | Exported,
    facts: Sequence[str],
    lineage: Lineage,
    digests: dict[str, str],
    model_class: str,
) -> str:
    """The card of a model that was made from a merged one. done: tuned or exported."""
    repository, revision = lineage.origin.get("repository"), lineage.origin.get("revision")
    name = repository or (lineage.base_model or Path(result.model)).name
    if repository:
        origin = f"`{repository}`, revision `{revision}`"
    elif lineage.base_model:
        origin = f"`{name}`, by the records below"
    else:
        origin = "named by the records below" if lineage.records else "not recorded"
    licence = _licence(lineage.base_model) if lineage.base_model else None
    facts = [
        f"- original: {origin} ({model_class})",
        f"- {done} from: `{result.model}`, files with these sha256:",
        *_digests(digests),
        *facts,
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
    result: Compressed | Exported | Tuned,
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
    metadata: dict[str, Any] = {"library_name": "transformers", "tags": ["ffmerge"]}
    if result.groups or method == DROP:
        metadata["tags"].append("compressed")
    if repository:
        metadata["base_model"] = repository
    if licence:
        metadata["license"] = licence
    title, intro = f"{name}, tuned", "A Transformer that was fine-tuned (by `ffmerge`)."
    after = {True: " It was tuned afterwards.", False: " It was not tuned afterwards."}
    if method == DROP:
        title = f"{name}, with fewer layers"
        intro = (
            f"Layers of a trained Transformer were dropped (by `ffmerge`).{after.get(tuned, '')}"
        )
    elif method == LOW_RANK:
        title = f"{name}, with low-rank feed-forward sublayers"
        intro = (
            "The linear maps of a trained Transformer's feed-forward sublayers were replaced by "
            f"products of two smaller ones (by `ffmerge`).{after.get(tuned, '')}"
        )
    elif result.groups:
        title = f"{name}, with fewer feed-forward sublayers"
        intro = (
            f"Feed-forward sublayers of a trained Transformer were {DONE.get(method, 'averaged')} "
            "and tied into one set of weights, as in "
            '"Merging Feed-Forward Sublayers for Compressed Transformers" (by `ffmerge`).'
            f"{after.get(tuned, '')}"
        )
    verdict = getattr(result, "verdict", "")
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {title}",
        "",
        intro,
        "",
        *([f"**{verdict}**", ""] if verdict else ()),
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


def _losses(step: str, of: str, before: float, after: float, n_held_out: int) -> str:
    return (
        f"- {of}: {before:.4f} before, {after:.4f} after `{step}`, on {n_held_out:,} held-out "
        "examples of its data"
    )


def _groups(result: Compressed | Exported | Tuned, method: str | None) -> list[str]:
    """The merged layers, their corrections and, if they were aligned, the anchor of each group."""
    groups = result.groups
    if not groups:
        return []
    lines = [f"- {DONE_TO.get(method, 'merged')} layers: {layers_text(groups)}"]
    if method == "permute":
        lines += [
            f"  - {g.tower} {layers_text([g]).split(' ', 1)[1]}, aligned to layer {g.anchor}"
            for g in groups
        ]
    return [*lines, *([f"- {result.corrections}"] if result.corrections else [])]


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
