"""Data of one's own in a task: checked before any job, converted to what jobs read."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from pyarrow import parquet

from experiment.config.run import validated
from experiment.inputs import own_data
from experiment.inputs.own_data import is_plain, rows, schema
from experiment.inputs.parquet import write_shards
from experiment.tasks.task import _load, parquet_files
from provenance.digest import sha256_of
from provenance.sources import REPOSITORY
from workflow_copy import Copy

PICO = yaml.safe_load((REPOSITORY / "config/pico.yaml").read_text())
TEXT, PAIRS, IMAGES = (
    {"text": "text"},
    {"source": "zh", "target": "en"},
    {"image": "image", "label": "label"},
)
LONG = "Some words that are many enough to give all the tokens that are asked for. " * 40
OWN = {"content": LONG, "page": 7}


def png(mode: str = "L") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(numpy.zeros((28, 28), "uint8")).convert(mode).save(stream, "png")
    return stream.getvalue()


def lines(*rows: object) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def table(**columns: list) -> Callable[[Path], None]:
    return lambda file: parquet.write_table(pa.table(columns), file)


def images(**columns: list) -> Callable[[Path], None]:
    """A table of plain bytes, without the metadata of the library `datasets`."""
    n = len(next(iter(columns.values())))
    return table(image=[{"bytes": png(), "path": None}] * n, **columns)


def plain_images(labels: list[int]) -> Callable[[Path], None]:
    """A table as the library `datasets` writes it, which jobs read as it is."""
    rows = [{"image": {"bytes": png(), "path": None}, "label": label} for label in labels]
    made = pa.Table.from_pylist(rows, schema(IMAGES, rows[0]))
    return lambda file: parquet.write_table(made, file)


def write(file: Path, content) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content)
    return file


# --- what is refused before any job ---------------------------------------------------------------

REFUSED = {  # task, file -> content, the one line
    ("gpt2", "a.parquet"): [
        (table(text=[LONG, None, LONG]), "a.parquet, row 2 has no text: take out such rows, or"),
        (table(text=[1, 2]), "a.parquet, row 1: the text is a number (1), not text: call another"),
        (table(text=[["a"]]), "a.parquet, row 1: the text is a list (['a']), not text"),
        (table(words=[LONG]), "no column for the text: call one text (it has: words)"),
        (table(text=pa.array([], "string")), "a.parquet has no rows"),
        (LONG, "a.parquet is not a Parquet file that can be read"),
        (table(text=[LONG] * 2, article=["a", None]), "row 2: some rows have no article: fill"),
    ],
    ("gpt2", "a.jsonl"): [
        (lines({"text": LONG}, {"text": None}), "a.jsonl, line 2 has no text: take out such rows"),
        (lines({"text": LONG}, {"text": 5}), "a.jsonl, line 2: the text is a number (5), not text"),
        (lines({"words": LONG}), "a.jsonl has no column for the text: call one text"),
        ('{"text": "a"', "a.jsonl, line 1 is not JSON"),
        (lines({"text": LONG, "article": 1}, {"text": LONG}), "line 2: some rows have no article"),
        (lines({"text": LONG}, {"text": LONG, "page": "b"}), "line 2: some rows have no page"),
        (lines({"text": LONG, "page": 0.5}), "line 1: the page is a number (0.5), not a whole num"),
    ],
    ("gpt2", "a.csv"): [
        ("text,n\na, b,1\n", "a.csv, line 2 has 3 fields, but the header has 2"),
        ("text\n", "a.csv has no rows"),
    ],
    ("gpt2", "d/a.parquet"): [
        (
            lambda file: (table(text=[LONG])(file), (file.parent / "b.txt").write_text(LONG)),
            "b.txt is beside Parquet files: put data of one form in a folder",
        ),
        (
            lambda file: (table(text=[LONG])(file), table(words=[LONG])(file.parent / "b.parquet")),
            "b.parquet has no column for the text: call one text (it has: words)",
        ),
    ],
    ("gpt2", "a.jsonl.gz"): [(b"\x1f\x8b\x08", "a.jsonl.gz: this kind of file cannot be read")],
    ("vit", "d/cat/a.png"): [
        (lambda file: file.write_bytes(png()), "a.png: the label is 'cat'; the model's classes"),
    ],
    ("vit", "d/a.png"): [(lambda file: file.write_bytes(png()), "a.png: there is no label; the")],
    ("gpt2", "a.docx"): [("x", "a.docx: this kind of file cannot be read here: give .txt")],
    ("gpt2", "a.txt"): [
        (b"\xff", "a.txt, line 1 is not UTF-8 text"),
        (LONG.encode("utf-16-le"), "a.txt, line 1 holds NUL, as text in UTF-16"),
        ("\n \n\t\n", "a.txt holds no text: nothing but white space"),
    ],
    ("marian", "a.txt"): [(LONG, "a.txt is a text, but this model takes pairs: give a table")],
    ("marian", "a.tsv"): [("zh\tde\na\tb\n", "a.tsv has no column 'en' (it has: zh, de)")],
    ("marian", "a.jsonl"): [
        (lines({"zh": "a", "en": ""}), "a.jsonl, line 1 has no target: take out such rows"),
    ],
    ("marian", "a.parquet"): [
        (table(zh=["a"], en=[None]), "a.parquet, row 1 has no target"),
        (table(zh=["a"]), "a.parquet has no column 'en' (it has: zh)"),
        (table(translation=[{"zh": "a", "en": "b"}]), "no column 'zh' (it has: translation, tra"),
    ],
    ("vit", "a.parquet"): [
        (images(label=[1, None]), "a.parquet, row 2: there is no label; the model's classes are"),
        (images(label=["cat"]), "a.parquet, row 1: the label is 'cat'; the model's classes are 0"),
        (images(label=[1, 10]), "row 2: the label is 10; the model's classes are 0 to 9: LABEL_0"),
        (images(label=["-1"]), "a.parquet, row 1: the label is '-1'; the model's classes are"),
        (images(label=[1, 1], page=["a", None]), "row 2: some rows have no page: fill that column"),
        (images(label=[1], page=[["a"]]), "row 1: the page is a list (['a']), not a whole number"),
        (
            plain_images([*range(10)] * 40 + [12]),
            "in the column label: the label is 12; the model's",
        ),
        (
            plain_images([*range(10)] * 40 + [-1]),
            "in the column label: the label is -1; the model's",
        ),
        (images(label=[0.5]), "a.parquet, row 1: the label is a number (0.5), not a whole number"),
        (images(n=[1]), "a.parquet, row 1: there is no label; the model's classes are 0 to 9"),
        (table(image=[b"x"], label=[1]), "a.parquet, row 1 cannot be read as an image"),
        (table(image=[{"bytes": None}], label=[1]), "a.parquet, row 1 has no image"),
    ],
    ("vit", "a.csv"): [("image,label\nb.png,1\n", "a.csv, line 2: there is no image 'b.png'")],
}


@pytest.mark.parametrize(
    "task, name, content, message",
    [(*named, *case) for named, cases in REFUSED.items() for case in cases],
)
def test_a_split_that_jobs_could_not_read_is_refused_in_one_line(
    task, name, content, message, tmp_path, monkeypatch
):
    file = write(tmp_path / "own" / name, content)
    digest = sha256_of(tmp_path)
    raw = {**copy.deepcopy(PICO), "tasks": {task: copy.deepcopy(PICO["tasks"][task])}}
    named = tmp_path / "own/d" if name.startswith("d/") else file
    raw["tasks"][task]["dataset"]["validation"] = {"path": str(named)}
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(ValueError) as refused:
        validated(raw)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"tasks.{task}.dataset.validation.path: {tmp_path}/own/")
    assert message in line and len(line) < 500
    assert sha256_of(tmp_path) == digest


# --- what is read ---------------------------------------------------------------------------------

FORMS = [  # columns, file, its content, the rows that jobs read
    (TEXT, "a.txt", "a b\nc\n\nd\n", [{"text": "a b\nc"}, {"text": "d"}]),
    (TEXT, "a.jsonl", lines({"content": "a"}, {"content": "b"}), [{"text": "a"}, {"text": "b"}]),
    (TEXT, "A.CSV", 'n,text\n1,"a, b"\n', [{"text": "a, b"}]),
    (TEXT, "a.parquet", table(sentence=["a", "b"]), [{"text": "a"}, {"text": "b"}]),
    (PAIRS, "a.tsv", "en\tzh\na\tb\n", [{"zh": "b", "en": "a"}]),
    (PAIRS, "a.jsonl", lines({"zh": "b", "en": "a", "n": 1}), [{"zh": "b", "en": "a"}]),
    (TEXT, "a.csv", "page,text\n1,a\n1,b\n", [{"page": "1", "text": t} for t in "ab"]),
    (TEXT, "b.parquet", table(content=["a"], article=[7.0]), [{"article": "7", "text": "a"}]),
    (
        PAIRS,
        "b.jsonl",
        lines({"zh": "b", "en": "a", "article": "x", "page": 2}),
        [{"article": "x", "page": "2", "zh": "b", "en": "a"}],
    ),
    (
        {"source": "article", "target": "en"},
        "c.jsonl",
        lines({"article": "b", "en": "a"}),
        [{"article": "b", "en": "a"}],
    ),
]


def converted(file: Path, columns: dict[str, str], folder: Path, classes=None) -> Path:
    """Convert a file as the job does."""
    first, *others = rows(file, columns, classes)
    write_shards([first, *others], schema(columns, first), folder, 1, 1)
    return folder


@pytest.mark.parametrize("columns, name, content, expected", FORMS)
def test_forms_that_the_tool_reads_are_converted_to_what_jobs_read(
    columns, name, content, expected, tmp_path
):
    file = write(tmp_path / name, content)
    own_data.check(str(file), columns)
    assert not is_plain(str(file), columns)
    converted(file, columns, tmp_path / "made")
    assert is_plain(str(tmp_path / "made"), columns)
    assert list(_load(str(tmp_path / "made"))) == expected


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.parquet", images(label=[3, 3])),
        ("a.parquet", images(labels=[3.0, 3.0])),
        ("a.parquet", images(label=["owl", "3"])),
        ("a.csv", "image,label\nb.png,3\nb.png,3\n"),
    ],
)
def test_pictures_in_plain_bytes_or_by_their_path_are_decoded(name, content, tmp_path):
    write(tmp_path / "b.png", png())
    file = write(tmp_path / name, content)
    converted(file, IMAGES, tmp_path / "made", ["cat", "dog", "cow", "owl"])
    assert is_plain(str(tmp_path / "made"), IMAGES)
    first, second = _load(str(tmp_path / "made"))
    assert first["label"] == second["label"] == 3
    assert first["image"].size == (28, 28) and first["image"].mode == "L"


@pytest.mark.parametrize(
    "label, message",
    [
        ("cow", "the label is 'cow'; the model's classes are 0 to 2: cat, crane, crane"),
        ("crane", "the label is 'crane'"),  # two classes have this name
        ("CAT", "the label is 'CAT'"),
        ("3", "the label is '3'"),
    ],
)
def test_a_class_that_the_model_does_not_name_once_is_refused(label, message, tmp_path):
    model = {"model_type": "vit", "id2label": {"2": "crane", "0": "cat", "1": "crane"}}
    classes = own_data.classes_of(model)
    file = write(tmp_path / "a.parquet", images(label=["cat", "2", label]))
    with pytest.raises(ValueError, match=f"a.parquet, row 3: {message}"):
        own_data.check(str(file), IMAGES, classes)
    with pytest.raises(ValueError, match="row 1: the label is 'cat'; give the number of the class"):
        own_data.check(str(file), IMAGES, own_data.classes_of({}))  # a model that is not here yet


def test_embedded_data_are_read_as_they_are():
    for task in validated_pico().tasks.values():
        columns = own_data.columns_of(task)
        for split in ("train", "validation", "test"):
            assert is_plain(str(REPOSITORY / getattr(task.dataset, split).path), columns)


def validated_pico():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        return validated(copy.deepcopy(PICO))


def test_hidden_files_of_a_folder_of_parquet_are_no_data(tmp_path):
    for name in (
        "a.parquet",
        "b/c.parquet",
        ".ipynb_checkpoints/a.parquet",
        "__MACOSX/._a.parquet",
    ):
        write(tmp_path / "data" / name, table(text=[name]))
    named = [
        str(Path(file).relative_to(tmp_path)) for file in parquet_files(str(tmp_path / "data"))
    ]
    assert named == ["data/a.parquet", "data/b/c.parquet"]
    assert is_plain(str(tmp_path / "data"), TEXT)
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere/d.parquet", table(text=["d"]))
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    assert not is_plain(f"{tmp_path}/data/", TEXT)  # a job would not enter the linked folder
    assert len(list(rows(tmp_path / "data", TEXT))) == 3


@pytest.mark.slow  # Snakemake starts
def test_a_job_converts_a_split_and_the_jobs_after_it_read_that(tmp_path):
    copy_ = Copy(tmp_path, ["gpt2"])
    task = copy_.config["tasks"]["gpt2"]
    for split in ("train", "validation"):
        write(tmp_path / f"own/{split}.jsonl", lines(*(OWN for _ in range(20))))
        task["dataset"][split] = {"path": f"own/{split}.jsonl"}
    task["base_model"]["from_scratch"]["train"] = {"path": "own/train.jsonl"}
    copy_.write_config()
    made = f"{copy_.config['results']}/gpt2"
    copy_.run(target=f"{made}/dataset/validation")
    found = list(_load(str(tmp_path / made / "dataset/validation")))
    assert found == [{"page": "7", "text": LONG}] * 20
    record = json.loads((tmp_path / made / "dataset/validation.record.json").read_text())
    assert record["input"]["data"]["sha256"] == sha256_of(tmp_path / "own/validation.jsonl")
    assert copy_.jobs_to_run().count("convert_dataset") == 2  # train, and the base model's
