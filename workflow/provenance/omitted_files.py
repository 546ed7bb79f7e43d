"""What a collection did not take along, by digest: weights, features, data.

Only a collected folder has such a list; in it, `trace` and `verify` do not miss these files.
"""

from collections.abc import Mapping
from pathlib import Path

LIST = Path("left-behind.txt")


def write(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the list into a folder. digests: path -> sha256; a line each, as sha256sum has them."""
    lines = [f"{digest}  {path}\n" for path, digest in sorted(digests.items())]
    (folder / LIST).write_text("".join(lines))


def read(root: Path = Path()) -> dict[str, str]:
    """Path -> sha256 of what is not here. Raises ValueError for a line that is no such."""
    if not (root / LIST).is_file():
        return {}
    pairs = [line.split("  ", 1) for line in (root / LIST).read_text().splitlines()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{root / LIST} has a line that is not a digest and a path")
    return {path: digest for digest, path in pairs}
