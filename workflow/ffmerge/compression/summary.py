"""Results of a compression, tuning or export, printed for people and as JSON for machines."""

import math
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from ffmerge.compression.loss import or_infinite
from ffmerge.compression.select import Trial, Tried
from ffmerge.compression.settings import DROP, LOW_RANK
from ffmerge.method.groups import Group

BYTES_TRAINED = 12  # of a parameter in training: its gradient and AdamW's two moments
DONE_TO = {DROP: "dropped", LOW_RANK: "low-rank"}
"""Method -> what was done to layers that were not merged."""
NOT_FINITE = "not finite"  # in place of a loss


@dataclass(frozen=True, kw_only=True)
class Result:
    """A model that was written to `out`. `lines` of a subclass are what people read about it.

    form: one of settings.FORMS, or stock if nothing is merged. groups: of merged sublayers, or of
    dropped layers. corrections: a line on those of merged layers, if they have any.
    """

    model: str
    out: Path
    form: str
    groups: list[Group]
    corrections: str = ""
    warnings: tuple[str, ...] = ()
    record: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        groups = [group.as_json() for group in self.groups]
        plain = {"out": str(self.out), "groups": groups, "warnings": list(self.warnings)}
        return vars(self) | plain

    def __str__(self) -> str:
        head = f"{self.model} -> {self.out} ({self.form})"
        return "\n".join([head, *self.lines(), *(f"note: {each}" for each in self.warnings)])


@dataclass(frozen=True, kw_only=True)
class Scored(Result):
    """A model with its loss on held-out data, before and after.

    loss: its name. sequences: how texts became sequences, if there was a choice. seconds: by stage.
    """

    loss: str
    losses: tuple[float, float]
    n_held_out: int
    seconds: dict[str, float]
    sequences: str = ""

    def as_json(self) -> dict[str, Any]:
        values = super().as_json()
        before, after = values.pop("losses")
        return values | {"loss": {"of": self.loss, "before": before, "after": after}}

    def _spent(self) -> str:
        stages = (f"{stage} {seconds:.1f}" for stage, seconds in self.seconds.items())
        return f"seconds: {', '.join(stages)}"


@dataclass(frozen=True, kw_only=True)
class Compressed(Scored):
    """A compressed model. Pairs hold the original's value and the compressed model's.

    method: one of settings.METHODS. reconstruction: error of each group's FF outputs before fitting
    and after, if they were fitted. bytes: size of the files of weights. tried: windows with their
    losses, or what these exceed. fault: why the model cannot be used as it is, if so.
    """

    method: str
    sublayers: tuple[int, int]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    fault: str | None
    tried: Tried
    n_tokens: int
    reconstruction: list[tuple[float, float]]

    @property
    def verdict(self) -> str:
        """Whether the model can be used as it is, and what helps if it cannot."""
        if self.fault is None:
            return ""
        teacher = "" if "cross-entropy" in self.loss else f" --teacher {self.model}"
        return (
            f"NOT USABLE AS IT IS: {self.fault}. Fine-tune it before you use it (`ffmerge tune "
            f"{self.out} --data DATA{teacher} --out DIR`), or remove fewer sublayers."
        )

    def as_json(self) -> dict[str, Any]:
        values = super().as_json()
        for name in ("sublayers", "parameters", "bytes"):
            values[name] = dict(zip(("before", "after"), values[name], strict=True))
        values["tried"] = [
            {"groups": [g.as_json() for g in window], "loss": loss, "stopped": stopped}
            | ({} if math.isfinite(loss) else {"fault": NOT_FINITE})
            for window, loss, stopped in self.tried
        ]
        return values

    @classmethod
    def from_record(cls, content: dict[str, Any]) -> "Compressed":
        """The result that the record of `compress` holds. content: the whole record."""
        values = {**content["result"], "record": content["digest"]}
        loss = values.pop("loss")
        values |= {"loss": loss["of"], "losses": (loss["before"], or_infinite(loss["after"]))}
        for name in ("sublayers", "parameters", "bytes"):
            values[name] = values[name]["before"], values[name]["after"]
        values |= {
            "out": Path(values["out"]),
            "groups": [Group.from_json(entry) for entry in values["groups"]],
            "tried": [
                Trial(
                    [Group.from_json(entry) for entry in of["groups"]],
                    or_infinite(of["loss"]),
                    of["stopped"],
                )
                for of in values["tried"]
            ],
            "reconstruction": [
                (before, or_infinite(after)) for before, after in values["reconstruction"]
            ],
        }
        return cls(**values, warnings=tuple(content["warnings"]))

    def lines(self) -> list[str]:
        rows = [("", "before", "after", "")]
        distinct = "distinct " * (self.form == "expanded")  # in the file they are not shared
        names = (f"{distinct}FF sublayers", f"{distinct}parameters", "bytes on disk")
        for name, pair in zip(names, (self.sublayers, self.parameters, self.bytes), strict=True):
            rows.append((name, *(f"{n:,}" for n in pair), change(*pair)))
        rows.append(("loss", *map(loss_text, self.losses), ""))
        return [
            f"{DONE_TO.get(self.method, 'merged')}: {layers_text(self.groups)}",
            "",
            *aligned_columns(rows),
            "",
            f"loss: {self.loss}, on {self.n_held_out:,} held-out examples, before any tuning",
            *([f"sequences: {self.sequences}"] if self.sequences else []),
            *([self.corrections] if self.corrections else []),
            *fitted(self.groups, self.reconstruction),
            *(["", *_filled(self.verdict)] if self.fault else ()),
            *(["", *windows_table(self.tried, self.groups)] if self.tried else ()),
            "",
            self._spent(),
        ]


@dataclass(frozen=True, kw_only=True)
class Tuned(Scored):
    """A tuned model.

    trained: parameters that were, fewer than all if they are of adapters. bytes: of the weights.
    n_examples: trained on. curve: see `ffmerge.training.trainer.train`. teacher: the model whose
    outputs it learned; empty without one.
    """

    parameters: int
    trained: int
    bytes: int
    n_examples: int
    steps: int
    curve: list[dict[str, float]]
    teacher: str = ""

    @property
    def adapters(self) -> str:
        """A line on the adapters that were trained instead of the weights; empty if none were."""
        if self.trained == self.parameters:
            return ""
        own, all_ = (BYTES_TRAINED * n / 1e6 for n in (self.trained, self.parameters))
        return (
            f"trained: adapters of {self.trained:,} parameters, then merged; gradients and AdamW "
            f"took {own:,.1f} MB, for all weights {all_:,.1f} MB"
        )

    @property
    def kept(self) -> int:
        """The step whose weights were kept: that of the lowest loss."""
        scores = {point["step"]: point["score"] for point in self.curve if "score" in point}
        return int(min(scores, key=scores.__getitem__))

    @property
    def verdict(self) -> str:
        """What to say if the tuning was in vain."""
        before, after = self.losses
        if or_infinite(after) < or_infinite(before):
            return ""
        return (
            "TUNING DID NOT HELP: the loss on held-out examples did not fall. Try a lower "
            "--learning-rate, or more data."
        )

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"kept": self.kept}

    def lines(self) -> list[str]:
        before, after = self.losses
        return [
            f"loss: {loss_text(before)} before, {loss_text(after)} after ({self.loss}, on "
            f"{self.n_held_out:,} held-out examples)",
            f"steps: {self.steps:,} on {self.n_examples:,} examples; kept: step {self.kept:,}",
            *([f"teacher, whose outputs it learned: {self.teacher}"] if self.teacher else []),
            *([self.corrections] if self.corrections else []),
            f"distinct parameters: {self.parameters:,}; bytes on disk: {self.bytes:,}",
            *([self.adapters] if self.adapters else []),
            *([f"sequences: {self.sequences}"] if self.sequences else []),
            *_filled(self.verdict),
            self._spent(),
        ]


@dataclass(frozen=True)
class CompressedAndTuned:
    """Both steps of `ffmerge compress --tune`."""

    compressed: Compressed
    tuned: Tuned

    def as_json(self) -> dict[str, Any]:
        """Both results as plain values."""
        return {name: result.as_json() for name, result in vars(self).items()}

    def __str__(self) -> str:
        return f"{self.compressed}\n\n{self.tuned}"


@dataclass(frozen=True, kw_only=True)
class Exported(Result):
    """A merged model in another form. sublayers: computed and stored. bytes: of the weights.

    score: `metric` and `score` on the test split, if known. method: one of settings.METHODS.
    """

    sublayers: tuple[int, int]
    parameters: int
    bytes: int
    score: dict[str, Any] | None
    method: str | None

    @property
    def stored(self) -> str:
        """A line on the sublayers in the file."""
        computed, stored = self.sublayers
        return (
            f"FF sublayers stored: {computed if self.form == 'expanded' else stored} of {computed}"
        )

    @property
    def tested(self) -> str:
        """A line on the score, if there is one."""
        score = self.score
        return f"{score['metric']} on the test split: {score['score']:.4g}" if score else ""

    def as_json(self) -> dict[str, Any]:
        sublayers = dict(zip(("computed", "stored"), self.sublayers, strict=True))
        return super().as_json() | {"sublayers": sublayers}

    def lines(self) -> list[str]:
        return [
            f"{DONE_TO.get(self.method, 'merged')}: {layers_text(self.groups)}",
            stored_text(self),
            *([self.corrections] if self.corrections else []),
            f"distinct parameters: {self.parameters:,}; bytes on disk: {self.bytes:,}",
            *([self.tested] if self.tested else []),
        ]


def stored_text(result: Compressed | Exported) -> str:
    """A line on the FF sublayers in the file, in which those of the form `expanded` are whole."""
    n, distinct = result.sublayers
    stored = n if result.form == "expanded" else distinct
    return f"FF sublayers stored: {stored} of {n}"


def loss_text(loss: float | None) -> str:
    """A loss for people; None, as in a record, is one that is not finite."""
    return NOT_FINITE if or_infinite(loss) == math.inf else f"{loss:.4f}"


def fitted(groups: list[Group], errors: list[tuple[float, float]]) -> list[str]:
    """A line on each group whose shared weights were fitted. errors: before and after."""
    return [
        f"fitted {layers_text([group])}: {100 * before:.0f} % of its FF outputs were lost (squared "
        f"error), {100 * after:.0f} % after it"
        for group, (before, after) in zip(groups, errors, strict=bool(errors))
    ]


def _filled(text: str) -> list[str]:
    return wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def windows_table(tried: Tried, chosen: list[Group]) -> list[str]:
    """A table of every window with its loss, or what that exceeds; the chosen ones are marked.

    Of a greedy search, the groups after each step; the last ones are chosen.
    """
    rows = [("window", "loss", "")]
    for window, loss, stopped in tried:
        is_step = any(set(window) < set(other) for other, *_ in tried)
        mark = "chosen" if all(group in chosen for group in window) and not is_step else ""
        rows.append((layers_text(window), f"{'> ' * stopped}{loss_text(loss)}", mark))
    lines = aligned_columns(rows)
    if any(trial.stopped for trial in tried):
        lines.append("> x: given up; its loss is at least x, and that of another one is lower")
    return lines


def aligned_columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def layers_text(groups: list[Group]) -> str:
    """Groups as text: `encoder 3-7; decoder 2-4, 8-10`; layers that are not adjacent: `1+4+7`."""
    of_tower: dict[str, list[str]] = {}
    for group in groups:
        first, last = group.layers[0], group.layers[-1]
        adjacent = last - first + 1 == len(group.layers)
        span = f"{first}-{last}" if first < last else str(first)
        layers = span if adjacent else "+".join(map(str, group.layers))
        of_tower.setdefault(group.tower, []).append(layers)
    return "; ".join(f"{tower} {', '.join(layers)}" for tower, layers in of_tower.items())


def change(before: int, after: int) -> str:
    """The change of a size in percent."""
    return f"{100 * (after - before) / before:+.1f} %"
