"""Whether files are what somebody recorded, as far as one can tell in no time."""

from collections.abc import Iterable
from pathlib import Path

from provenance.digest import sha256_of

SAME, OTHER, GONE, UNREAD = "as recorded", "altered", "gone", "not rehashed"
LEFT = "left behind"  # when this was collected
SMALL_BYTES = 1 << 20  # what is larger, or a directory, is left to `ffmerge verify`


class FileStates:
    """The states of files, each read once. left: those that are not to be here."""

    def __init__(self, left: Iterable[str] = ()) -> None:
        self._found = dict.fromkeys(left, LEFT)

    def of(self, path: str, digest: str | None) -> str:
        """SAME or OTHER, by the digest that was recorded; or why that cannot be told."""
        file = Path(path)
        if path not in self._found:
            small = file.is_file() and file.stat().st_size <= SMALL_BYTES
            self._found[path] = sha256_of(file) if small else UNREAD if file.exists() else GONE
        found = self._found[path]
        return found if found in (UNREAD, GONE, LEFT) else SAME if found == digest else OTHER
