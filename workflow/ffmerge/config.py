"""The configuration: typed, validated before any job starts, documented from the same classes.

`config/README.md` and `config/schema.json` are generated from these classes and descriptions by
`python -m ffmerge.config_reference`; a test keeps them in step. Light on purpose: Snakemake imports
it at every start, so no torch here.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

METHODS = ("permute", "vanilla")
Method = Literal["permute", "vanilla"]
Anchor = Literal["first", "middle", "last"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Positive = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    """A part of the configuration: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _no_commit(repository: str | None, revision: str | None) -> str:
    are = f"(are {repository!r}, {revision!r})"
    return f"repository, revision: a hub repository needs a 40-hex commit, both or none {are}"


class DataFile(Strict):
    """One split of a data set."""

    path: str = Field(
        description="Parquet file, or directory of such, from the top of this repository. With "
        "`dataset.repository`: pattern of Parquet files in it; with `url`: file in the archive, "
        "without the suffix of its side; with `devkit`: tar file of images"
    )
    sha256: Sha256 | None = Field(
        None,
        description="digest of that file; of a directory: of what `sha256sum` prints for its files "
        "in the order of their names. What is here is compared before any job",
    )
    n_tokens: Positive | None = Field(
        None,
        description="positions (tokens or patches) in it, with which `features.n_tokens` is "
        "compared before any job; of use for `validation` alone",
    )


class Dataset(Strict):
    """Real data of a task: Parquet that is here or on a hub, or an archive that is made into it.

    With none of `repository`, `url` and `devkit`, the splits are Parquet files that are here.
    """

    repository: str | None = Field(None, description="data set on the hub, `owner/name`")
    revision: Commit | None = Field(None, description="commit of that repository; a branch moves")
    url: str | None = Field(
        None, description="where to get a tar of aligned lines (`train.src.gz`, `train.trg.gz`, …)"
    )
    sha256: Sha256 | None = Field(
        None, description="digest of that tar; without it the job's record says what came"
    )
    sides: dict[str, str] | None = Field(
        None, description="column of each suffix in that tar, such as `{src: en, trg: zh}`"
    )
    devkit: str | None = Field(
        None,
        description="path of `ILSVRC2012_devkit_t12.tar.gz`, where the splits are the tar files of "
        "ILSVRC 2012",
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
            raise ValueError(_no_commit(self.repository, self.revision))
        if bool(self.url) != bool(self.sides):
            are = f"(are {self.url!r}, {self.sides!r})"
            raise ValueError(f"url, sides: an archive of text needs the columns of its sides {are}")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: does not begin with http:// or https:// (is {self.url!r})")
        if self.sha256 and not self.url:
            raise ValueError(f"sha256: is for a url, a split has its own (is {self.sha256!r})")
        return self


class Training(Strict):
    """How a model is trained: recovery fine-tuning, or a base model from scratch."""

    learning_rate: float = Field(gt=0, description="the highest; `schedule` says how it goes on")
    schedule: Literal["inverse_sqrt", "linear_to_minimum", "cosine", "constant"] = Field(
        description="of the learning rate, after the warm-up. `inverse_sqrt`: times √(timescale / "
        "(t + timescale)) at step t (Tables 6 and 8); `linear_to_minimum`: down to the minimum, "
        "then flat (Table 7); `cosine`: half a wave down to the minimum; `constant`"
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up from 0")
    timescale: Positive = Field(10_000, description="of `inverse_sqrt`, in steps")
    decay_steps: Positive | None = Field(
        None, description="steps to the minimum; unset: `max_steps` (not for `linear_to_minimum`)"
    )
    minimum_learning_rate: float = Field(
        0.0, ge=0, description="where `linear_to_minimum` and `cosine` end"
    )
    batch_size: Positive = Field(description="examples an optimizer step, over all devices")
    devices: Positive = Field(
        1,
        description="GPUs of a job (processes, with `device: cpu`) among which the examples of a "
        "step are dealt out; it uses exactly so many. A base model is trained from scratch on 1",
    )
    max_steps: Positive = Field(description="optimizer steps in all")
    evaluate_every: Positive = Field(
        description="steps between validation scores; the weights with the best one are kept"
    )
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="`fp32`: single; `fp16`, `bf16`: mixed with that half precision"
    )
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    adam_epsilon: float = Field(1e-6, gt=0, description="ε of AdamW")
    adam_beta2: float = Field(0.999, gt=0, lt=1, description="β₂ of AdamW")
    group_by_length: bool = Field(
        False, description="batches of sentences of about the same length (translation only)"
    )
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")

    @model_validator(mode="after")
    def _batch_is_dealt_out_evenly(self) -> "Training":
        if self.batch_size % self.devices:
            needed = f"has to divide batch_size, {self.batch_size}"
            raise ValueError(f"devices: {needed} (is {self.devices})")
        return self

    @model_validator(mode="after")
    def _schedule_is_complete(self) -> "Training":
        if self.schedule == "linear_to_minimum" and self.decay_steps is None:
            needed = "has to be a whole number above 0 for schedule linear_to_minimum"
            raise ValueError(f"decay_steps: {needed} (is empty)")
        lowest, highest = self.minimum_learning_rate, self.learning_rate
        if lowest > highest:
            allowed = f"has to be at most learning_rate, {highest}"
            raise ValueError(f"minimum_learning_rate: {allowed} (is {lowest})")
        return self


class TrainedFromScratch(Strict):
    """How a base model is trained from scratch, or was, if the model itself is named too."""

    train: DataFile | None = Field(
        None, description="what it is trained on, where that is not the task's own train split"
    )
    architecture: dict[str, str | int | float | bool | list[str]] = Field(
        description="keys of the configuration class in transformers that `model_type` names"
    )
    vocabulary: Positive | None = Field(
        None, description="tokens of the byte-pair encoding that is trained on the data (text only)"
    )
    training: Training = Field(description="the settings")

    @model_validator(mode="after")
    def _is_on_one_device(self) -> "TrainedFromScratch":
        if self.training.devices != 1:
            raise ValueError(f"training.devices: has to be 1 (is {self.training.devices})")
        return self


class BaseModelSource(Strict):
    """The model that is compressed."""

    n_layers: Positive = Field(description="number of layers; in an encoder-decoder, on each side")
    path: str | None = Field(
        None, description="directory of a model that is here: weights (safetensors) and tokenizer"
    )
    sha256: Sha256 | None = Field(
        None, description="digest of that directory, made as `dataset.train.sha256` is"
    )
    repository: str | None = Field(None, description="model on the hub, `owner/name`")
    revision: Commit | None = Field(None, description="commit of that repository; a branch moves")
    from_scratch: TrainedFromScratch | None = Field(
        None, description="how the model at `path` was trained; without a path it is trained anew"
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> "BaseModelSource":
        if self.path and self.repository:
            raise ValueError("path, repository: only one of them can say where the model is")
        if not (self.path or self.repository or self.from_scratch):
            raise ValueError("path, repository, from_scratch: one says where the model comes from")
        if bool(self.repository) != bool(self.revision):
            raise ValueError(_no_commit(self.repository, self.revision))
        return self


class Features(Strict):
    """Section 3.3: exemplar features, from the validation split."""

    n_tokens: Positive = Field(10_000, description="positions (tokens or patches) for each layer")
    batch_size: Positive = Field(description="examples a forward pass")


class WindowSizes(Strict):
    """Section 5.1: k, the FF sublayers merged into one, for each ratio of Table 5."""

    third: int = Field(gt=1, description="FF sublayers in a window, so that merging it removes 1/3")
    half: int = Field(gt=1, description="the same for 1/2")
    all: int = Field(gt=1, description="the same for all but one: the number of layers")

    @model_validator(mode="after")
    def _grow(self) -> "WindowSizes":
        if not self.third < self.half < self.all:
            sizes = ", ".join(str(k) for k in self.sizes())
            raise ValueError(f"has to grow, third < half < all (is {sizes})")
        return self

    def sizes(self) -> list[int]:
        """k of the three ratios, in the order of Table 5."""
        return [self.third, self.half, self.all]


class Merge(Strict):
    """What is merged, and how."""

    k: WindowSizes = Field(description="sizes of the windows")
    methods: list[Method] = Field(
        list(METHODS),
        min_length=1,
        description="`permute`: aligned, then averaged (Section 3.2); `vanilla`: only averaged",
    )
    anchor: Anchor = Field("first", description="the sublayer of a window that others align to")


class Windows(Strict):
    """Section 3.4: the sliding-window search."""

    jobs: Positive = Field(1, description="jobs over which a task's windows are spread")
    starts: Literal["full", "printed"] = Field(
        "full",
        description="first layers of the windows among which one is selected. `full`: 0 … N-k; "
        "`printed`: 0 … (N-1)-k as in the paper, without the last one (for k = N without any: then "
        "`full`). All are scored, and the winners of both ranges kept",
    )


class LayerDrop(Strict):
    """Section 4.4: the baseline, in which whole layers are left out."""

    sixth: Positive = Field(description="adjacent layers left out, on each side, as 1/6 of them")
    third: Positive = Field(description="the same for 1/3")
    jobs: Positive = Field(1, description="jobs over which a task's windows of layers are spread")

    @model_validator(mode="after")
    def _grow(self) -> "LayerDrop":
        if not self.sixth < self.third:
            raise ValueError(f"has to grow, sixth < third (is {self.sixth}, {self.third})")
        return self

    def sizes(self) -> list[int]:
        """Layers left out at the two ratios of Figure 3."""
        return [self.sixth, self.third]


class TaskBase(Strict):
    """One model with its data: what one block of rows in Table 5 needs."""

    label: str = Field(description="name in tables and figures")
    base_model: BaseModelSource = Field(description="where it comes from")
    fine_tune_base: bool = Field(
        False, description="whether the uncompressed model is fine-tuned as well (Section 4.1)"
    )
    dataset: Dataset = Field(description="where its three splits come from")
    features: Features = Field(description="from which neurons are aligned")
    merge: Merge = Field(description="what is merged")
    windows: Windows = Field(Windows(), description="how windows are searched")
    layer_drop: LayerDrop = Field(description="the baseline that leaves layers out")
    fine_tuning: Training = Field(description="recovery fine-tuning after compression")

    @model_validator(mode="after")
    def _fits_the_model(self) -> "TaskBase":
        for ratio, k in self.merge.k:
            if k > self.base_model.n_layers:
                most = f"base_model.n_layers, {self.base_model.n_layers}"
                raise ValueError(f"merge.k.{ratio}: has to be from 2 to {most} (is {k})")
        if self.layer_drop.third >= self.base_model.n_layers:
            most = f"{self.base_model.n_layers - 1}, below base_model.n_layers"
            raise ValueError(
                f"layer_drop.third: has to be at most {most} (is {self.layer_drop.third})"
            )
        asked, held = self.features.n_tokens, self.dataset.validation.n_tokens
        if held is not None and asked > held:
            most = f"{held}, which dataset.validation holds"
            raise ValueError(f"features.n_tokens: has to be from 1 to {most} (is {asked})")
        return self


class PerplexityEvaluation(Strict):
    """Perplexity with a sliding window."""

    context: Positive = Field(description="tokens a forward pass sees")
    stride: Positive = Field(
        description="tokens from one window to the next, below `context`: those that are scored"
    )
    average: Literal["tokens", "windows"] = Field(
        "windows", description="what the loss is averaged over: tokens, or the means of the windows"
    )
    batch_size: Positive = Field(description="windows a forward pass")
    max_tokens: Positive | None = Field(None, description="the first of the split; unset: all")

    @model_validator(mode="after")
    def _covers_every_token(self) -> "PerplexityEvaluation":
        if self.stride >= self.context:
            most = f"{self.context - 1}, below context"
            raise ValueError(f"stride: has to be from 1 to {most} (is {self.stride})")
        return self


class AccuracyEvaluation(Strict):
    """Top-1 accuracy."""

    batch_size: Positive = Field(description="images a forward pass")
    max_examples: Positive | None = Field(None, description="the first of the split; unset: all")


class BleuEvaluation(Strict):
    """sacreBLEU of beam-search translations."""

    num_beams: Positive = Field(description="beam width; 1 is greedy")
    max_length: Positive = Field(description="tokens generated at most")
    batch_size: Positive = Field(description="sentences a forward pass")
    max_examples: Positive | None = Field(None, description="the first of the split; unset: all")


class LanguageModeling(TaskBase):
    """A causal language model, scored by perplexity."""

    kind: Literal["language_modeling"] = Field(description="kind of task")
    context: Positive = Field(description="tokens of an example, in training and for features")
    validation: PerplexityEvaluation = Field(description="scores windows, and selects the model")
    test: PerplexityEvaluation = Field(description="gives the reported score")


class ImageClassification(TaskBase):
    """An image classifier, scored by top-1 accuracy."""

    kind: Literal["image_classification"] = Field(description="kind of task")
    validation: AccuracyEvaluation = Field(description="scores windows, and selects the model")
    test: AccuracyEvaluation = Field(description="gives the reported score")


class Translation(TaskBase):
    """An encoder-decoder translator, scored by BLEU; a window is merged on both sides."""

    kind: Literal["translation"] = Field(description="kind of task")
    source: str = Field(description="column of the source sentence")
    target: str = Field(description="column of the reference translation")
    max_tokens: Positive = Field(128, description="tokens at which either side is cut")
    validation: BleuEvaluation = Field(description="scores windows, and selects the model")
    test: BleuEvaluation = Field(description="gives the reported score")

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
    """Statistics over per-example scores: bootstrap intervals and paired tests."""

    resamples: Positive = Field(1000, description="bootstrap resamples of the test examples")
    confidence: float = Field(0.95, gt=0, lt=1, description="of an interval")
    permutations: Positive = Field(
        10_000,
        description="random swaps of two models' examples, and resamples of them, in the test of a "
        "claim",
    )


FOLDERS = ("figures", "logs", "patches", "rebuild", "tables")  # of `results` that hold no task


class Config(Strict):
    """One run of the whole DAG."""

    results: str = Field(
        description="directory of everything that is computed; no two configurations share one"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="where models run")
    seed: int = Field(0, ge=0, description="of every random choice")
    intervals: Intervals = Field(Intervals(), description="confidence intervals of the scores")
    temporary: list[Literal["compressed", "tuned"]] = Field(
        [],
        description="weights that are removed when the last job has read them, unless the command "
        "line asks for them: models that are compressed and not yet tuned (made again in seconds), "
        "tuned ones (made again in hours, as soon as a new score or table needs them)",
    )
    tasks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Task] = Field(
        min_length=1,
        description="models with their data, each by the name of its folder in `results`",
    )

    @model_validator(mode="after")
    def _runs_and_is_filed(self) -> "Config":
        for name, task in self.tasks.items():
            if name in FOLDERS:
                raise ValueError(f"tasks.{name}: a name other than {', '.join(FOLDERS)}")
            if task.fine_tuning.precision == "fp16" and self.device == "cpu":
                raise ValueError(
                    f"tasks.{name}.fine_tuning.precision: has to be fp32 or bf16 with device cpu "
                    "(is 'fp16')"
                )
        return self


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
