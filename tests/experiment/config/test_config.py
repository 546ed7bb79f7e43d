"""The configuration: its documentation is in step, and an error is one line that says it all."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

import reference
from experiment.config.run import Config, validated
from provenance.digest import sha256_of
from provenance.project import configuration_files
from provenance.sources import REPOSITORY

CONFIGURATIONS = [
    file for file in configuration_files(REPOSITORY) if "tasks" in yaml.safe_load(file.read_text())
]
GOOD = yaml.safe_load((REPOSITORY / "config" / "pico.yaml").read_text())
DIGEST = "0123456789abcdef" * 4
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
        "tasks.gpt2.merge.k: should be a group of the keys third, half, all (is 3)",
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
        "aligned (is {'first': 1})",
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
        "tasks.gpt2.dataset.test.sha256: String should match pattern '^[0-9a-f]{64}$' (is '12')",
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
        "tasks.gpt2.base_model.revision: String should match pattern '^[0-9a-f]{40}$' (is 'main')",
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
        "tasks.gpt2.fine_tuning.learning_rate: should be greater than 0 (is nan)",
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
        "tasks.GPT-2: String should match pattern '^[a-z][a-z0-9_]*$' (is 'GPT-2')",
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
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    model = {"tasks.gpt2.base_model.path": str(tmp_path)}
    digest = sha256_of(tmp_path)
    validated(changed(model | {"tasks.gpt2.base_model.sha256": digest}))
    (tmp_path / "model.safetensors").write_bytes(b"weight")
    assert errors(changed(model | {"tasks.gpt2.base_model.sha256": digest})) == [
        f"tasks.gpt2.base_model.sha256: has to be that of {tmp_path}, {sha256_of(tmp_path)} "
        f"(is '{digest}')"
    ]
