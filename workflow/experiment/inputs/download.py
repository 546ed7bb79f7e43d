"""Download one large file from a URL; a killed download is resumed, a partial file never shows."""

import http.client
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path

from experiment.inputs import NEEDS_NETWORK
from provenance.digest import sha256_of

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
WAITS_SECONDS = (1, 5, 30, 120)


def download(
    url: str,
    file: Path,
    parts: Path,
    sha256: str | None = None,
    waits: tuple[float, ...] = WAITS_SECONDS,
    progress: Callable | None = None,
) -> str:
    """Download `url` to `file` and return its sha256.

    parts: directory for the bytes so far, from which a killed download is resumed if the server
    supports byte ranges and still has the same file. sha256: the expected digest; if unset, a
    warning states the actual one, and the job's record keeps it.
    waits: seconds between attempts that brought nothing new. progress: see `Job.progress`.
    Raises OSError in one line if the server cannot be reached or keeps breaking off, ValueError if
    the digest differs; the file is then removed.
    """
    parts.mkdir(parents=True, exist_ok=True)
    part, validator = parts / "part", parts / "validator"
    attempt, reason = 0, ""
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _continue(url, part, validator, progress):
                break
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise OSError(f"{url}: the server answers {error.code} {error.reason}") from None
            reason = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) and not isinstance(error, ConnectionError):
                raise  # a full disk, a missing permission
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        after = part.stat().st_size if part.exists() else 0
        attempt = 0 if after > before else attempt + 1
        if attempt > len(waits):
            raise OSError(
                f"{url}: {reason}; {after} bytes are kept for the next try; {NEEDS_NETWORK}"
            )
        time.sleep(waits[attempt - 1] if attempt else 0)
    actual = sha256_of(part)
    if sha256 is None:
        warnings.warn(f"{url} has no sha256 in the configuration; {actual} came", stacklevel=2)
    elif actual != sha256:
        part.unlink()
        validator.unlink(missing_ok=True)
        raise ValueError(f"{url}: sha256 is {actual}, expected {sha256}; the file was removed")
    file.parent.mkdir(parents=True, exist_ok=True)
    part.replace(file)
    return actual


def _continue(url: str, part: Path, validator: Path, progress: Callable | None) -> bool:
    """Append the missing bytes; return whether the file is now complete."""
    known = part.stat().st_size if part.exists() and validator.exists() else 0
    request = urllib.request.Request(url)
    if known:
        request.add_header("Range", f"bytes={known}-")
        request.add_header("If-Range", validator.read_text())
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if known and error.code == 416:  # no byte after the last one: the part is whole
            return error.headers.get("Content-Range", "").endswith(f"/{known}")
        raise
    with response:
        resumed = response.status == 206
        tag = response.headers.get("ETag") or "W/"  # a weak one does not tell versions apart
        tag = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
        validator.unlink(missing_ok=True)
        if tag:
            validator.write_text(tag)
        start = known if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with part.open("ab" if resumed else "wb") as stream:
            chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
            n_chunks = None if length is None else -(-int(length) // CHUNK_BYTES)
            for chunk in progress(chunks, n_chunks, "MB") if progress else chunks:
                stream.write(chunk)
    return total is None or part.stat().st_size == total
