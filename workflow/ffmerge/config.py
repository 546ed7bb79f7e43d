"""The configuration: typed, validated before any job starts, documented from the same classes.

`config/README.md` and `config/schema.json` are generated from this module by
`python -m ffmerge.config`; a test keeps them in step. Light on purpose: Snakemake imports it at
every start, so no torch here.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ffmerge.digest import sha256_of

METHODS = ("permute", "vanilla")
Method = Literal["permute", "vanilla"]
Anchor = Literal["first", "middle", "last"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Positive = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    """A part of the configuration: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFile(Strict):
    """One split of a data set."""

    path: str = Field(
        description="Parquet file or directory, from the top of this repository; with "
        "`repository`: pattern of Parquet files in it; with `url`: member of the archive, without "
        "the suffix that names the side; with `devkit`: tar file of images"
    )
    sha256: Sha256 | None = Field(None, description="digest of what is there")
    n_tokens: Positive | None = Field(
        None, description="positions the split holds; bounds `features.n_tokens` before any job"
    )


class Dataset(Strict):
    """Real data of a task: Parquet that is here or on a hub, or an archive that is made into it."""

    repository: str | None = Field(None, description="hub repository the splits are fetched from")
    revision: Commit | None = Field(None, description="40-hex commit of that repository")
    url: str | None = Field(
        None, description="tar of line-aligned text (`train.src.gz`, `train.trg.gz`, …)"
    )
    sha256: Sha256 | None = Field(
        None, description="digest of that tar; unset: the digest that was found is in the record"
    )
    sides: dict[str, str] | None = Field(
        None, description="of that tar: suffix of a side -> column, such as `src: en`"
    )
    devkit: str | None = Field(
        None, description="ILSVRC2012_devkit_t12.tar.gz, where the splits are ILSVRC 2012 tar files"
    )
    train: DataFile = Field(description="for recovery fine-tuning")
    validation: DataFile = Field(description="for features, window scores and model selection")
    test: DataFile = Field(description="for the reported score")

    @model_validator(mode="after")
    def _has_one_source(self) -> "Dataset":
        named = [key for key in ("repository", "url", "devkit") if getattr(self, key)]
        if len(named) > 1:
            raise ValueError(f"{', '.join(named)}: only one of them can say where the data are")
        if bool(self.repository) != bool(self.revision):
            raise ValueError("repository, revision: a hub repository needs a 40-hex commit")
        if bool(self.url) != bool(self.sides):
            raise ValueError("url, sides: an archive of text needs the columns of its two sides")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: {self.url} does not begin with http:// or https://")
        if self.sha256 and not self.url:
            raise ValueError("sha256: is the archive's at `url`; a split has its own")
        return self


class Training(Strict):
    """How a model is trained: recovery fine-tuning, or a base model from scratch."""

    learning_rate: float = Field(gt=0, description="peak learning rate")
    schedule: Literal["inverse_sqrt", "linear_to_minimum", "cosine", "constant"] = Field(
        description="of the learning rate, see ffmerge.schedules"
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    timescale: Positive = Field(10_000, description="of inverse_sqrt, in steps")
    decay_steps: Positive | None = Field(None, description="of linear_to_minimum, and of cosine")
    minimum_learning_rate: float = Field(0.0, ge=0, description="of linear_to_minimum and cosine")
    batch_size: Positive = Field(description="examples an optimizer step, over all devices")
    max_steps: Positive = Field(description="optimizer steps")
    evaluate_every: Positive = Field(description="steps between validation scores")
    precision: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="mixed precision")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    adam_epsilon: float = Field(1e-6, gt=0, description="of AdamW")
    adam_beta2: float = Field(0.999, gt=0, lt=1, description="of AdamW")
    group_by_length: bool = Field(
        False, description="batches of sentences of about the same length (translation only)"
    )
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")

    @model_validator(mode="after")
    def _schedule_is_complete(self) -> "Training":
        if self.schedule == "linear_to_minimum" and self.decay_steps is None:
            raise ValueError("decay_steps: needed by the schedule linear_to_minimum")
        if self.minimum_learning_rate > self.learning_rate:
            raise ValueError(
                f"minimum_learning_rate: {self.minimum_learning_rate} is above "
                f"learning_rate {self.learning_rate}"
            )
        return self


class TrainedFromScratch(Strict):
    """How an embedded base model was made."""

    train: DataFile | None = Field(
        None, description="what it is trained on, where that is more than the shipped train split"
    )
    architecture: dict[str, str | int | float | bool | list[str]] = Field(
        description="keys of the transformers configuration class; `model_type` names it"
    )
    vocabulary: Positive | None = Field(None, description="tokens of the BPE trained on the data")
    training: Training = Field(description="the recipe")


class BaseModelSource(Strict):
    """The model that is compressed."""

    n_layers: Positive = Field(description="layers a tower; checked against the model on loading")
    path: str | None = Field(None, description="directory with config, tokenizer and safetensors")
    sha256: Sha256 | None = Field(None, description="digest of model.safetensors in that directory")
    repository: str | None = Field(None, description="hub repository it is fetched from")
    revision: Commit | None = Field(None, description="40-hex commit of that repository")
    from_scratch: TrainedFromScratch | None = Field(
        None, description="how the model at `path` was trained; without a path it is trained anew"
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> "BaseModelSource":
        if self.path and self.repository:
            raise ValueError("path, repository: only one of the two says where the model is")
        if not (self.path or self.repository or self.from_scratch):
            raise ValueError("path, repository, from_scratch: one says where the model comes from")
        if bool(self.repository) != bool(self.revision):
            raise ValueError("repository, revision: a hub repository needs a 40-hex commit")
        return self


class Features(Strict):
    """Section 3.3: exemplar features, from the validation split."""

    n_tokens: Positive = Field(10_000, description="positions (tokens or patches) a tower")
    batch_size: Positive = Field(description="examples a forward pass")


class WindowSizes(Strict):
    """Section 5.1: k, the FF sublayers merged into one, for each ratio of Table 5."""

    third: int = Field(gt=1, description="k that removes 1/3 of the FF sublayers")
    half: int = Field(gt=1, description="k that removes 1/2")
    all: int = Field(gt=1, description="k that removes (n-1)/n")

    @model_validator(mode="after")
    def _grow(self) -> "WindowSizes":
        if not self.third < self.half < self.all:
            raise ValueError(f"third < half < all has to hold, but they are {self.sizes()}")
        return self

    def sizes(self) -> list[int]:
        """k of the three ratios, in the order of Table 5."""
        return [self.third, self.half, self.all]


class Merge(Strict):
    """What is merged, and how."""

    k: WindowSizes
    methods: list[Method] = Field(list(METHODS), min_length=1, description="merging methods")
    anchor: Anchor = Field("first", description="of a window: the sublayer others align to")


class Windows(Strict):
    """Section 3.4: the sliding-window search."""

    jobs: Positive = Field(1, description="jobs over which a task's candidates are spread")
    starts: Literal["full", "printed"] = Field(
        "full",
        description="full: starts 0 … N-k; printed: the paper's 0 … (N-1)-k, which leaves out the "
        "last (and, for k = N, every) start: then the full range is used. Both winners are kept",
    )


class TaskBase(Strict):
    """One model with its data: what one block of rows in Table 5 needs."""

    label: str = Field(description="name in tables and figures")
    base_model: BaseModelSource
    fine_tune_base: bool = Field(
        False, description="whether the uncompressed baseline is fine-tuned too (Section 4.1)"
    )
    dataset: Dataset
    features: Features
    merge: Merge
    windows: Windows = Windows()
    fine_tuning: Training

    @model_validator(mode="after")
    def _fits_the_model(self) -> "TaskBase":
        for ratio, k in self.merge.k:
            if k > self.base_model.n_layers:
                raise ValueError(
                    f"merge.k.{ratio}: {k} is more than the model's {self.base_model.n_layers} "
                    f"layers; allowed are 2 to {self.base_model.n_layers}"
                )
        held = self.dataset.validation.n_tokens
        if held is not None and self.features.n_tokens > held:
            raise ValueError(
                f"features.n_tokens: {self.features.n_tokens} is more than the validation split "
                f"holds; allowed are 1 to {held}"
            )
        return self


class PerplexityEvaluation(Strict):
    """Perplexity with a sliding window."""

    context: Positive = Field(description="tokens a forward pass sees")
    stride: Positive = Field(
        description="tokens between two windows, below `context`; only the new ones count"
    )
    average: Literal["tokens", "windows"] = Field(
        "windows", description="mean of the loss over tokens, or of window means over windows"
    )
    batch_size: Positive = Field(description="windows a forward pass")
    max_tokens: Positive | None = Field(None, description="of the split; unset: all")

    @model_validator(mode="after")
    def _covers_every_token(self) -> "PerplexityEvaluation":
        if self.stride >= self.context:
            raise ValueError(
                f"stride: {self.stride} leaves the first token of a window without context; "
                f"allowed are 1 to context - 1 = {self.context - 1}"
            )
        return self


class AccuracyEvaluation(Strict):
    """Top-1 accuracy."""

    batch_size: Positive = Field(description="images a forward pass")
    max_examples: Positive | None = Field(None, description="of the split; unset: all")


class BleuEvaluation(Strict):
    """sacreBLEU of beam-search translations."""

    num_beams: Positive = Field(description="beam width; 1 is greedy")
    max_length: Positive = Field(description="tokens generated at most")
    batch_size: Positive = Field(description="sentences a forward pass")
    max_examples: Positive | None = Field(None, description="of the split; unset: all")


class LanguageModeling(TaskBase):
    """A causal language model, scored by perplexity."""

    kind: Literal["language_modeling"]
    context: Positive = Field(description="tokens a packed training example holds")
    validation: PerplexityEvaluation = Field(description="for windows and model selection")
    test: PerplexityEvaluation = Field(description="for the reported score")


class ImageClassification(TaskBase):
    """An image classifier, scored by top-1 accuracy."""

    kind: Literal["image_classification"]
    validation: AccuracyEvaluation = Field(description="for windows and model selection")
    test: AccuracyEvaluation = Field(description="for the reported score")


class Translation(TaskBase):
    """An encoder-decoder translator, scored by BLEU; a window is merged on both sides."""

    kind: Literal["translation"]
    source: str = Field(description="column of the source sentence")
    target: str = Field(description="column of the reference translation")
    max_tokens: Positive = Field(128, description="source and target are cut at this length")
    validation: BleuEvaluation = Field(description="for windows and model selection")
    test: BleuEvaluation = Field(description="for the reported score")

    @model_validator(mode="after")
    def _columns_are_there(self) -> "Translation":
        sides = self.dataset.sides
        if sides is not None and {self.source, self.target} - set(sides.values()):
            raise ValueError(
                f"source, target: {self.source} and {self.target} have to be columns of "
                f"dataset.sides, which are {', '.join(sides.values())}"
            )
        return self


Task = Annotated[LanguageModeling | ImageClassification | Translation, Field(discriminator="kind")]


class Intervals(Strict):
    """Bootstrap confidence intervals over per-example scores."""

    resamples: Positive = Field(1000, description="bootstrap resamples")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the interval")


class Config(Strict):
    """One run of the whole DAG."""

    results: str = Field(description="directory of everything that is computed")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where models run")
    seed: int = Field(0, ge=0, description="of every random choice")
    intervals: Intervals = Intervals()
    tasks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Task] = Field(
        min_length=1, description="by the name their results are filed under"
    )


KINDS: dict[str, type[TaskBase]] = {
    "language_modeling": LanguageModeling,
    "image_classification": ImageClassification,
    "translation": Translation,
}
READING = ("context", "source", "target", "max_tokens")
"""Keys, where a kind of task has them, without which its data cannot be read."""


def part_of_task(parts: dict[str, Any]) -> Any:
    """A task that has only the given keys of its configuration: what one job depends on.

    parts: `kind` and keys of that kind's class. Asking the result for another key raises
    AttributeError: the job would depend on something that is not among its parameters.
    """
    kind = KINDS[parts["kind"]]
    fields = {
        key: TypeAdapter(kind.model_fields[key].annotation).validate_python(value)
        for key, value in parts.items()
    }
    return kind.model_construct(set(fields), **fields)


def validated(raw: dict[str, Any]) -> Config:
    """The configuration, checked together with the files it names.

    Raises ValueError with one line a fault: key, value, and what is allowed.
    """
    try:
        checked = Config.model_validate(raw)
    except ValidationError as error:
        raise ValueError("\n".join(_fault(fault) for fault in error.errors())) from None
    faults = [fault for name, task in checked.tasks.items() for fault in _file_faults(name, task)]
    if faults:
        raise ValueError("\n".join(faults))
    return checked


def _fault(fault: Any) -> str:
    kinds = set(KINDS)  # pydantic names the chosen member of the union in the path
    key = ".".join(str(part) for part in fault["loc"] if part not in kinds)
    message = fault["msg"].removeprefix("Value error, ")
    value = fault["input"]
    shown = f" (is {value!r})" if isinstance(value, str | int | float | bool | None) else ""
    return f"{key}: {message}{shown}" if key else message


def _file_faults(name: str, task: TaskBase) -> list[str]:
    """What is wrong with the local files of a task: missing, or not the ones that are named."""
    named = []
    if task.dataset.repository is None and task.dataset.url is None:
        for split in ("train", "validation", "test"):
            file: DataFile = getattr(task.dataset, split)
            # tar files of 145 GB are digested by their job, not at every start
            digest = file.sha256 if task.dataset.devkit is None else None
            named.append((f"tasks.{name}.dataset.{split}", file.path, digest))
    if task.base_model.path is not None:
        named.append((f"tasks.{name}.base_model", task.base_model.path, task.base_model.sha256))
    faults = []
    if task.dataset.devkit is not None and not Path(task.dataset.devkit).exists():
        faults.append(f"tasks.{name}.dataset.devkit: {task.dataset.devkit} does not exist")
    for key, path, expected in named:
        if not Path(path).exists():
            faults.append(f"{key}.path: {path} does not exist")
        elif expected is not None and (found := sha256_of(Path(path))) != expected:
            faults.append(f"{key}.sha256: {path} has {found}, allowed is {expected}")
    return faults
