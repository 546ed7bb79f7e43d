"""Files of a hub repository at a pinned commit, and nothing but what that commit holds.

Sizes and digests come from the hub's listing of the commit; every file is checked against them.
"""

import glob
import hashlib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from provenance.digest import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

FILES_AT_A_TIME = 8
ADVICE = "this job runs on a node that has a network"
Listing = dict[str, "RepoFile"]
Answer = TypeVar("Answer")
File = TypeVar("File")  # what is known of a file; its content, if it is here


def list_files(
    repository: str,
    revision: str,
    kind: Literal["dataset", "model"],
    endpoint: str | None = None,
) -> Listing:
    """The files of a repository at a commit, by their path in it.

    endpoint: of the hub; by default the one that the environment variable HF_ENDPOINT names.
    Raises OSError in one line where the hub, the repository or the commit cannot be reached.
    """
    from huggingface_hub import HfApi, RepoFile

    def listed() -> Listing:
        tree = HfApi(endpoint=endpoint).list_repo_tree(
            repository, repo_type=kind, revision=revision, recursive=True
        )
        return {file.path: file for file in tree if isinstance(file, RepoFile)}

    return _in_one_line(listed, repository, revision, kind)


def matching(listing: dict[str, File], patterns: Sequence[str], where: str) -> dict[str, File]:
    """The files of a listing that match one of the patterns (`*`, `?`), in the order of names.

    Raises ValueError, with some of the names that are there, where nothing matches; `where` says
    which repository that is.
    """
    names = sorted(name for name in listing if any(fnmatchcase(name, p) for p in patterns))
    if not names:
        there = ", ".join(sorted(listing)[:8])
        raise ValueError(f"{where} has no file {' or '.join(patterns)}; it has {there}, …")
    return {name: listing[name] for name in names}


def fetch_files(
    repository: str,
    revision: str,
    kind: Literal["dataset", "model"],
    chosen: Listing,
    directory: Path,
    endpoint: str | None = None,
    progress: Callable | None = None,
) -> dict[str, Path]:
    """Download files of a commit below `directory`, which keeps what a killed job had fetched.

    chosen: what of `list_files` is wanted. progress: makes a bar, see `Job.progress`.
    Returns path in the repository -> file.
    Raises OSError where the hub cannot be reached, ValueError naming a file that is not the
    commit's; that file is removed.
    """
    from huggingface_hub import snapshot_download

    names = list(chosen)
    groups = [names[i : i + FILES_AT_A_TIME] for i in range(0, len(names), FILES_AT_A_TIME)]
    for group in progress(groups, len(groups), "files") if progress else groups:

        def download(group: list[str] = group) -> str:
            return snapshot_download(
                repository,
                repo_type=kind,
                revision=revision,
                local_dir=directory,
                allow_patterns=[glob.escape(name) for name in group],
                max_workers=FILES_AT_A_TIME,
                endpoint=endpoint,
            )

        _in_one_line(download, repository, revision, kind)
        for name in group:
            check_file(directory / name, chosen[name])
    return {name: directory / name for name in chosen}


def check_file(file: Path, listed: "RepoFile") -> None:
    """Raises ValueError, and removes the file, unless it has the size and digest of the commit."""
    size = file.stat().st_size if file.exists() else 0
    if size == listed.size and _digest_as_listed(file, listed):
        return
    file.unlink(missing_ok=True)
    raise ValueError(
        f"{listed.path} came with {size} of {listed.size} bytes, or with others than the commit's; "
        "it was removed, run the job again"
    )


def _digest_as_listed(file: Path, listed: "RepoFile") -> bool:
    if listed.lfs is not None:
        return sha256_of(file) == listed.lfs.sha256
    content = file.read_bytes()  # a small file: git's own digest of it
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == listed.blob_id


def _in_one_line(ask: Callable[[], Answer], repository: str, revision: str, kind: str) -> Answer:
    """What asking the hub gives; its many kinds of failure as an OSError of one line."""
    from huggingface_hub import errors

    try:
        return ask()
    except errors.GatedRepoError:
        page = f"https://huggingface.co/{'datasets/' * (kind == 'dataset')}{repository}"
        tars = ", or name the tar files in dataset.devkit" * repository.endswith("imagenet-1k")
        raise OSError(
            f"{repository} is open only to those who accepted its terms: accept them at {page} and "
            f"put a token of that account into the environment variable HF_TOKEN{tars}"
        ) from None
    except errors.RevisionNotFoundError:
        raise OSError(f"{repository} has no commit {revision} on the hub") from None
    except errors.RepositoryNotFoundError:
        raise OSError(
            f"{repository} is no {kind} on the hub, or not one that is open to this account (whose "
            "token is in the environment variable HF_TOKEN)"
        ) from None
    except Exception as error:  # proxies, names, connections, servers, offline mode, …
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk, a missing permission
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise OSError(f"{repository}: the hub did not answer ({reason[:200]}); {ADVICE}") from None
