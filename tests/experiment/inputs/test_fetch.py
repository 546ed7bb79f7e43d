"""The paper's real inputs: fetched from a server on this machine that has files of the same layout.

Not run here: the real hub and its own storage protocol, the real archives.
"""

import gzip
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiment import inputs
from experiment.inputs import parallel_text
from experiment.inputs.download import download
from experiment.inputs.fetch import fetch_files, list_files, matching
from experiment.inputs.ilsvrc2012 import (
    VALIDATION_LABELS,
    features,
    read_devkit,
    training_images,
    validation_images,
)
from experiment.inputs.model_files import model_files
from experiment.inputs.parallel_text import pairs, schema
from experiment.inputs.parquet import write_shards
from provenance.digest import sha256_of
from provenance.sources import REPOSITORY, closure, code_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIDES = {"src": "en", "trg": "zh"}


class Server:
    """Files over HTTP, with what goes wrong on a network, and enough of the hub's interface."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.refusals: dict[str, tuple[int, str]] = {}  # path -> status, error code of the hub
        self.cut_after: dict[str, list[int]] = {}  # path -> bytes of the next answers
        self.requests: list[tuple[str, str | None]] = []  # path, Range

    def publish(self, kind: str, repository: str, files: dict[str, bytes]) -> None:
        """Put a repository on the hub; kind: models or datasets."""
        listing = []
        for name, content in files.items():
            oid = hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
            entry = {"type": "file", "path": name, "size": len(content), "oid": oid}
            if name.endswith((".parquet", ".safetensors", ".bin")):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            listing.append(entry)
            prefix = "" if kind == "models" else "/datasets"
            self.files[f"{prefix}/{repository}/resolve/{COMMIT}/{name}"] = content
        tree = f"/api/{kind}/{repository}/tree/{COMMIT}"
        self.files[tree] = json.dumps(listing).encode()

    def answer(self, request: http.server.BaseHTTPRequestHandler, body: bool) -> None:
        path = urlsplit(request.path).path
        content, span = self.files.get(path), request.headers.get("Range")
        self.requests.append((path, span))
        if content is None:
            status, code = self.refusals.get(path, (404, "EntryNotFound"))
            request.send_response(status)
            request.send_header("X-Error-Code", code)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        tag, start = f'"{hashlib.sha1(content).hexdigest()}"', 0
        if span and request.headers.get("If-Range", tag) == tag:
            start = int(span.removeprefix("bytes=").split("-")[0])
            past = start >= len(content)
            request.send_response(416 if past else 206)
            where = "*" if past else f"{start}-{len(content) - 1}"
            request.send_header("Content-Range", f"bytes {where}/{len(content)}")
        else:
            request.send_response(200)
        request.send_header("ETag", tag)
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Content-Length", str(len(content[start:])))
        request.end_headers()
        if body:
            cuts = self.cut_after.get(path)
            request.wfile.write(content[start:][: cuts.pop(0) if cuts else None])
            request.close_connection = True


@pytest.fixture
def server():
    """A server of its own for a test; `server.url` is where."""
    files = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        do_GET = lambda self: files.answer(self, body=True)  # noqa: E731
        do_HEAD = lambda self: files.answer(self, body=False)  # noqa: E731
        log_message = lambda *_: None  # noqa: E731

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        files.url = f"http://127.0.0.1:{listening.server_port}"
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield files
        listening.shutdown()


def parquet(**columns: list) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


# --- files of a hub repository --------------------------------------------------------------------

WIKITEXT = {
    "README.md": b"about",
    "raw/train-00000-of-00002.parquet": parquet(text=["one", "two"]),
    "raw/train-00001-of-00002.parquet": parquet(text=["three"]),
    "raw/test-00000-of-00001.parquet": parquet(text=["four"]),
}


def run(script: str, server: Server, output: dict, params: dict, inputs: dict | None = None):
    """A script of the workflow as the workflow runs it."""
    wildcards = {"results": str(Path(next(iter(output.values()))).parent), "split": "train"}
    job = {"rule": script, "wildcards": wildcards, "params": params}
    code = code_digest(closure(REPOSITORY / f"workflow/scripts/{script}.py"))
    job |= {"reproduces": "bits", "code": code, "imports": []}
    record = Path(next(iter(output.values()))).with_suffix(".record.json")
    files = {"input": inputs or {}, "output": {**output, "record": str(record)}}
    environment = {
        "PYTHONPATH": "workflow",
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(record.parent),
    }
    return subprocess.run(
        [sys.executable, f"workflow/scripts/{script}.py", json.dumps(job), json.dumps(files)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    ), record


def test_the_files_of_one_split_are_fetched_and_read_in_order(server, tmp_path):
    server.publish("datasets", "a/wikitext", WIKITEXT)
    params = {"repository": "a/wikitext", "revision": COMMIT, "sha256": None}
    output = {"files": str(tmp_path / "train")}
    done, record = run("fetch_dataset", server, output, {**params, "path": "raw/train-*.parquet"})
    assert done.returncode == 0, done.stderr
    fetched = {
        p.relative_to(tmp_path / "train").as_posix() for p in (tmp_path / "train").rglob("*.*")
    }
    assert fetched == {name for name in WIKITEXT if "train" in name}
    assert json.loads(record.read_text())["output"]["files"]["sha256"] == sha256_of(
        tmp_path / "train"
    )
    assert not list(tmp_path.glob(".checkpoints/*"))
    from experiment.tasks.task import parquet_files

    texts = [pq.read_table(file)["text"].to_pylist() for file in parquet_files(tmp_path / "train")]
    assert texts == [["one", "two"], ["three"]]


def test_a_file_that_differs_from_the_commits_is_refused_and_removed(server, tmp_path):
    server.publish("datasets", "a/wikitext", WIKITEXT)
    for name in ("README.md", "raw/test-00000-of-00001.parquet"):
        path = f"/datasets/a/wikitext/resolve/{COMMIT}/{name}"
        server.files[path] = server.files[path][::-1]
        names = list_files("a/wikitext", COMMIT, "dataset", server.url)
        chosen = matching(names, [name], "it")
        with pytest.raises(ValueError, match=f"{name} came with other bytes than the commit's"):
            fetch_files("a/wikitext", COMMIT, "dataset", chosen, tmp_path, server.url)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RevisionNotFound", f"a/b has no commit {COMMIT}"),
        (401, "RepoNotFound", "a/b is no dataset on the hub, or not one that is open"),
        (403, "GatedRepo", "accept them at https://huggingface.co/datasets/a/b and put a token"),
        (418, "", "the hub did not answer .* a node that has a network"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line_that_says_what_to_do(server, status, code, message):
    server.refusals[f"/api/datasets/a/b/tree/{COMMIT}"] = (status, code)
    with pytest.raises(OSError, match=message) as error:
        list_files("a/b", COMMIT, "dataset", server.url)
    assert "\n" not in str(error.value)


def test_a_gated_file_of_a_repository_that_can_be_listed_says_what_to_do(server, tmp_path):
    server.publish("datasets", "ILSVRC/imagenet-1k", {"data/train-0.parquet": b"images"})
    chosen = list_files("ILSVRC/imagenet-1k", COMMIT, "dataset", server.url)
    path = f"/datasets/ILSVRC/imagenet-1k/resolve/{COMMIT}/data/train-0.parquet"
    del server.files[path]
    server.refusals[path] = (401, "GatedRepo")
    message = r"HF_TOKEN, or name the tar files in dataset.devkit$"
    with pytest.raises(OSError, match=message):
        fetch_files("ILSVRC/imagenet-1k", COMMIT, "dataset", chosen, tmp_path, server.url)


def test_without_a_network_one_line_says_so(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's library tries 6 times
    message = (
        r"a/b: the hub did not answer .* refused.*; this job runs on a node that has a network"
    )
    with pytest.raises(OSError, match=message):
        list_files("a/b", COMMIT, "dataset", "http://127.0.0.1:9")


def test_a_pattern_without_a_match_is_an_error_that_lists_files(server):
    server.publish("datasets", "a/wikitext", WIKITEXT)
    names = list_files("a/wikitext", COMMIT, "dataset", server.url)
    with pytest.raises(ValueError, match=r"a/wikitext has no file raw/dev-\*; it has README.md"):
        matching(names, ["raw/dev-*"], "a/wikitext")


def test_missing_data_are_named(tmp_path):
    from experiment.tasks.task import parquet_files

    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no \*.parquet in it"):
        parquet_files(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"nowhere.parquet does not exist"):
        parquet_files(str(tmp_path / "nowhere.parquet"))


# --- a large file from a URL ----------------------------------------------------------------------

LARGE = bytes(range(256)) * 4096  # 1 MiB
LARGE_SHA256 = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture
def fetch(server, tmp_path):
    """fetch(sha256): download of the large file; fetch.file and fetch.parts are where."""
    server.files["/large.tar"] = LARGE

    def fetched(sha256: str | None = LARGE_SHA256) -> str:
        return download(f"{server.url}/large.tar", fetched.file, fetched.parts, sha256, waits=())

    fetched.file, fetched.parts = tmp_path / "large.tar", tmp_path / "parts"
    return fetched


def test_a_download_that_breaks_off_is_resumed(server, fetch):
    server.cut_after["/large.tar"] = [100_000, 50_000]
    assert fetch() == LARGE_SHA256
    assert fetch.file.read_bytes() == LARGE
    spans = [span for _, span in server.requests]
    assert spans == [None, "bytes=100000-", "bytes=150000-"]


def test_a_killed_download_is_resumed_by_the_next_job(server, fetch):
    server.cut_after["/large.tar"] = [100_000, 0]
    with pytest.raises(OSError, match=r"100000 bytes are kept for the next try; .* has a network"):
        fetch()
    assert not fetch.file.exists()
    assert fetch() == LARGE_SHA256
    assert server.requests[-1] == ("/large.tar", "bytes=100000-")


def test_a_download_killed_after_its_last_byte_is_complete(server, fetch):
    fetch(), fetch.parts.mkdir(exist_ok=True)
    fetch.file.replace(fetch.parts / "part")
    (fetch.parts / "validator").write_text(f'"{hashlib.sha1(LARGE).hexdigest()}"')
    assert fetch() == LARGE_SHA256


def test_a_download_is_not_resumed_with_another_file(server, fetch):
    server.files["/large.tar"], server.cut_after["/large.tar"] = LARGE[::-1], [100_000, 0]
    with pytest.raises(OSError, match="100000 bytes are kept"):
        fetch()
    server.files["/large.tar"] = LARGE
    assert fetch() == LARGE_SHA256


def test_a_wrong_digest_is_refused_and_nothing_is_kept(fetch):
    with pytest.raises(ValueError, match=f"sha256 is {LARGE_SHA256}, expected 0000"):
        fetch("0" * 64)
    assert not fetch.file.exists()
    assert list(fetch.parts.iterdir()) == []


def test_without_a_configured_digest_the_actual_one_is_reported_and_recorded(server, tmp_path):
    server.files["/large.tar"] = LARGE
    params = {"url": f"{server.url}/large.tar", "sha256": None}
    done, record = run("fetch_archive", server, {"archive": str(tmp_path / "large.tar")}, params)
    assert done.returncode == 0, done.stderr
    assert LARGE_SHA256 in done.stderr
    content = json.loads(record.read_text())
    assert LARGE_SHA256 in content["warnings"][0]
    assert content["output"]["archive"]["sha256"] == LARGE_SHA256


def test_a_missing_file_and_a_silent_server_are_one_line(server, tmp_path):
    with pytest.raises(OSError, match="/none: the server answers 404"):
        download(f"{server.url}/none", tmp_path / "file", tmp_path / "parts", waits=())
    with pytest.raises(OSError, match=r"refused; 0 bytes are kept .* a node that has a network"):
        download("http://127.0.0.1:9/", tmp_path / "file", tmp_path / "parts", waits=())


# --- sentence pairs of the Tatoeba Challenge ------------------------------------------------------


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


EN, ZH = "Good\rmorning.\n Two\u2028lines? \nYes.\r\n", "早上好。\n两行？\n是。\n"
TATOEBA = {
    f"data/release/v2020-07-28/eng-zho/{name}": content
    for name, content in {
        "train.src.gz": gzip.compress(EN.encode()),
        "train.trg.gz": gzip.compress(ZH.encode()),
        "train.id.gz": gzip.compress(b"OpenSubtitles\teng\tcmn_Hans\n" * 3),
        "dev.src": b"Hello.\n",
        "dev.trg": "你好。\n".encode(),
        "dev.id": b"eng\tcmn_Hans\n",
        "test.src": b"Bye.\nNo.\n",
        "test.trg": "再见。\n".encode(),
        "test.id": b"eng\tcmn_Hans\n" * 2,
    }.items()
}


def test_the_archive_becomes_pairs_in_the_named_columns(server, tmp_path):
    inputs = {"archive": str(tar(tmp_path / "eng-zho.tar", TATOEBA))}
    params = {"member": "train", "sides": SIDES}
    done, _ = run(
        "unpack_parallel_text", server, {"files": str(tmp_path / "train")}, params, inputs
    )
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "train").to_pydict() == {
        "en": ["Good\rmorning.", "Two\u2028lines?", "Yes."],
        "zh": ["早上好。", "两行？", "是。"],
    }
    assert list(pairs(tmp_path / "eng-zho.tar", "dev", SIDES)) == [{"en": "Hello.", "zh": "你好。"}]


def test_files_and_row_groups_are_of_bounded_size(tmp_path):
    rows = ({"en": str(i), "zh": str(-i)} for i in range(25))
    assert write_shards(rows, schema(SIDES), tmp_path / "out", 4, 8) == 25
    files = sorted((tmp_path / "out").iterdir())
    assert [pq.read_metadata(file).num_rows for file in files] == [8, 8, 8, 1]
    assert pq.read_metadata(files[0]).num_row_groups == 2
    assert pq.read_table(tmp_path / "out")["en"].to_pylist() == [str(i) for i in range(25)]
    with pytest.raises(ValueError, match="no rows"):
        write_shards([], schema(SIDES), tmp_path / "none", 4, 8)


def test_sides_that_differ_in_length_are_refused(tmp_path):
    archive = tar(tmp_path / "eng-zho.tar", TATOEBA)
    with pytest.raises(ValueError, match="the sides of test differ in length"):
        list(pairs(archive, "test", SIDES))


def test_a_missing_member_is_named(tmp_path):
    archive = tar(tmp_path / "x.tar", {k: v for k, v in TATOEBA.items() if "train.trg" not in k})
    with pytest.raises(ValueError, match=r"holds 0 files train.trg, not 1; it has .*train.src.gz"):
        list(pairs(archive, "train", SIDES))


def test_a_truncated_archive_is_refused(tmp_path):
    archive = tar(tmp_path / "eng-zho.tar", TATOEBA)
    whole = archive.read_bytes()
    with tarfile.open(archive) as opened:
        second = opened.getmembers()[1]
    archive.write_bytes(whole[: second.offset_data + 10])
    with pytest.raises(ValueError, match=r"eng-zho.tar (is damaged or cut off|holds 0 files)"):
        list(pairs(archive, "train", SIDES))


# --- the tar files of ILSVRC 2012 -----------------------------------------------------------------

# ids of the kit -> WordNet ids; the classes' order is that of the WordNet ids: 2, 3, 1
KIT = {1: "n03000000", 2: "n01000000", 3: "n02000000", 4: "n00000001"}
TRUTH = [3, 1, 2, 2]


def jpeg(shade: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (8, 8), shade).save(stream, format="JPEG")
    return stream.getvalue()


@pytest.fixture
def ilsvrc(tmp_path) -> dict[str, Path]:
    """Tar files of three classes with two images each, four validation images, the kit."""
    import numpy as np
    from scipy.io import savemat

    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(i, name, f"word {i}", 3 if i == 4 else 0) for i, name in KIT.items()]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=fields)[:, None]})
    truth = "".join(f"{i}\n" for i in TRUTH).encode()
    kit = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    files = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth}
    tar(tmp_path / "kit.tar", {f"ILSVRC2012_devkit_t12/data/{n}": c for n, c in files.items()})
    kit.write_bytes(gzip.compress((tmp_path / "kit.tar").read_bytes()))

    def of_class(i: int) -> bytes:
        images = {f"{KIT[i]}_{j}.JPEG": jpeg(20 * i + 100 * j) for j in (0, 1)}
        return tar(tmp_path / "class.tar", images).read_bytes()

    train = {f"{KIT[i]}.tar": of_class(i) for i in (1, 2, 3)}
    val = {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(50 * n) for n in (1, 3, 2, 4)}
    return {
        "kit": kit,
        "train": tar(tmp_path / "ILSVRC2012_img_train.tar", train),
        "validation": tar(tmp_path / "ILSVRC2012_img_val.tar", val),
    }


def test_labels_are_in_the_order_of_the_wordnet_ids(ilsvrc):
    kit = read_devkit(ilsvrc["kit"])
    assert kit.classes == ["n01000000", "n02000000", "n03000000"]
    labels = {row["image"]["path"]: row["label"] for row in training_images(ilsvrc["train"], kit)}
    assert labels == {f"{KIT[i]}_{j}.JPEG": [2, 0, 1][i - 1] for i in (1, 2, 3) for j in (0, 1)}
    rows = list(validation_images(ilsvrc["validation"], kit))
    assert [row["image"]["path"][-6] for row in rows] == list("1324")
    assert [row["label"] for row in rows] == [1, 0, 2, 0]


def test_the_images_are_read_like_those_of_the_hub(ilsvrc, server, tmp_path):
    inputs = {"archive": str(ilsvrc["train"]), "devkit": str(ilsvrc["kit"])}
    output = {"files": str(tmp_path / "train")}
    done, _ = run("unpack_ilsvrc2012", server, output, {"sha256": None}, inputs)
    assert done.returncode == 0, done.stderr
    import datasets

    kit = read_devkit(ilsvrc["kit"])
    file = str(tmp_path / "train" / "00000.parquet")
    rows = datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path), features=features(kit))
    assert [(row["label"], row["image"].getpixel((0, 0))) for row in rows] == [
        (2, 20), (2, 120), (0, 40), (0, 140), (1, 60), (1, 160),
    ]  # fmt: skip
    assert rows[0]["image"].size == (8, 8)
    assert pq.read_schema(file).metadata  # what tells `datasets` that these bytes are an image


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_tar_truncated_anywhere_is_refused(ilsvrc, split):
    kit, whole = read_devkit(ilsvrc["kit"]), ilsvrc[split].read_bytes()
    images = {"train": training_images, "validation": validation_images}[split]
    with tarfile.open(ilsvrc[split]) as opened:
        last = opened.getmembers()[-1]
    for length in (last.offset, last.offset + 100, last.offset_data + 10):
        ilsvrc[split].write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut off"):
            list(images(ilsvrc[split], kit))


DEVKIT = "ILSVRC2012_devkit_t12/data"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (None, "is damaged or cut off"),
        ({}, "does not hold ILSVRC2012_validation_ground_truth.txt, meta.mat"),
        ({"meta.mat": b"no"}, "does not hold ILSVRC2012_validation_ground_truth.txt"),
        ({"meta.mat": b"no", VALIDATION_LABELS: b"1\n"}, "is not that of the kit"),
        ({"meta.mat": b"\0" * 200, VALIDATION_LABELS: b"one\n"}, "is not that of the kit"),
    ],
)
def test_a_devkit_that_is_none_is_named(members, said, tmp_path):
    file = tmp_path / "kit.tar"
    file.write_bytes(b"no tar") if members is None else tar(
        file, {f"{DEVKIT}/{name}": content for name, content in members.items()}
    )
    with pytest.raises(ValueError, match=rf"^{file}.*{said}"):
        read_devkit(file)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_image_that_claims_more_than_can_be_read_is_refused(ilsvrc, split, monkeypatch):
    kit = read_devkit(ilsvrc["kit"])
    monkeypatch.setattr(inputs, "MAX_MEMBER_BYTES", 100)
    images = {"train": training_images, "validation": validation_images}[split]
    with pytest.raises(ValueError, match="bytes, more than 100"):
        list(images(ilsvrc[split], kit))


@pytest.mark.parametrize("name", ["picture.JPEG", "ILSVRC2012_val_x.JPEG", "_.JPEG"])
def test_a_validation_image_without_a_number_is_named(name, ilsvrc):
    kit = read_devkit(ilsvrc["kit"])
    with pytest.raises(ValueError, match=f"{name} has no label"):
        list(validation_images(tar(ilsvrc["validation"], {name: jpeg(1)}), kit))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (gzip.compress(EN.encode(), mtime=0)[:-12], "damaged or cut off"),
        (b"no gzip", "damaged or cut off"),
        (gzip.compress(EN.encode(), mtime=0)[:-8] + bytes(8), "damaged or cut off"),
        (gzip.compress(b"\xff\xfe\n", mtime=0), "train is not UTF-8"),
        (gzip.compress(b"a" * 1000, mtime=0), "train.src has a line of 100 characters or more"),
    ],
    ids=["cut", "none", "checksum", "no UTF-8", "endless line"],
)
def test_compressed_text_that_is_damaged_or_endless_is_refused(source, said, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel_text, "MAX_LINE", 100)
    members = {key: source if "train.src" in key else text for key, text in TATOEBA.items()}
    with pytest.raises(ValueError, match=said):
        list(pairs(tar(tmp_path / "eng-zho.tar", members), "train", SIDES))


# --- the files of a model -------------------------------------------------------------------------


def test_a_models_files_are_fetched_and_nothing_else(server, tmp_path):
    files = {"config.json": b"{}", "pytorch_model.bin": b"weights", "source.spm": b"spm"}
    others = {"README.md": b"about", "tf_model.h5": b"large", "onnx/model.json": b"{}"}
    server.publish("models", "a/opus", files | others)
    chosen = model_files(list_files("a/opus", COMMIT, "model", server.url), "a/opus")
    fetched = fetch_files("a/opus", COMMIT, "model", chosen, tmp_path, server.url)
    assert {name: file.read_bytes() for name, file in fetched.items()} == files


def test_safetensors_are_preferred_and_a_repository_without_weights_is_refused(server):
    some = {"config.json": b"{}", "pytorch_model.bin": b"", "onnx/model.safetensors": b""}
    server.publish("models", "a/b", some)
    names = list_files("a/b", COMMIT, "model", server.url)
    assert set(model_files(names, "a/b")) == {"config.json", "pytorch_model.bin"}
    server.publish("models", "a/b", some | {"model.safetensors": b""})
    names = list_files("a/b", COMMIT, "model", server.url)
    assert set(model_files(names, "a/b")) == {"config.json", "model.safetensors"}
    names = set(names) - {"model.safetensors", "pytorch_model.bin"}
    with pytest.raises(
        ValueError, match=r"a/b has no file pytorch_model\*.bin; it has config.json"
    ):
        model_files(names, "a/b")
