"""Data that users bring to `ffmerge compress`: what is read, and what is refused in one line."""

import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import ffmerge
import own_models
from families import FAMILIES, pico
from ffmerge.compression.batches import from_examples, halves
from ffmerge.compression.encodings import Packed, Pictures, encoding_for
from ffmerge.compression.pictures import opened
from ffmerge.compression.read import PIECE, Request, pieces, read_examples, read_yaml
from own_models import WORDS, run, text
from provenance.digest import sha256_of

MODELS = {"text": "gpt2", "pairs": "marian", "images": "vit", "images with text": "clip"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Callable[[str], Path]:
    """models(wanted): a pico model that takes a kind of example."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second one costs more than it gains
    made: dict[str, Path] = {}

    def model(wanted: str) -> Path:
        if wanted not in made:
            made[wanted] = own_models.save(MODELS[wanted], tmp_path_factory.mktemp("model") / "m")
        return made[wanted]

    yield model
    torch.set_num_threads(threads)


def lines(*rows: object) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def table(**columns: list) -> Callable[[Path], None]:
    """A writer of a Parquet table."""
    return lambda file: parquet.write_table(pa.table(columns), file)


def png(file: Path) -> bytes:
    """The bytes of a picture, which is not left there."""
    content = own_models.image(file.parent / "one.png", 0).read_bytes()
    (file.parent / "one.png").unlink()
    return content


def png_head(width: int, height: int) -> bytes:
    """A picture that says how large it is, and little more."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0"))


def image_rows(**columns: list) -> Callable[[Path], None]:
    """A writer of a table of pictures, with other columns beside them."""

    def write(file: Path) -> None:
        n = len(next(iter(columns.values())))
        table(image=[{"bytes": png(file), "path": None}] * n, **columns)(file)

    return write


def cut_png(file: Path) -> None:
    file.write_bytes(png(file)[:90])


def cut_parquet(file: Path) -> None:
    table(text=[text(i) for i in range(9)])(file)
    file.write_bytes(file.read_bytes()[:-9])


def flipped_parquet(file: Path) -> None:
    table(text=[text(i) for i in range(500)])(file)
    content = bytearray(file.read_bytes())
    content[40:400] = bytes(360)
    file.write_bytes(content)


def twice_parquet(file: Path) -> None:
    columns = [pa.array([text(0)]), pa.array([text(1)])]
    parquet.write_table(pa.Table.from_arrays(columns, names=["text", "text"]), file)


def only_about(folder: Path) -> None:
    for name in ("README.md", "LICENSE.txt", ".hidden/a.txt", "__MACOSX/b.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text())


NO_IMAGE = {"bytes": None, "path": None}
CHAT = [{"role": "user", "content": "w2 w3"}]
REFUSED = {  # kind of example, file -> its content, the one line
    ("text", "a.csv"): [
        ("text,n\nw2, w3,1\n", "a.csv, line 2 has 3 fields, but the header has 2: quote"),
        ('text,n\n"w2\nw3",1\nw4\n', "a.csv, line 4 has 1 fields, but the header has 2"),
        ('text,n\nw2,1\n"w3,2\nw4,3\n', "a.csv, line 3: unexpected end of data; a quoted"),
        ('text\n"w2" w3\n', "a.csv, line 2: ',' expected after '\"'"),
        ("text,n,text\nw2,1,w3\n", "the header of a.csv has 'text' twice: rename one"),
        ("words\nw2\n", "no column for the text: name one with --text (it has: words)"),
        ("", "a.csv has no rows"),
        ("text\n", "a.csv has no rows"),
        ('text,n\n"",1\n  ,2\n', "none of the 2 rows of a.csv has text"),
        (b"text\nw2\n\xff\xfe\n", "a.csv, line 3 is not UTF-8 text (invalid start byte)"),
        ("text\nw2\nw3\0\n", "a.csv, line 3 holds NUL, as text in UTF-16 and binary files do"),
        ("text;n\nw2;1\n", "no column for the text: name one with --text (it has: text;n)"),
    ],
    ("text", "a.tsv"): [
        ("text\tn\nw2\tw3\t1\n", "line 2 has 3 fields, but the header has 2: take tabs"),
        ("text\ttext\nw2\tw3\n", "the header of a.tsv has 'text' twice"),
    ],
    ("text", "A.TSV"): [
        ("n\n1\n", "A.TSV has no column for the text"),
    ],
    ("text", "a.jsonl"): [
        ("", "a.jsonl has no rows"),
        (lines({"text": "w2"}) + '\n{"text', "a.jsonl, line 2 is not JSON"),
        ("[" * 100_000, "a.jsonl, line 1 is not JSON"),
        (lines(["w2"]), "a.jsonl, line 1 is not a JSON object"),
        ('{"text": "w2", "text": "w3"}', "line 1 is not JSON: an object has 'text' twice"),
        (lines({"text": 5}), "a.jsonl, line 1: the text is a number (5), not text"),
        (lines({"text": True}), "line 1: the text is true or false (True), not text"),
        (lines({"text": ["w2"]}), "the text is a list (['w2']), not text: name another"),
        (lines({"text": {"en": "w2"}}), "line 1: the text is a group of values"),
        (lines({"text": CHAT}), "not text: write chat messages out as text first"),
        (lines({"messages": CHAT}), "no column for the text: name one with --text"),
        (lines({"text": "w2 \ud800"}), "line 1: the text holds half a character"),
        (lines({"text": "w2 \0"}), "line 1: the text holds NUL, '\\x00': write the table again"),
        (lines({"text": None}, {"text": " \n"}), "none of the 2 rows of a.jsonl has text"),
        ('{"text": NaN}', "none of the 1 rows of a.jsonl has text"),
    ],
    ("text", "a.parquet"): [
        ("no table", "a.parquet is not a Parquet file that can be read"),
        ("", "a.parquet is not a Parquet file that can be read"),
        (cut_parquet, "a.parquet is not a Parquet file that can be read"),
        (flipped_parquet, "a.parquet is not a Parquet file that can be read"),
        (twice_parquet, "the header of a.parquet has 'text' twice"),
        (table(text=pa.array([], "string")), "a.parquet has no rows"),
        (table(text=["w2", None, 3.5][2:]), "row 1: the text is a number (3.5)"),
        (table(text=[float("nan"), 2.0]), "row 2: the text is a number (2.0)"),
        (table(text=[b"w2"]), "a.parquet, row 1: the text is bytes (b'w2')"),
        (table(text=["w2", "w3\0"]), "a.parquet, row 2: the text holds NUL, '\\x00'"),
        (table(text=[date(2026, 1, 1)]), "row 1: the text is of a type (datetime.date(2026, 1, 1"),
        (b"PARE" + bytes(90) + b"PARE", "a.parquet is not a Parquet file that can be read"),
        (table(text=[[1, 2]]), "a.parquet, row 1: the text is a list ([1, 2])"),
        (table(text=pa.nulls(3)), "none of the 3 rows of a.parquet has text"),
    ],
    ("text", "a.txt"): [
        (" \n\t\n \n", "the data hold 0 examples (text)"),
        (text(), "the data hold 1 examples (text); at least 2 are needed, 1 of them held out"),
        (b"w2\n\nw3\n\xff\n", "a.txt, line 4 is not UTF-8 text"),
        ("w2".encode("utf-16"), "a.txt, line 1 is not UTF-8 text"),
        ("w2\n\nw3\n".encode("utf-16-le"), "a.txt, line 1 holds NUL, as text in UTF-16"),
        (os.mkfifo, "a.txt is a pipe or a device, not a file"),
    ],
    ("text", "a.docx"): [
        ("x", "a.docx: this kind of file cannot be read here: give .txt"),
    ],
    ("text", "folder"): [
        (only_about, "folder holds no file that can be read here: give .txt"),
    ],
    ("text", "a.png"): [
        (cut_png, "a.png is an image, but this model takes text: give .txt"),
    ],
    ("pairs", "a.txt"): [
        (text(), "a.txt is a text, but this model takes pairs: give a table"),
    ],
    ("pairs", "a.jsonl"): [
        (lines({"source": "w2"}), "no column for the target: name one with --target"),
        (lines({"source": "w2", "target": 7}), "the target is a number (7), not text"),
    ],
    ("pairs", "a.csv"): [
        ("source,target\nw2,\n", "none of the 1 rows of a.csv has source and target"),
    ],
    ("images", "a.png"): [
        (cut_png, "a.png cannot be read as an image"),
        ("no picture", "a.png cannot be read as an image: its format is not"),
        (png_head(60_000, 60_000), "a.png has more than 178,956,970 pixels: make it"),
    ],
    ("images", "a.jsonl"): [
        (lines({"image": "b.png"}), "line 1: there is no image 'b.png'; give the path"),
        (lines({"image": "iVBORw0KGgo" * 9000}), "line 1: there is no image 'iVBORw0KGgo"),
        (lines({"image": 5}), "line 1: the image is a number (5), not the path"),
        (lines({"image": "a\0b"}), "line 1: there is no image 'a\\x00b'"),
    ],
    ("images", "a.parquet"): [
        (
            table(image=[b"GIF89a broken"] * 9),
            "cannot be read as an image: its format is not known",
        ),
        (table(image=[NO_IMAGE] * 2), "none of the 2 rows of a.parquet has image"),
        (image_rows(label=[1.5] * 9), "row 1: the label is a number (1.5), not a whole"),
        (image_rows(label=[[1, 0]] * 9), "row 1: the label is a list ([1, 0]), not a"),
    ],
    ("images", "a.csv"): [
        ("image,label\n", "a.csv has no rows"),
    ],
    ("images with text", "a.parquet"): [
        (image_rows(text=[5] * 9), "row 1: the text is a number (5), not text"),
        (image_rows(label=[5] * 9), "a.parquet has no column for the text"),
    ],
}


@pytest.mark.parametrize(
    "wanted, name, content, message",
    [(*named, *case) for named, cases in REFUSED.items() for case in cases],
)
def test_data_that_do_not_fit_are_refused_in_one_line(
    wanted, name, content, message, models, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    file = Path(name)
    if callable(content):
        content(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content)
    before, digest = sorted(tmp_path.rglob("*")), file.is_fifo() or sha256_of(file)
    features = [file] * (2 if name == "a.png" else 1)  # at least two examples are needed
    arguments = ["compress", models(wanted), "--out", "out", "--remove", 1, "--n-tokens", 12]
    capsys.readouterr()
    status, printed, error = run(capsys, *arguments, "--features", *features)
    assert (status, printed) == (2, "")
    assert error.startswith("error: ") and error.count("\n") == 1 and len(error) < 500
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before
    assert file.is_fifo() or sha256_of(file) == digest


def read(file: Path, wanted: str = "text", **more) -> list:
    request = Request(wanted, more.pop("columns", {}), **more)
    return list(read_examples([file], request))


ACCEPTED = [  # file, its content, the texts
    ("a.CSV", "text,n\nw2,1\n", ["w2"]),
    ("a.TXT", "w2\n\nw3\n", ["w2", "w3"]),
    ("a.txt", "\ufeffw2 \r\nw3\r\n\r\n\r\nw4", ["w2 \nw3", "w4"]),
    ("a.csv", '\ufefftext,n\r\n"w2, ""w3""\r\nw4",1\r\n', ['w2, "w3"\r\nw4']),
    ("a.csv", "n,text\n\n1,w2 5\"\n", ['w2 5"']),
    ("a.csv", "n,text\n1,NaN\n2,None\n", ["NaN", "None"]),  # words of a text
    ("a.tsv", 'text\tn\n"w2\t1\nw3"\t2\n"w4 ""w5"""\t3\n', ['"w2', 'w3"', 'w4 "w5"']),
    ("a.tsv", "text\n" + '"w2 w3\n' * 60, ['"w2 w3'] * 60),
    ("a.jsonl", lines({"n": 1}, {"text": "w2"}, {"text": None}, {"text": "w3"}), ["w2", "w3"]),
    ("a.jsonl", lines({"text": "5"}, {"text": "\u2028w2\u0085"}), ["5", "\u2028w2\u0085"]),
    ("a.parquet", table(content=["w2", None, " ", "w3"]), ["w2", "w3"]),
]  # fmt: skip


@pytest.mark.parametrize("name, content, texts", ACCEPTED)
def test_unusual_data_are_read_as_they_are_meant(name, content, texts, tmp_path):
    file = tmp_path / name
    content(file) if callable(content) else file.write_bytes(content.encode())
    with warnings.catch_warnings(action="ignore"):
        assert [example["text"] for example in read(file)] == texts


def test_rows_that_lack_a_text_are_left_out_with_one_warning_or_refused(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(lines({"text": "w2"}, {"text": None}, {"text": ""}, {"text": "w3"}))
    with pytest.warns(UserWarning, match=r"line 2 has no text; it was left out") as warned:
        assert len(read(file)) == 2
    assert len(warned) == 1
    with pytest.raises(ValueError, match=r"line 2 has no text: take out such rows"):
        read(file, complete=True)


def test_a_folder_is_read_without_what_is_not_data_and_with_what_is_linked(tmp_path):
    about = ("README.md", "licence.txt", ".ipynb_checkpoints/b.txt", "__MACOSX/._c.txt", ".d.txt")
    for name in ("data/a.txt", *(f"data/{each}" for each in about), "elsewhere/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/back").symlink_to(tmp_path / "data")
    (tmp_path / "data/lost").symlink_to(tmp_path / "nothing")
    assert [each["text"] for each in read(tmp_path / "data")] == ["data/a.txt", "elsewhere/e.txt"]
    assert [each["text"] for each in read(tmp_path / "data/README.md")] == ["data/README.md"]


def test_classes_of_images_may_be_linked_folders(tmp_path):
    for name in ("cat", "dog"):
        own_models.image(tmp_path / f"elsewhere/{name}/1.PNG", 0)
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert {each["label"] for each in read(tmp_path / "images", "images")} == {"cat", "dog"}


# --- long texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [" ", "\n", ""])
def test_a_long_text_is_cut_into_pieces_that_join_to_it(space, tmp_path):
    whole = space.join(f"w{i}" for i in range(40_000))
    parts = list(pieces(whole))
    assert "".join(parts) == whole and len(parts) > 3
    assert max(map(len, parts)) <= PIECE
    file = tmp_path / "a.txt"
    file.write_text(f"w1\n\n{whole}\n\nw2\n")
    first, *long, last = read(file)
    assert (first["text"], last["text"]) == ("w1", "w2")
    assert "".join(each["text"] for each in long) == whole
    assert [each.get("continues", False) for each in long] == [True] * (len(long) - 1) + [False]


def test_a_paragraph_in_pieces_has_the_tokens_that_it_has_as_a_whole(models, tmp_path):
    encoding = encoding_for(pico(FAMILIES["gpt2"]), models("text"), None)
    assert isinstance(encoding, Packed)
    whole = "\n".join(text(i) for i in range(4000))
    (tmp_path / "a.txt").write_text(whole)
    packed = list(encoding.encoded(read(tmp_path / "a.txt")))
    assert len(whole) > PIECE and len(read(tmp_path / "a.txt")) > 1
    tokens = encoding.tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"]
    assert [each for sequence in packed for each in sequence] == tokens
    assert packed == list(encoding.encoded([{"text": whole}]))


# --- one example a sequence, and what is held out -------------------------------------------------


def test_a_decoder_takes_one_text_a_sequence_if_it_is_asked_to(models, tmp_path, capsys):
    model, data = models("text"), own_models.data_for(FAMILIES["gpt2"], tmp_path / "texts")
    arguments = ["compress", model, "--features", data, "--layers", "0-1", "--n-tokens", 40]
    printed = {}
    for more in ([], ["--no-pack"]):
        status, printed[len(more)], error = run(
            capsys, *arguments, *more, "--out", tmp_path / f"out{len(more)}"
        )
        assert status == 0, error
    assert "sequences: texts with blank lines between them, packed into 16 tokens" in printed[0]
    assert "sequences: one text each, of at most 16 tokens" in printed[1]
    encoding = encoding_for(pico(FAMILIES["gpt2"]), model, None, pack=False)
    single = list(encoding.encoded({"text": text(i)} for i in range(3)))
    assert [encoding.tokenizer(text(i))["input_ids"] for i in range(3)] == single


def held_out(models, n_texts: int, n_tokens: int | None, n_held_out: int | None, **more) -> list:
    model = pico(FAMILIES["gpt2"])
    encoding = encoding_for(model, models("text"), None, pack=False)
    examples = ({"text": f"{WORDS[i % len(WORDS)]} {text(i)}"} for i in range(n_texts))
    data = from_examples(model, encoding, examples, n_tokens, n_held_out, 2, **more)
    return [row.tolist() for batch in data.held_out for row in batch["input_ids"]]


@pytest.mark.parametrize("n_texts, n_held_out, n", [(30, None, 6), (500, None, 16), (30, 12, 12)])
def test_the_held_out_part_does_not_move_with_the_number_of_tokens(models, n_texts, n_held_out, n):
    parts = [held_out(models, n_texts, n_tokens, n_held_out) for n_tokens in (12, 60, 150, None)]
    assert len(parts[0]) == n
    assert all(part == parts[0] for part in parts)


@pytest.mark.parametrize("sizes", [[2], [4, 4], [5, 5, 2], [1, 7], [3, 3, 3]])
def test_the_halves_of_batches_are_all_their_examples_in_order(sizes):
    rows = torch.arange(sum(sizes)).split(sizes)
    first, second = halves([{"input_ids": ids[:, None], "labels": ids} for ids in rows])
    n = sum(sizes) // 2
    assert torch.equal(torch.cat([batch["labels"] for batch in first]), torch.arange(n))
    rest = torch.cat([batch["input_ids"] for batch in second])
    assert torch.equal(rest, torch.arange(n, sum(sizes))[:, None])


def test_one_example_alone_has_no_halves():
    with pytest.raises(ValueError, match="one example is held out; at least two are needed"):
        halves([{"input_ids": torch.zeros(1, 3)}])


def test_a_file_of_ones_own_is_held_out(models, tmp_path, capsys):
    model, data = models("text"), own_models.data_for(FAMILIES["gpt2"], tmp_path / "texts")
    own, out = tmp_path / "own.txt", tmp_path / "out"
    own.write_text("\n\n".join(text(i) for i in range(100, 103)))
    arguments = ["compress", model, "--features", data, "--layers", "0-1", "--held-out"]
    status, printed, error = run(capsys, *arguments, own, "--out", out, "--no-pack", "--json")
    assert status == 0, error
    assert json.loads(printed)["n_held_out"] == 3
    record = json.loads((out / "ffmerge_record.json").read_text())
    assert record["input"]["data"] == {str(file): sha256_of(file) for file in (data, own)}
    status, _, error = run(capsys, *arguments, tmp_path / "no.txt", "--out", tmp_path / "b")
    assert status == 2 and error == f"error: there is no file or directory {tmp_path / 'no.txt'}\n"
    own.write_text(" ")
    status, _, error = run(capsys, *arguments, own, "--out", tmp_path / "b")
    assert status == 2 and error == (
        "error: the held-out data hold 0 examples (text); needed: at least 1\n"
    )
    with pytest.raises(ValueError, match="have to be files if the other data are"):
        ffmerge.compress(model, features=data, held_out=[{}], out=tmp_path / "b", remove=1)


# --- pictures -------------------------------------------------------------------------------------


def test_pictures_of_16_bits_keep_their_shades(tmp_path):
    shades = numpy.arange(0, 65536, 257, dtype="uint16").reshape(16, 16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(shades).save(tmp_path / name)
        pixels = numpy.asarray(opened(tmp_path / name, name))
        assert pixels.shape == (16, 16, 3)
        assert (pixels[..., 0].ravel() == numpy.arange(256)).all()
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n\x00\x00\xff\xff")
    assert numpy.asarray(opened(tmp_path / "a.pgm", "a", 1)).tolist() == [[0, 255]]
    Image.fromarray(numpy.ones((2, 2), "float32")).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match="it has 32 bits a pixel: save it with 8 or 16"):
        opened(tmp_path / "f.tif", "f")


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    picture = Image.fromarray(numpy.zeros((4, 8, 3), "uint8"))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert opened(tmp_path / "a.jpg", "a").size == (4, 8)


def test_a_model_of_one_channel_is_given_shades_of_grey(tmp_path):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = pico(FAMILIES["vit"]).config
    config.num_channels = 1
    size = {"height": 4, "width": 4}
    file = own_models.image(tmp_path / "a.png", 0)
    example = {"image": file, "label": None, "place": "a.png"}
    one = ViTImageProcessorPil(size=size, image_mean=[0.5], image_std=[0.5])
    assert Pictures(one, config).batch([example])["pixel_values"].shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"a\.png: the model's image processor takes no"):
        Pictures(ViTImageProcessorPil(size=size), config).batch([example])
    config.num_channels = 4
    with pytest.raises(ValueError, match="but the model takes 4"):
        Pictures(one, config).batch([example])


def test_labels_are_numbers_or_names_in_whatever_form_a_table_has_them(models, tmp_path):
    config = pico(FAMILIES["vit"]).config
    named = {config.id2label[1]: 1, "2": 2, "2.0": 2, 2: 2, True: 1, None: None, "": None}
    file = tmp_path / "a.jsonl"
    own_models.image(tmp_path / "a.png", 0)
    file.write_text(lines(*({"image": "a.png", "label": label} for label in named)))
    labels = [Pictures(None, config).label(example) for example in read(file, "images")]
    assert labels == list(named.values())
    image_rows(label=[2.0, None, float("nan")])(tmp_path / "b.parquet")
    assert [each["label"] for each in read(tmp_path / "b.parquet", "images")] == [2, None, None]
    encoding = Pictures(None, config)
    with pytest.warns(UserWarning, match="a: the model has no label 'cat'; this image") as warned:
        assert encoding.label({"label": "cat", "place": "a"}) is None
        assert encoding.label({"label": 10**30, "place": "b"}) is None
    assert len(warned) == 1


# --- YAML -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, message",
    [
        ("prefix: a\ntowers: {}\nprefix: b\n", "a.yaml, line 1: the key 'prefix' comes twice"),
        ("towers: {decoder: {up: a, up: b}}", "a.yaml, line 1: the key 'up' comes twice"),
        ("a: [", "a.yaml, line 1: "),
        ("a: \ud7ff\0", "a.yaml is not YAML: "),
    ],
)
def test_a_fault_in_an_entry_of_an_architecture_has_its_line(
    content, message, models, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(content)
    arguments = ["--features", tmp_path, "--out", "out", "--remove", 1, "--architecture", "a.yaml"]
    status, printed, error = run(capsys, "compress", models("text"), *arguments)
    assert (status, printed) == (2, "") and error.count("\n") == 1
    assert message in error
    assert os.listdir() == ["a.yaml"]


def test_an_anchor_may_be_merged_and_overridden(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
    assert read_yaml(tmp_path / "a.yaml")["b"] == {"x": 3, "y": 2}
