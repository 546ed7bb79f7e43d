"""The embedded demo data: what is shipped, and the code that takes it from packages.

With FFMERGE_PACKAGES naming a folder of the package files, everything is built again as well.
"""

import hashlib
import io
import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from corpora import images, read_member, text, translation, write_split
from corpora.libreoffice_help import page_paragraphs
from corpora.wikitext import prose_paragraphs
from experiment import inputs
from experiment.inputs.packages import (
    check_sha256,
    download_command,
    fetch_package,
    iter_members,
)
from provenance.digest import sha256_of
from provenance.sources import REPOSITORY

DEMO = REPOSITORY / "resources" / "demo"
SOURCES = yaml.safe_load((DEMO / "sources.yaml").read_text())
SHIPPED = [file for file in SOURCES["data"] if not file["path"].endswith("train_full.parquet")]
SPLITS = ("train", "validation", "test")
PAIRS_OF_SPLITS = [("train", "validation"), ("train", "test"), ("validation", "test")]


def columns(kind: str, split: str) -> dict[str, list]:
    return pq.read_table(DEMO / "data" / kind / f"{split}.parquet").to_pydict()


# --- the shipped files ----------------------------------------------------------------------------


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file["path"])
def test_a_shipped_file_is_the_one_that_the_sources_describe(file):
    assert sha256_of(DEMO / file["path"]) == file["sha256"]
    assert pq.read_metadata(DEMO / file["path"]).num_rows == file["rows"]
    assert set(file["packages"]) <= set(SOURCES["packages"])


def test_every_data_file_has_an_entry_in_the_sources():
    on_disk = {path.relative_to(DEMO).as_posix() for path in (DEMO / "data").rglob("*.parquet")}
    assert on_disk == {file["path"] for file in SHIPPED}


@pytest.mark.parametrize(("kind", "column"), [("text", "article"), ("translation", "page")])
@pytest.mark.parametrize(("one", "other"), PAIRS_OF_SPLITS)
def test_no_article_and_no_page_is_in_two_splits(kind, column, one, other):
    assert not set(columns(kind, one)[column]) & set(columns(kind, other)[column])


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize(("one", "other"), PAIRS_OF_SPLITS)
def test_no_sentence_of_either_language_is_in_two_splits(language, one, other):
    one_side, other_side = (
        {translation.comparable(sentence) for sentence in columns("translation", split)[language]}
        for split in (one, other)
    )
    assert "" not in one_side
    assert not one_side & other_side


@pytest.mark.parametrize("split", SPLITS)
def test_every_paragraph_is_one_line_of_normalised_text(split):
    for paragraph in columns("text", split)["text"]:
        assert paragraph == " ".join(paragraph.split()) != ""


def test_validation_has_two_percent_and_test_15_beginnings_of_each_source_of_text():
    n_chars: Counter = Counter()
    tested: dict[str, int] = Counter()
    for split in SPLITS:
        held = columns("text", split)
        for paragraph, article in zip(held["text"], held["article"], strict=True):
            is_address = article[:4].isdigit() and article[4] == "_"
            n_chars[split, is_address] += len(paragraph)
            tested[article] += len(paragraph) if split == "test" else 0
    for is_address in (True, False):
        total = sum(n_chars[split, is_address] for split in SPLITS)
        assert n_chars["validation", is_address] / total == pytest.approx(0.02, abs=0.003)
    lengths = {article: n for article, n in tested.items() if n}
    assert Counter(article[:4].isdigit() for article in lengths) == {True: 15, False: 15}
    assert max(lengths.values()) < 2 * text.TEST_CHARS


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_has_equally_many_images(split):
    counts = Counter(columns("images", split)["label"])
    assert len(counts) == 10
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize(("one", "other"), PAIRS_OF_SPLITS)
def test_no_image_is_in_two_splits(one, other):
    one_side, other_side = (
        {image["bytes"] for image in columns("images", split)["image"]} for split in (one, other)
    )
    assert not one_side & other_side


@pytest.mark.parametrize("module", [text, images, translation], ids=lambda m: m.__name__)
def test_datasets_restores_the_feature_types(module, tmp_path):
    datasets = pytest.importorskip("datasets")
    kind = module.__name__.rpartition(".")[2]
    data_files = {split: str(DEMO / "data" / kind / f"{split}.parquet") for split in SPLITS}
    loaded = datasets.load_dataset("parquet", data_files=data_files, cache_dir=str(tmp_path))
    for split in SPLITS:
        assert loaded[split].features == module.features()
    if module is images:
        assert isinstance(module.features()["label"], datasets.ClassLabel)
        assert loaded["test"][0]["image"].size == (28, 28)


# --- the code -------------------------------------------------------------------------------------


def test_wiki_markup_is_reduced_to_running_prose():
    wikitext = (
        "{{Infobox|name=x}}\n[[File:A.jpg|thumb|A caption that is long enough to be kept "
        "if the link were not dropped.]]\n"
        "The '''aardvark''' ({{IPAc-en|x}}; ''Orycteropus'') is a [[mammal|medium-sized mammal]] "
        "of {{convert|60|kg|lb}} native to [[Africa]].<ref>{{cite|url=x}} Note.</ref><!-- no -->\n"
        "* A list item that is certainly long enough to be taken for a paragraph of prose.\n"
        "A paragraph with the formula <math>x^2</math> that is long enough, and yet is dropped.\n"
        "== References ==\n"
        "This is a sentence below references that is long enough but does not belong to it.\n"
        "== Habitat ==\n{| class=wikitable\n| A cell with a sentence that is long enough.\n|}\n"
        "It lives in savannas &amp; grasslands wherever ants and termites are to be found."
    )
    assert list(prose_paragraphs(wikitext)) == [
        "The aardvark (Orycteropus) is a medium-sized mammal of 60 kg native to Africa.",
        "It lives in savannas & grasslands wherever ants and termites are to be found.",
    ]


def test_every_article_is_in_one_split_and_the_held_out_ones_are_as_many_as_said():
    articles = {f"article {i}": ["x" * 100] * (1 + i % 7) for i in range(400)}
    splits = text.split_articles(articles)
    assert sorted(title for titles in splits.values() for title in titles) == sorted(articles)
    total = sum(len("".join(paragraphs)) for paragraphs in articles.values())
    held_out = sum(len("".join(articles[title])) for title in splits["validation"])
    assert held_out / total == pytest.approx(text.VALIDATION_SHARE, rel=0.1)
    assert len(splits["test"]) == text.N_TEST_ARTICLES
    assert max(len(articles[title]) for title in splits["test"]) <= 4  # paragraphs, the median


def test_the_beginning_of_an_article_is_of_whole_paragraphs():
    half = "x" * (text.TEST_CHARS // 2)
    assert text.beginning([half, half, "more"]) == [half, half]
    assert text.beginning([half, "short", half, "more"]) == [half, "short", half]
    assert text.beginning(["all of it"]) == ["all of it"]


def test_the_split_does_not_depend_on_the_order_of_the_articles():
    articles = {f"article {i}": ["x" * 100] for i in range(200)}
    assert text.split_articles(articles) == text.split_articles(dict(reversed(articles.items())))


def test_subsets_of_images_are_disjoint_and_balanced():
    labels = np.repeat(np.arange(10, dtype=np.uint8), 60)
    one, other = images.balanced_subsets(labels, [200, 400], name="x")
    assert not set(one) & set(other)
    assert Counter(labels[one].tolist()) == dict.fromkeys(range(10), 20)
    assert Counter(labels[other].tolist()) == dict.fromkeys(range(10), 40)
    with pytest.raises(ValueError, match="cannot take"):
        images.balanced_subsets(labels, [200, 410], name="x")


def test_help_text_has_the_default_variant_and_no_code():
    html = (
        '<p id="par_1" class="paragraph">Press <span class="switchinline">'
        '<span hidden="true" id="MAC1"><span class="emph">Command</span> key</span>'
        '<span hidden="true" id="default1"><span class="emph">Ctrl</span></span></span>+F4.</p>'
        '<p id="par_2" class="code">Print "x"</p><p id="bm_3">Bookmark</p>'
        '<h2 id="hd_4">Sun\u00adday &amp;<br>Monday</h2>'
    )
    assert page_paragraphs(html) == {"par_1": "Press Ctrl+F4.", "hd_4": "Sunday & Monday"}


def test_sentences_are_paired_only_if_both_sides_have_equally_many():
    english = {("a", "1"): "Click here. Then click OK.", ("a", "2"): "Click here. Then click OK."}
    chinese = {
        ("a", "1"): "点击此处。然后点击「确定」。",
        ("a", "2"): "点击此处，然后点击「确定」。",
    }
    chinese |= {("a", "3"): "无译文", ("a", "4"): "Not translated"}
    english |= {("a", "4"): "Not translated"}
    pairs = [(pair["zh"], pair["en"]) for pair in translation.aligned_pairs(chinese, english)]
    assert pairs == [
        ("点击此处。", "Click here."),
        ("然后点击「确定」。", "Then click OK."),
        ("点击此处，然后点击「确定」。", "Click here. Then click OK."),
    ]


def test_a_pair_is_removed_if_either_side_is_taken():
    taken = translation.sentences([{"zh": "「打开」文件。", "en": "Open the file."}])
    pairs = [
        {"zh": "打开文件", "en": "Opens a file"},
        {"zh": "开启文件", "en": "open the  file"},
        {"zh": "关闭文件", "en": "Close the file"},
    ]
    assert translation.without_sentences(pairs, taken) == pairs[2:]


def test_packages_of_all_three_kinds_are_read(tmp_path):
    content = {"folder/a.txt": b"a", "folder/b.bin": b"b"}
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:xz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (tmp_path / "x.tgz").write_bytes(tar.getvalue())
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        for name, data in content.items():
            wheel.writestr(name, data)
    debian = b"!<arch>\n"
    for name, data in [("debian-binary", b"2.0"), ("data.tar.xz", tar.getvalue())]:
        debian += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data
        debian += b"\n" * (len(data) % 2)
    (tmp_path / "x.deb").write_bytes(debian)

    for kind in ("tgz", "whl", "deb"):
        assert dict(iter_members(tmp_path / f"x.{kind}", "*")) == content
        assert read_member(tmp_path / f"x.{kind}", "*.txt") == b"a"
        with pytest.raises(ValueError, match="no file that matches"):
            read_member(tmp_path / f"x.{kind}", "*.html")


def packages() -> dict[str, bytes]:
    """A package of each kind with one file, by its name."""
    tar, wheel = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:xz") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = 5000
        archive.addfile(member, io.BytesIO(bytes(range(250)) * 20))
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", bytes(range(250)) * 20)
    size = len(tar.getvalue())
    header = f"{'data.tar.xz':<16}{0:<12}{0:<6}{0:<6}{0:<8}{size:<10}`\n".encode()
    debian = b"!<arch>\n" + header + tar.getvalue()
    return {"x.tgz": tar.getvalue(), "x.whl": wheel.getvalue(), "x.deb": debian}


@pytest.mark.parametrize("name", ["x.tgz", "x.whl", "x.deb"])
def test_a_package_cut_off_anywhere_altered_or_too_large_is_named(name, tmp_path, monkeypatch):
    file, content = tmp_path / name, packages()[name]
    broken = [content[: len(content) * n // 9] for n in range(6)]
    broken += [b"no package", content[:8] + b"\xff" * 60 + content[68:], b"!<arch>\n" + b" " * 60]
    for each in broken:
        file.write_bytes(each)
        with pytest.raises(ValueError, match=r"x\.|not a Debian package"):
            list(iter_members(file, "*.txt"))
    file.write_bytes(content)
    monkeypatch.setattr(inputs, "MAX_MEMBER_BYTES", 4999)
    with pytest.raises(ValueError, match=r"a\.txt has 5,000 bytes, more than 4,999"):
        list(iter_members(file, "*.txt"))


def test_a_wheel_is_requested_by_the_tags_in_its_name():
    package = SOURCES["packages"]["gensim"]
    keys = ("registry", "name", "version", "file")
    command = download_command(*(package[key] for key in keys))
    assert "gensim==4.4.0" in command
    assert {"--python-version=311", "--abi=cp311", "--platform=manylinux_2_28_x86_64"} <= set(
        command
    )


def test_a_wrong_digest_is_reported_with_both_digests_and_the_advice(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    actual = hashlib.sha256(b"x").hexdigest()
    with pytest.raises(ValueError, match=rf"x\.deb has sha256 {actual}, expected 00ff\. Do this\."):
        check_sha256(tmp_path / "x", "00ff", "x.deb", "Do this.")


def test_a_package_in_the_named_folder_is_taken_if_its_digest_is_right(tmp_path, monkeypatch):
    package = {"registry": "npm", "name": "x", "version": "1.0", "file": "x-1.0.tgz"}
    (tmp_path / "x-1.0.tgz").write_bytes(b"content")
    monkeypatch.setenv("FFMERGE_PACKAGES", str(tmp_path))
    digest = sha256_of(tmp_path / "x-1.0.tgz")
    fetch_package(**package, sha256=digest, destination=tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"
    with pytest.raises(ValueError, match=rf"x-1.0.tgz has sha256 {digest}, expected 00ff"):
        fetch_package(**package, sha256="00ff", destination=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_missing_client_is_named_with_the_way_to_do_without_it(tmp_path, monkeypatch):
    monkeypatch.delenv("FFMERGE_PACKAGES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        OSError, match=r"npm package x 1.0.0 needs the program npm.*FFMERGE_PACKAGES"
    ):
        fetch_package("npm", "x", "1.0.0", "x-1.0.0.tgz", "00ff", tmp_path / "copy")


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [{"text": f"row {i}", "article": "a"} for i in range(1000)]
    for name in ("one", "two"):
        write_split(rows, text.features(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# --- everything again -----------------------------------------------------------------------------


@pytest.mark.skipif("FFMERGE_PACKAGES" not in os.environ, reason="FFMERGE_PACKAGES names no folder")
@pytest.mark.parametrize("module", [text, images, translation], ids=lambda m: m.__name__)
def test_a_rebuild_from_the_packages_gives_the_described_bytes(module, tmp_path):
    kind = module.__name__.rpartition(".")[2]
    expected = {
        Path(file["path"]).stem: file
        for file in SOURCES["data"]
        if file["path"].startswith(f"data/{kind}/")
    }
    names = next(iter(expected.values()))["packages"]
    packages = [SOURCES["packages"][name] for name in names]
    paths = [Path(os.environ["FFMERGE_PACKAGES"]) / package["file"] for package in packages]
    for path, package in zip(paths, packages, strict=True):
        assert sha256_of(path) == package["sha256"]
    splits = module.build_splits(*paths)
    assert splits.keys() == expected.keys()
    for split, rows in splits.items():
        write_split(rows, module.features(), tmp_path / split)
        assert sha256_of(tmp_path / split) == expected[split]["sha256"], split
