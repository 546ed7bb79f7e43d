"""The configuration: its documentation is in step, and an error is one line that says it all."""

import copy
import json
import math
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

import reference
from experiment.config.checks import OWN_FOLDERS, recipe_errors
from experiment.config.run import Config, validated
from provenance.digest import sha256_of
from provenance.project import configuration_files
from provenance.sources import REPOSITORY

CONFIGURATIONS = [
    file for file in configuration_files(REPOSITORY) if "tasks" in yaml.safe_load(file.read_text())
]
GOOD = yaml.safe_load((REPOSITORY / "config" / "pico.yaml").read_text())
DIGEST = "0123456789abcdef" * 4
SEARCH = {"context": 16, "stride": 8, "batch_size": 4}
TEXT = "resources/demo/data/text"


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    """Paths in a configuration are seen from the top of the repository."""
    monkeypatch.chdir(REPOSITORY)


def changed(changes: dict[str, Any]) -> dict:
    """The pico configuration with other values of dotted keys; without those whose value is ...."""
    raw = copy.deepcopy(GOOD)
    for key, value in changes.items():
        *groups, name = key.split(".")
        place = raw
        for group in groups:
            place = place.setdefault(group, {})
        if value is ...:
            del place[name]
        else:
            place[name] = copy.deepcopy(value)
    return raw


def errors(raw: dict) -> list[str]:
    """The lines with which a configuration is refused."""
    with pytest.raises(ValueError) as error:
        validated(raw)
    return str(error.value).split("\n")


# --- what is there --------------------------------------------------------------------------------


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.name)
def test_every_configuration_is_valid_and_its_files_are_the_ones_it_names(file):
    validated(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.name)
def test_every_configuration_is_valid_for_an_editor_too(file):
    schema = json.loads((REPOSITORY / "config" / "schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(file.read_text()))


def test_no_two_configurations_share_their_results():
    results = [yaml.safe_load(file.read_text())["results"] for file in CONFIGURATIONS]
    assert len(set(results)) == len(results)


# --- the documentation ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "schema.json"])
def test_the_reference_follows_from_the_classes(tmp_path, name):
    reference.write(tmp_path)
    made, kept = (tmp_path / name).read_text(), (REPOSITORY / "config" / name).read_text()
    assert made == kept, "run `python config/reference.py`"


def test_the_reference_has_a_row_for_every_key():
    rows = [line.split("`")[1] for line in reference.reference().splitlines() if "| `" in line]
    schema = Config.model_json_schema()
    for group in [schema, *schema["$defs"].values()]:
        for key in group["properties"]:
            assert any(row.rpartition(".")[2] == key for row in rows), f"{group['title']}: {key}"
    for key in ("merge.k.third", "dataset.train.n_tokens", "fine_tuning.decay_steps", "context"):
        assert rows.count(key) == 1, key


def test_the_reference_shows_an_error_as_it_is_printed():
    demo = yaml.safe_load((REPOSITORY / "config" / "demo.yaml").read_text())
    demo["tasks"]["gpt2"]["merge"]["k"]["all"] = 13
    (error,) = errors(demo)
    assert f"    error: configuration: {error}\n" in reference.reference()


# --- bad input ------------------------------------------------------------------------------------

BAD = {
    "k of one": (
        {"tasks.gpt2.merge.k.third": 1},
        "tasks.gpt2.merge.k.third: should be greater than 1 (is 1)",
    ),
    "k that is no number": (
        {"tasks.gpt2.merge.k.third": "a third"},
        "tasks.gpt2.merge.k.third: should be a valid integer, unable to parse string as an integer "
        "(is 'a third')",
    ),
    "k above the model's layers": (
        {"tasks.gpt2.merge.k.all": 5},
        "tasks.gpt2.merge.k.all: has to be from 2 to base_model.n_layers, 4 (is 5)",
    ),
    "fp16 on a CPU": (
        {"tasks.gpt2.fine_tuning.precision": "fp16"},
        "tasks.gpt2.fine_tuning.precision: has to be fp32 or bf16 with device cpu (is 'fp16')",
    ),
    "k that does not grow": (
        {"tasks.gpt2.merge.k.half": 2},
        "tasks.gpt2.merge.k: has to grow, third < half < all (is 2, 2, 4)",
    ),
    "one k for three": (
        {"tasks.gpt2.merge.k": 3},
        "tasks.gpt2.merge.k: should be a group of the keys sixth, quarter, third, half, all (is 3)",
    ),
    "more positions than the data hold": (
        {"tasks.vit.dataset.validation.n_tokens": 499},
        "tasks.vit.features.n_tokens: has to be from 1 to 499, which dataset.validation holds "
        "(is 500)",
    ),
    "unknown method": (
        {"tasks.gpt2.merge.methods": ["permute", "average"]},
        "tasks.gpt2.merge.methods.1: should be 'permute' or 'vanilla' (is 'average')",
    ),
    "no method": (
        {"tasks.gpt2.merge.methods": []},
        "tasks.gpt2.merge.methods: List should have at least 1 item after validation, not 0 "
        "(is empty)",
    ),
    "unknown anchor": (
        {"tasks.marian.merge.anchor": "center"},
        "tasks.marian.merge.anchor: should be 'first', 'middle' or 'last' (is 'center')",
    ),
    "unknown kind of task": (
        {"tasks.vit.kind": "vision"},
        "tasks.vit.kind: should be language_modeling, image_classification, translation or "
        "sentence_retrieval (is 'vision')",
    ),
    "no kind of task": (
        {"tasks.vit.kind": ...},
        "tasks.vit.kind: is missing, allowed: language_modeling, image_classification, translation "
        "or sentence_retrieval",
    ),
    "unknown average of a perplexity": (
        {"tasks.gpt2.test.average": "bytes"},
        "tasks.gpt2.test.average: should be 'tokens' or 'windows' (is 'bytes')",
    ),
    "key with a typo": (
        {"tasks.vit.features.n_token": 5},
        "tasks.vit.features.n_token: is not a key here, the nearest is n_tokens (is 5)",
    ),
    "key that resembles none": (
        {"tasks.gpt2.features.anchor": {"first": 1}},
        "tasks.gpt2.features.anchor: is not a key here, allowed: n_tokens, batch_size, "
        "aligned, shuffle (is {'first': 1})",
    ),
    "key of the top level with a typo": (
        {"sead": 1},
        "sead: is not a key here, the nearest is seed (is 1)",
    ),
    "missing key": (
        {"tasks.gpt2.fine_tuning.max_steps": ...},
        "tasks.gpt2.fine_tuning.max_steps: is missing, allowed: whole number above 0",
    ),
    "key without a value": (
        {"seed": None},
        "seed: should be a valid integer (is empty)",
    ),
    "missing data file": (
        {"tasks.gpt2.dataset.train.path": "nothing.parquet"},
        f"tasks.gpt2.dataset.train.path: nothing.parquet does not exist, seen from {REPOSITORY}",
    ),
    "another data file": (
        {"tasks.gpt2.dataset.test.sha256": DIGEST},
        f"tasks.gpt2.dataset.test.sha256: has to be that of {TEXT}/test.parquet, "
        f"{sha256_of(REPOSITORY / TEXT / 'test.parquet')} (is '{DIGEST}')",
    ),
    "digest that is none": (
        {"tasks.gpt2.dataset.test.sha256": "12"},
        "tasks.gpt2.dataset.test.sha256: should be a sha256, 64 hexadecimal digits (is '12')",
    ),
    "missing base model": (
        {"tasks.gpt2.base_model.path": "resources/none"},
        f"tasks.gpt2.base_model.path: resources/none does not exist, seen from {REPOSITORY}",
    ),
    "branch for a commit": (
        {
            "tasks.gpt2.base_model.repository": "openai-community/gpt2",
            "tasks.gpt2.base_model.revision": "main",
        },
        "tasks.gpt2.base_model.revision: should be a commit, 40 hexadecimal digits (is 'main')",
    ),
    "repository without a commit": (
        {"tasks.gpt2.base_model.repository": "openai-community/gpt2"},
        "tasks.gpt2.base_model: repository, revision: a hub repository needs a 40-hex commit, "
        "both or none (are 'openai-community/gpt2', None)",
    ),
    "stride as long as the context": (
        {"tasks.gpt2.validation.stride": 32},
        "tasks.gpt2.validation.stride: has to be from 1 to 31, below context (is 32)",
    ),
    "negative learning rate": (
        {"tasks.gpt2.fine_tuning.learning_rate": -1e-4},
        "tasks.gpt2.fine_tuning.learning_rate: should be greater than 0 (is -0.0001)",
    ),
    "learning rate that is not a number": (
        {"tasks.gpt2.fine_tuning.learning_rate": float("nan")},
        "tasks.gpt2.fine_tuning.learning_rate: should be a finite number (is nan)",
    ),
    "unknown schedule": (
        {"tasks.gpt2.fine_tuning.schedule": "linear"},
        "tasks.gpt2.fine_tuning.schedule: should be 'inverse_sqrt', 'linear_to_minimum', "
        "'cosine' or 'constant' (is 'linear')",
    ),
    "linear schedule without its end": (
        {"tasks.vit.fine_tuning.decay_steps": ...},
        "tasks.vit.fine_tuning.decay_steps: has to be a whole number above 0 "
        "for schedule linear_to_minimum (is empty)",
    ),
    "minimum above the learning rate": (
        {"tasks.vit.fine_tuning.minimum_learning_rate": 1},
        "tasks.vit.fine_tuning.minimum_learning_rate: has to be at most learning_rate, 0.001 "
        "(is 1.0)",
    ),
    "bad name of a task": (
        {"tasks.GPT-2": GOOD["tasks"]["gpt2"]},
        "tasks.GPT-2: should be a name of up to 60 small letters, digits and _, a letter first "
        "(is 'GPT-2')",
    ),
    "task that is no group": (
        {"tasks.gpt2": "gpt2"},
        "tasks.gpt2: should be a group of keys (is 'gpt2')",
    ),
    "no task": (
        {"tasks": {}},
        "tasks: Dictionary should have at least 1 item after validation, not 0 (is empty)",
    ),
    "value of none of several types": (
        {"tasks.gpt2.base_model.from_scratch.architecture.n_embd": None},
        "tasks.gpt2.base_model.from_scratch.architecture.n_embd: should be a valid string or "
        "a valid integer or a valid number or a valid boolean or a valid list (is empty)",
    ),
    "confidence in percent": (
        {"intervals.confidence": 95},
        "intervals.confidence: should be less than 1 (is 95)",
    ),
    "two lines in a value": (
        {"device": "cpu\ncuda"},
        "device: should be 'cpu' or 'cuda' (is 'cpu\\ncuda')",
    ),
}


@pytest.mark.parametrize(("changes", "line"), BAD.values(), ids=BAD)
def test_an_error_is_one_line_with_key_value_and_what_is_allowed(changes, line):
    assert errors(changed(changes)) == [line]


# --- values that are of the right type and mean nothing -------------------------------------------

GPT2, VIT, MARIAN = (f"tasks.{name}" for name in ("gpt2", "vit", "marian"))
RECIPE = f"{GPT2}.base_model.from_scratch"
WHEEL = {
    "registry": "pypi",
    "name": "minilm",
    "version": "0.1.0",
    "file": "minilm-0.1.0-py3-none-any.whl",
    "sha256": DIGEST,
    "directory": "minilm",
}


def packaged(**changes: str) -> dict:
    """A base model in a package with other values."""
    return {f"{GPT2}.base_model": {"n_layers": 4, "package": WHEEL | changes}}


NONSENSE = {  # changes, and how the line begins
    **{
        f"results in {folder!r}"[:40]: ({"results": folder}, f"results: {told}")
        for told, folders in {
            "has to be a folder of its own": (
                *("/", "/tmp", "config", ".git", ".git/hooks", "workflow/experiment", "slurm"),
                *(str(REPOSITORY), str(REPOSITORY.parent), str(REPOSITORY / "tests")),
                *("resources", ".snakemake", "."),
            ),
            "has to be a folder without": (
                "..",
                "../other",
                "results//x",
                "results/",
                "-n",
                "a/./b",
            ),
            "has to be a folder whose name has only": (
                *("results/{task}", "results/my run", "results/*", "results/$HOME", "~/results"),
                *("results/it's", "results;ls", "results\\x"),
            ),
            "has to be one line": ("", " ", "x" * 300, "results\nmine", "results\0"),
            "has to be a folder with names of at most 100 bytes": ("ü" * 60,),
            "has to be a folder, and there is a file": ("README.md", "/dev/null"),
        }.items()
        for folder in folders
    },
    "seed beyond 32 bits": ({"seed": 2**32}, "seed: should be less than 4294967296"),
    "seed beyond 64 bits": ({"seed": 2**70}, "seed: has to be a number of at most 64 bits"),
    "seed that is true": ({"seed": True}, "seed: has to be a number"),
    "further seed that is the first": (
        {"seed": 2, "further_seeds": [3, 2]},
        "further_seeds: has to be other seeds than seed, 2 (is 2)",
    ),
    "further seed twice": (
        {"further_seeds": [7, 7]},
        "further_seeds: has to be a list of different values (is 7)",
    ),
    "further seeds at a ratio that no task has": (
        {
            "further_seeds": [7],
            "further_seeds_at": ["third", "all"],
            **{f"tasks.{name}.merge.k": {"third": 2, "half": 3} for name in GOOD["tasks"]},
        },
        "further_seeds_at: has to be ratios that merge.k of a task has (is 'all')",
    ),
    "further seeds at no ratio": ({"further_seeds_at": []}, "further_seeds_at: "),
    "a million resamples too many": (
        {"intervals.resamples": 10**7},
        "intervals.resamples: should be less than or equal to 1000000",
    ),
    "weights that are removed twice": (
        {"temporary": ["tuned", "tuned"]},
        "temporary: has to be a list of different values (is 'tuned')",
    ),
    "one task with two names": (
        {"tasks.other": GOOD["tasks"]["gpt2"]},
        "tasks.other.label: has to be another than that of gpt2 (is 'pico GPT-2')",
    ),
    "a task with a long name": ({f"tasks.{'x' * 300}": GOOD["tasks"]["gpt2"]}, "tasks.xxx"),
    "a task named like a folder": ({"tasks.logs": GOOD["tasks"]["gpt2"]}, "tasks.logs: a name"),
    "a label without text": ({f"{GPT2}.label": " "}, f"{GPT2}.label: has to be one line"),
    "a label of two lines": ({f"{GPT2}.label": "a\nb"}, f"{GPT2}.label: has to be one line"),
    "a label of 300 letters": ({f"{GPT2}.label": "x" * 300}, f"{GPT2}.label: has to be one line"),
    "a label with mathematics": (
        {f"{GPT2}.label": r"$\foo$"},
        f"{GPT2}.label: has to be without $",
    ),
    # the model
    "layers that the model has not": (
        {f"{GPT2}.base_model.n_layers": 5},
        f"{GPT2}.base_model.n_layers: has to be 4, n_layer of the decoder in base_model.from_",
    ),
    "a side with other layers": (
        {f"{MARIAN}.base_model.from_scratch.architecture.decoder_layers": 3},
        f"{MARIAN}.base_model.n_layers: has to be 3, decoder_layers of the decoder",
    ),
    "layers of a model that is here": (
        {f"{GPT2}.base_model.path": "resources/demo/models/gpt2"},
        f"{GPT2}.base_model.n_layers: has to be 12, n_layer of the decoder in resources/demo/",
    ),
    "a billion layers": (
        {f"{GPT2}.base_model.n_layers": 10**9},
        f"{GPT2}.base_model.n_layers: should be less than or equal to 1000",
    ),
    "a folder that holds no model": (
        {f"{GPT2}.base_model.path": "resources/demo/data"},
        f"{GPT2}.base_model.path: resources/demo/data has no model.safetensors",
    ),
    "a file for a model": (
        {f"{GPT2}.base_model.path": "README.md"},
        f"{GPT2}.base_model.path: has to be a folder, README.md is a file",
    ),
    "a model type of nobody": (
        {f"{RECIPE}.architecture.model_type": "gpt5"},
        f"{GPT2}.base_model: base_model.from_scratch.architecture: architecture 'gpt5' has no",
    ),
    "a recipe without a type": (
        {f"{RECIPE}.architecture.model_type": ...},
        f"{RECIPE}.architecture.model_type: has to be the name of a model type",
    ),
    "a recipe without a class": (
        {f"{RECIPE}.architecture.architectures": ...},
        f"{RECIPE}.architecture.architectures: has to be a list of one model class",
    ),
    "a recipe of two classes": (
        {f"{RECIPE}.architecture.architectures": ["GPT2Model", "GPT2LMHeadModel"]},
        f"{RECIPE}.architecture.architectures: has to be a list of one model class",
    ),
    "text without a vocabulary": (
        {f"{RECIPE}.vocabulary": ...},
        f"{RECIPE}.vocabulary: is missing",
    ),
    "more tokens than rows of the embedding": (
        {f"{RECIPE}.vocabulary": 301},
        f"{RECIPE}.vocabulary: has to be at most architecture.vocab_size, 300 (is 301)",
    ),
    "a vocabulary of images": (
        {f"{VIT}.base_model.from_scratch.vocabulary": 300},
        f"{VIT}.base_model.from_scratch.vocabulary: is for text only",
    ),
    "images without a size": (
        {f"{VIT}.base_model.from_scratch.architecture.image_size": ...},
        f"{VIT}.base_model.from_scratch.architecture.image_size: is missing",
    ),
    "a recipe in fp16 on a CPU": (
        {f"{RECIPE}.training.precision": "fp16"},
        f"{RECIPE}.training.precision: has to be fp32 or bf16 with device cpu",
    ),
    "an entry of the table of architectures that is none": (
        {
            f"{GPT2}.base_model": {
                "n_layers": 4,
                "repository": "a/b",
                "revision": "0" * 40,
                "architecture": {"prefix": "", "towers": {"decoder": {"layers": "h.*"}}},
            }
        },
        f"{GPT2}.base_model.architecture: towers.decoder: up, down missing",
    ),
    "an entry for a model that is trained here": (
        {f"{GPT2}.base_model.architecture": {"prefix": "", "towers": {}}},
        f"{GPT2}.base_model.architecture: is for a model of a repository or a package",
    ),
    "a repository that is a URL": (
        {
            f"{GPT2}.base_model": {
                "n_layers": 4,
                "repository": "https://hub.example/a/b",
                "revision": "0" * 40,
            }
        },
        f"{GPT2}.base_model.repository: should be a repository",
    ),
    # lengths
    "a context beyond the positions": (
        {f"{GPT2}.context": 33},
        f"{GPT2}.context: has to be at most 32, the model's positions",
    ),
    "windows scored beyond the positions": (
        {f"{GPT2}.fine_tune_base": True, f"{GPT2}.search": {**SEARCH, "context": 64}},
        f"{GPT2}.search.context: has to be at most 32",
    ),
    "windows scored otherwise, without a tuned base": (
        {f"{GPT2}.fine_tune_base": False, f"{GPT2}.search": SEARCH},
        f"{GPT2}.search: has to be unset without fine_tune_base",
    ),
    "rows joined that are not packed": (
        {f"{GPT2}.pack": False, f"{GPT2}.validation.join": "nothing"},
        f"{GPT2}.validation.join: has to be unset with pack: false, which joins no rows",
    ),
    "a context of one token": ({f"{GPT2}.context": 1}, f"{GPT2}.context: should be greater than 1"),
    "a window beyond the positions": (
        {f"{GPT2}.test.context": 64},
        f"{GPT2}.test.context: has to be at most 32",
    ),
    "sentences beyond the positions": (
        {f"{MARIAN}.max_tokens": 65},
        f"{MARIAN}.max_tokens: has to be at most 64",
    ),
    "translations beyond the positions": (
        {f"{MARIAN}.validation.max_length": 65},
        f"{MARIAN}.validation.max_length: has to be at most 64",
    ),
    "one token to score": (
        {f"{GPT2}.test.max_tokens": 1},
        f"{GPT2}.test.max_tokens: has to be at least 2",
    ),
    # the data
    "a password file for data": (
        {f"{GPT2}.dataset.validation.path": "/etc/passwd"},
        f"{GPT2}.dataset.validation.path: /etc/passwd: this kind of file cannot be read here",
    ),
    "an endless device for data": (
        {f"{GPT2}.dataset.train.path": "/dev/zero"},
        f"{GPT2}.dataset.train.path: has to be a file or folder, /dev/zero is a device",
    ),
    "a device with a digest": (
        {f"{GPT2}.dataset.test": {"path": "/dev/zero", "sha256": DIGEST}},
        f"{GPT2}.dataset.test.path: has to be a file or folder, /dev/zero is a device",
    ),
    "every file for data": (
        {f"{GPT2}.dataset.train.path": "/"},
        f"{GPT2}.dataset.train.path: / holds this repository",
    ),
    "every file for data, with a digest": (
        {f"{GPT2}.dataset.train": {"path": "/", "sha256": DIGEST}},
        f"{GPT2}.dataset.train.path: / holds this repository",
    ),
    "a file that cannot be read": (
        {f"{GPT2}.dataset.train": {"path": "/proc/self/mem", "sha256": DIGEST}},
        f"{GPT2}.dataset.train.path: /proc/self/mem ",
    ),
    "no name for data": (
        {f"{GPT2}.dataset.train.path": ""},
        f"{GPT2}.dataset.train.path: has to be one line",
    ),
    "two lines for data": (
        {f"{GPT2}.dataset.train.path": "a\nb"},
        f"{GPT2}.dataset.train.path: has to be one line",
    ),
    "a device for a recipe's data": (
        {f"{RECIPE}.train.path": "/dev/zero"},
        f"{RECIPE}.train.path: has to be a file or folder",
    ),
    "a folder for a devkit": (
        {f"{VIT}.dataset.devkit": "resources"},
        f"{VIT}.dataset.devkit: has to be a file, resources is a folder",
    ),
    "more tokens than the text has bytes": (
        {f"{GPT2}.features.n_tokens": 10**9},
        f"{GPT2}.features.n_tokens: has to be at most",
    ),
    "more patches than the images have": (
        {f"{VIT}.features.n_tokens": 10**9},
        f"{VIT}.features.n_tokens: has to be at most",
    ),
    "a URL without a host": (
        {f"{MARIAN}.dataset.url": "https://", f"{MARIAN}.dataset.sides": {"s": "zh", "t": "en"}},
        f"{MARIAN}.dataset.url: has to be http:// or https://, a host and a path",
    ),
    "a file's URL": (
        {f"{MARIAN}.dataset.url": "file:///a", f"{MARIAN}.dataset.sides": {"s": "zh", "t": "en"}},
        f"{MARIAN}.dataset.url: has to be http:// or https://",
    ),
    "two sides in one column": (
        {f"{MARIAN}.dataset.url": "http://a/b", f"{MARIAN}.dataset.sides": {"s": "en", "t": "en"}},
        f"{MARIAN}.dataset.sides: has to be a different column for each side",
    ),
    "a translation into its own column": (
        {f"{MARIAN}.target": "zh"},
        f"{MARIAN}.target: has to be another column than source",
    ),
    # the method
    "a method twice": (
        {f"{GPT2}.merge.methods": ["permute", "permute"]},
        f"{GPT2}.merge.methods: has to be a list of different values (is 'permute')",
    ),
    "a ratio twice": (
        {f"{GPT2}.merge.k": {"third": 2, "half": 2, "all": 4}},
        f"{GPT2}.merge.k: has to grow",
    ),
    "a quarter above a third": (
        {f"{GPT2}.layer_drop": {"sixth": 1, "quarter": 3, "third": 2}},
        f"{GPT2}.layer_drop: has to grow, sixth < quarter < third (is 1, 3, 2)",
    ),
    "a window twice": (
        {f"{GPT2}.windows.only": {"third": [0, 0]}},
        f"{GPT2}.windows.only.third: has to be a list of different values (is 0)",
    ),
    "a window that is true": (
        {f"{GPT2}.windows.only": {"third": [True]}},
        f"{GPT2}.windows.only.third.0: has to be a number",
    ),
    "a million jobs for windows": (
        {f"{VIT}.windows.jobs": 10**6},
        f"{VIT}.windows.jobs: has to be at most 6, the number of windows (is 1000000)",
    ),
    "a million jobs for windows of layers": (
        {f"{VIT}.layer_drop.jobs": 10**6},
        f"{VIT}.layer_drop.jobs: has to be at most 8, the number of windows (is 1000000)",
    ),
    "sorted text": (
        {f"{GPT2}.fine_tuning.group_by_length": True},
        f"{GPT2}.fine_tuning.group_by_length: has to be false",
    ),
    # packages
    "a package from a URL": (
        packaged(name="https://evil.example/x.tar.gz"),
        f"{GPT2}.base_model.package.name: has to be the name of a package of pypi",
    ),
    "a package from a file": (
        packaged(name="minilm @ file:///tmp/x"),
        f"{GPT2}.base_model.package.name: has to be the name of a package of pypi",
    ),
    "an option for a package": (
        packaged(name="--index-url=https://evil.example"),
        f"{GPT2}.base_model.package.name: has to be the name of a package of pypi",
    ),
    "any version of a package": (
        packaged(version="*"),
        f"{GPT2}.base_model.package.version: has to be the version of a package of pypi",
    ),
    "a package's source": (
        packaged(file="minilm-0.1.0.tar.gz"),
        f"{GPT2}.base_model.package.file: has to be the file of a package of pypi",
    ),
    "a package's file elsewhere": (
        packaged(file="../minilm-0.1.0-py3-none-any.whl"),
        f"{GPT2}.base_model.package.file: has to be the file of a package of pypi",
    ),
    "a version that npm gets from git": (
        packaged(registry="npm", version="git+https://evil.example/x", file="x.tgz"),
        f"{GPT2}.base_model.package.version: has to be the version of a package of npm",
    ),
    "a package that apt makes two of": (
        packaged(registry="debian", name="a b", file="a_1_all.deb"),
        f"{GPT2}.base_model.package.name: has to be the name of a package of debian",
    ),
}


@pytest.mark.parametrize(("changes", "line"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused_in_one_line(changes, line):
    told = errors(changed(changes))[0]
    assert told.startswith(line), told
    assert len(told) < 900


def leaves(raw: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a configuration that holds a number, true or false, and its value."""
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{above}{key}.")
        elif isinstance(value, bool | int | float) and ".architecture." not in above:
            yield f"{above}{key}", value


@pytest.mark.parametrize("key", [key for key, _ in leaves(GOOD)])
def test_a_number_is_neither_true_nor_endless_and_true_is_no_number(key):
    value = dict(leaves(GOOD))[key]
    junk = [1, 0, "yes"] if isinstance(value, bool) else [True, False, 2**64, math.inf, -math.inf]
    for other in junk:
        assert errors(changed({key: other}))[0].startswith(f"{key}: "), other


def test_the_folders_of_the_repository_hold_no_results():
    listed = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    tracked = {name.split("/")[0] for name in listed if "/" in name} | {"slurm"}
    assert tracked - {"results"} <= set(OWN_FOLDERS)


UNBUILDABLE = {
    "heads that do not divide the width": ({"n_head": 3}, "divisible"),
    "text for a number": ({"n_embd": "wide"}, "n_embd"),
    "a negative width": ({"n_embd": -16}, ""),
    "a class of nobody": ({"architectures": ["GPT6LMHeadModel"]}, "GPT6LMHeadModel"),
    "a class that is no model": ({"architectures": ["Trainer"]}, "Trainer cannot be built"),
    "another model's class": ({"architectures": ["ViTModel"]}, "ViTModel cannot be built"),
    "an unknown activation": ({"activation_function": "gelu_odd"}, "gelu_odd"),
}


@pytest.mark.parametrize(("keys", "fault"), UNBUILDABLE.values(), ids=UNBUILDABLE)
def test_a_recipe_that_cannot_be_built_is_refused_before_a_job(tmp_path, keys, fault):
    raw = changed({f"{RECIPE}.architecture.{key}": value for key, value in keys.items()})
    (told,) = recipe_errors(validated(raw).tasks, tmp_path)
    assert told.startswith(f"{RECIPE}.architecture: "), told
    assert fault in told
    assert "\n" not in told
    (tmp_path / "gpt2/trained_base_model").mkdir(parents=True)
    assert list(recipe_errors(validated(raw).tasks, tmp_path)) == []


def keys(raw: dict, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Every dotted key of a configuration, groups included."""
    for key, value in raw.items():
        yield ".".join([*above, key])
        if isinstance(value, dict):
            yield from keys(value, (*above, key))


@pytest.mark.parametrize(
    "junk", [None, "", "x", -1, 1.5, [], [None], [[1], "x"], {}, {1: 2}, {"x": None}], ids=repr
)
def test_errors_about_junk_begin_with_a_key_of_its_group(junk):
    refused = 0
    for key in keys(GOOD):
        try:
            validated(changed({key: junk}))
        except ValueError as error:
            refused += 1
            group = ".".join(key.split(".")[:3]) if key.startswith("tasks.") else key
            if key.endswith((".source", ".target")) and junk == "x":
                group = "tasks.marian.(dataset|base_model.from_scratch.train)"  # no such column
            for line in str(error).split("\n"):
                assert re.match(rf"{group}[\w.]*: .+[^ ]$", line), (key, line)
    assert refused > 20


def test_every_error_has_a_line_in_the_order_of_the_file():
    raw = changed({"seed": -1, "tasks.gpt2.merge.k.half": 1, "tasks.vit.features.batch_size": 0})
    assert [line.split(":")[0] for line in errors(raw)] == [
        "seed",
        "tasks.gpt2.merge.k.half",
        "tasks.vit.features.batch_size",
    ]


def test_a_task_may_have_the_name_of_a_kind():
    raw = changed({"tasks": {"translation": GOOD["tasks"]["marian"]}})
    raw["tasks"]["translation"]["max_tokens"] = 0
    assert errors(raw) == [
        "tasks.translation.max_tokens: should be greater than 0 (is 0)",
    ]


def test_the_digest_of_a_base_model_is_that_of_its_directory(tmp_path):
    architecture = GOOD["tasks"]["gpt2"]["base_model"]["from_scratch"]["architecture"]
    (tmp_path / "config.json").write_text(json.dumps(architecture))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    model = {"tasks.gpt2.base_model.path": str(tmp_path)}
    digest = sha256_of(tmp_path)
    validated(changed(model | {"tasks.gpt2.base_model.sha256": digest}))
    (tmp_path / "model.safetensors").write_bytes(b"weight")
    assert errors(changed(model | {"tasks.gpt2.base_model.sha256": digest})) == [
        f"tasks.gpt2.base_model.sha256: has to be that of {tmp_path}, {sha256_of(tmp_path)} "
        f"(is '{digest}')"
    ]
