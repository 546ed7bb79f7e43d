"""Digests of files and directories."""

import hashlib
import os

import pytest

from provenance.digest import sha256_of


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "d" / "b").mkdir(parents=True)
    (tmp_path / "d" / "b" / "two").write_bytes(b"2")
    (tmp_path / "d" / "one").write_bytes(b"1")
    return tmp_path / "d"


def test_a_file_s_digest_is_that_of_its_content(tmp_path):
    content = bytes(range(256)) * 5000  # more than one buffer
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == sha256(content)


def test_a_directory_s_digest_is_that_of_its_list_of_files(directory):
    listed = f"{sha256(b'2')}  b/two\n{sha256(b'1')}  one\n"
    assert sha256_of(directory) == sha256(listed.encode())


def test_a_directory_s_digest_does_not_depend_on_times_or_on_where_it_is(directory, tmp_path):
    before = sha256_of(directory)
    os.utime(directory / "one", (0, 0))
    (directory / "empty").mkdir()
    assert sha256_of(directory) == before
    assert sha256_of(directory.rename(tmp_path / "elsewhere")) == before


@pytest.mark.parametrize("change", ["content", "name", "place", "more", "fewer", "hidden"])
def test_any_change_of_a_file_changes_the_directory_s_digest(directory, change):
    before = sha256_of(directory)
    match change:
        case "content":
            (directory / "b" / "two").write_bytes(b"3")
        case "name":
            (directory / "one").rename(directory / "uno")
        case "place":
            (directory / "one").rename(directory / "b" / "one")
        case "more":
            (directory / "b" / "three").touch()
        case "fewer":
            (directory / "one").unlink()
        case "hidden":
            (directory / "b" / ".three").touch()
    assert sha256_of(directory) != before


def test_what_is_missing_has_no_digest(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        sha256_of(tmp_path / "nothing")
