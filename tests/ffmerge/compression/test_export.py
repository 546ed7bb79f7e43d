"""Export a merged model in another form: the same weights, with tokenizer, card and record."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import ffmerge
import own_models
from families import FAMILIES, batch_of
from own_models import run
from provenance.digest import sha256_of
from provenance.record import read_record

WEIGHTS = "model.safetensors"
FORMS = ("tied", "code", "expanded")


COMPRESSED = [  # family, rank of the corrections
    *(("gpt2", 0), ("marian", 0), ("llama", 1)),
    *(
        pytest.param(each, marks=pytest.mark.long)
        for each in (("llama", 0), ("vit", 0), ("t5", 0), ("gpt2", 1), ("bert", 1), ("marian", 1))
    ),
]


@pytest.fixture(scope="module", params=COMPRESSED)
def compressed(request, tmp_path_factory) -> dict[str, Path]:
    """A model of a family, and what it is compressed to, by form."""
    name, rank = request.param
    directory = tmp_path_factory.mktemp(name)
    model = own_models.save(name, directory / "model")
    data = own_models.data_for(FAMILIES[name], directory / "data")
    options = {"remove": "1/3", "n_tokens": 40, "rank": rank}
    for form in FORMS:
        ffmerge.compress(model, features=data, out=directory / form, form=form, **options)
    return {"model": model, **{form: directory / form for form in FORMS}}


@pytest.mark.parametrize("source", ["tied", "code"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_as_compress_writes(source, form, compressed, tmp_path, capsys):
    status, printed, error = run(
        capsys, "export", compressed[source], "--form", form, "--out", tmp_path / "out", "--json"
    )
    assert status == 0, error
    outs = (compressed[form], tmp_path / "out")
    expected, exported = ({f.name: sha256_of(f) for f in out.iterdir()} for out in outs)
    own = ("README.md", "ffmerge_record.json")
    assert exported.keys() == expected.keys()
    different = {n for n in exported if n not in own and exported[n] != expected[n]}
    assert different <= {"config.json"}
    configs = [json.loads((out / "config.json").read_text()) for out in outs]
    assert configs[0] == configs[1]
    cards = [(out / "README.md").read_text() for out in outs]
    (ours, n), other = (re.search(r"stored: (\d+) of (\d+)", card).groups() for card in cards)
    assert (ours, n) == other and (ours == n) == (form == "expanded")
    summary = json.loads(printed)
    assert summary["record"] == read_record(tmp_path / "out/ffmerge_record.json")["digest"]
    assert summary["record"] in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("others", [torch.float32, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_each_tensor_keeps_its_bits_and_its_own_dtype(form, others, tmp_path):
    model = own_models.save("gpt2", tmp_path / "model")
    mixed = {
        name: tensor.to(others if "attn" in name else torch.bfloat16)
        for name, tensor in load_file(model / WEIGHTS).items()
    }
    fine = mixed["transformer.h.2.attn.c_attn.weight"]
    assert not torch.equal(fine, fine.bfloat16().to(others))
    save_file(mixed, model / WEIGHTS, {"format": "pt"})
    data = own_models.data_for(FAMILIES["gpt2"], tmp_path / "data")
    for out in {"tied", form}:
        asked = {"features": data, "layers": "0-1", "n_tokens": 40, "form": out}
        ffmerge.compress(model, out=tmp_path / out, **asked)
    ffmerge.export(tmp_path / "tied", out=tmp_path / "out", form=form)
    expected, exported = (load_file(tmp_path / out / WEIGHTS) for out in (form, "out"))
    assert expected.keys() == exported.keys()
    for name, tensor in exported.items():
        assert tensor.dtype == expected[name].dtype == mixed[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


def test_the_command_and_python_say_the_same(compressed, tmp_path, capsys):
    _, printed, _ = run(capsys, "export", compressed["tied"], "--out", tmp_path / "one", "--json")
    summary = json.loads(printed) | {"out": None, "record": None}
    result = ffmerge.export(compressed["tied"], out=tmp_path / "two")
    assert result.as_json() | {"out": None, "record": None} == summary
    assert sha256_of(tmp_path / "one" / WEIGHTS) == sha256_of(tmp_path / "two" / WEIGHTS)


def test_an_export_of_an_export_still_names_the_first_records(compressed, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(capsys, "export", compressed["tied"], "--form", "code", "--out", first)[0] == 0
    assert run(capsys, "export", first, "--out", second)[0] == 0
    card = (second / "README.md").read_text()
    for directory in (compressed["tied"], first, second):
        assert read_record(directory / "ffmerge_record.json")["digest"] in card
    assert "were aligned, averaged and tied" in card and "not tuned" in card
    assert sha256_of(second / WEIGHTS) == sha256_of(compressed["tied"] / WEIGHTS)
    assert not (second / "modeling_ffmerge.py").exists()


@pytest.fixture
def exported(finished, tmp_path, capsys):
    """exported(task, form): the directory of a tuned model of the workflow, and of its export."""

    def made(task: str, form: str) -> tuple[Path, Path]:
        tuned = (finished.results / task / "models").glob("*/tuned")
        model = next(path for path in sorted(tuned) if "permute" in path.parent.name)
        status, _, error = run(capsys, "export", model, "--form", form, "--out", tmp_path / "out")
        assert status == 0, error
        return model, tmp_path / "out"

    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "form"),
    [
        *(("gpt2", form) for form in FORMS),
        *(("vit", "tied"), ("marian", "expanded")),
    ],
)
def test_a_tuned_model_of_the_workflow_comes_with_what_belongs_to_it(task, form, exported):
    model, out = exported(task, form)
    record = read_record(model.with_name("tuned.record.json"))
    root = Path(model.as_posix().removesuffix(record["output"]["model"]["path"]))
    base_model = root / record["input"]["base_model"]["path"]
    beside = [f for f in base_model.iterdir() if "token" in f.name or "processor" in f.name]
    assert beside
    for file in beside:
        assert (out / file.name).read_bytes() == file.read_bytes()
    card = (out / "README.md").read_text()
    score = json.loads(model.with_name("test.json").read_text())
    assert f"{score['metric']} on the test split: {score['score']:.4g}" in card
    assert "tuned afterwards" in card and "were aligned" in card
    assert f"# {base_model.name}, with fewer" in card
    for name in ("compressed", "tuned", "test"):
        assert read_record(model.with_name(f"{name}.record.json"))["digest"] in card
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    before, after = ffmerge.load(model), ffmerge.load(out)
    assert type(before).__name__ == type(after).__name__
    assert hasattr(after.config, "ffmerge_groups") == (form != "expanded")
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


# --- what is refused ------------------------------------------------------------------------------


def refused(capsys, tmp_path, *arguments) -> str:
    """The error of a request that is refused and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    status, printed, error = run(capsys, "export", *arguments, "--out", tmp_path / "out")
    assert (status, printed) == (2, ""), error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    return error


@pytest.fixture
def merged(tmp_path) -> Path:
    """A compressed GPT-2."""
    model = own_models.save("gpt2", tmp_path / "model")
    data = own_models.data_for(FAMILIES["gpt2"], tmp_path / "data")
    ffmerge.compress(model, features=data, out=tmp_path / "merged", remove="1/3", n_tokens=40)
    return tmp_path / "merged"


def test_a_directory_without_a_merged_model_is_refused(merged, tmp_path, capsys):
    assert "nothing is merged in" in refused(capsys, tmp_path, tmp_path / "model")
    assert "has no config.json" in refused(capsys, tmp_path, tmp_path / "data")
    file = merged / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"ffmerge_int8": {}}))
    assert "quantized" in refused(capsys, tmp_path, merged)


def test_a_model_that_is_not_what_its_record_says_is_refused(merged, tmp_path, capsys):
    content = bytearray((merged / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (merged / WEIGHTS).write_bytes(content)
    assert "is not what" in refused(capsys, tmp_path, merged)


def test_a_model_without_a_processor_needs_one_named(merged, tmp_path, capsys):
    (merged / "ffmerge_record.json").unlink()  # which names the tokenizer's files
    for file in merged.glob("*token*"):
        file.unlink()
    assert "--processor DIR" in refused(capsys, tmp_path, merged)
    (tmp_path / "empty").mkdir()
    error = refused(capsys, tmp_path, merged, "--processor", tmp_path / "empty")
    assert "empty has no files of a tokenizer" in error
    processor = ("--processor", tmp_path / "model")
    assert run(capsys, "export", merged, *processor, "--out", tmp_path / "out")[0] == 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    card = (tmp_path / "out/README.md").read_text()
    assert "tuned afterwards" not in card and "original: not recorded" in card


def test_nothing_is_overwritten_by_an_export(merged, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert "exists already" in refused(capsys, tmp_path, merged)
    shutil.rmtree(tmp_path / "out")
    assert run(capsys, "export", merged, "--out", tmp_path / "out")[0] == 0


def test_an_exported_model_computes_what_the_merged_one_does(merged, tmp_path, capsys):
    assert run(capsys, "export", merged, "--form", "expanded", "--out", tmp_path / "out")[0] == 0
    from transformers import GPT2LMHeadModel

    batch = batch_of(FAMILIES["gpt2"])
    with torch.inference_mode():
        expected = ffmerge.load(merged)(**batch).logits
        logits = GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()(**batch).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
