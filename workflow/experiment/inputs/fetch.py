"""Fetch files of a hub repository at a pinned commit, and check them against that commit."""

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from experiment.inputs import NEEDS_NETWORK

FILES_AT_A_TIME = 8
Kind = Literal["dataset", "model"]


def list_files(
    repository: str, revision: str, kind: Kind, endpoint: str | None = None
) -> list[str]:
    """Paths of the files in a repository at a commit.

    endpoint: the hub's address; by default the environment variable HF_ENDPOINT names it.
    Raises OSError in one line if the hub, the repository or the commit cannot be reached.
    """
    from huggingface_hub import HfApi

    with _errors_in_one_line(repository, revision, kind):
        return HfApi(endpoint).list_repo_files(repository, revision=revision, repo_type=kind)


def matching(names: Iterable[str], patterns: Sequence[str], where: str) -> list[str]:
    """Sorted names that match at least one of the patterns (`*`, `?`).

    where: the repository, for the message.
    Raises ValueError with some of the names if none matches.
    """
    names = sorted(names)
    chosen = [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    if not chosen:
        raise ValueError(
            f"{where} has no file {' or '.join(patterns)}; it has {', '.join(names[:8])}, …"
        )
    return chosen


def fetch_files(
    repository: str,
    revision: str,
    kind: Kind,
    names: Sequence[str],
    directory: Path,
    endpoint: str | None = None,
    progress: Callable | None = None,
) -> dict[str, Path]:
    """Download files of a commit into `directory`, which keeps what a killed job has fetched.

    names: some of `list_files`. progress: makes a progress bar, see `Job.progress`.
    Returns path in the repository -> file.
    Raises OSError if the hub cannot be reached, ValueError naming files whose content differs from
    the commit's; those are removed.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint)
    groups = [names[i : i + FILES_AT_A_TIME] for i in range(0, len(names), FILES_AT_A_TIME)]
    at_commit = {"repo_type": kind, "revision": revision, "local_dir": directory}
    with _errors_in_one_line(repository, revision, kind):
        for group in progress(groups, len(groups), "files") if progress else groups:
            api.snapshot_download(
                repository,
                allow_patterns=[glob.escape(name) for name in group],
                max_workers=FILES_AT_A_TIME,
                **at_commit,
            )
        mismatches = api.verify_repo_checksums(repository, **at_commit).mismatches
    if wrong := [mismatch["path"] for mismatch in mismatches]:
        for name in wrong:
            (directory / name).unlink()
        raise ValueError(
            f"{', '.join(wrong)} came with other bytes than the commit's and was removed; run the "
            "job again"
        )
    return {name: directory / name for name in names}


@contextmanager
def _errors_in_one_line(repository: str, revision: str, kind: Kind) -> Iterator[None]:
    """Turn each of the hub's many exceptions into an OSError of one line."""
    from huggingface_hub import errors

    try:
        yield
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
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise OSError(f"{repository}: the hub did not answer ({reason}); {NEEDS_NETWORK}") from None
