"""The files of a run as entities of its crate: those in it by their path, all others by digest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from provenance.collect.crate.entities import entity, link

FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".patch": "text/x-diff",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".parquet": "application/vnd.apache.parquet",
    ".py": "text/x-python",
    ".safetensors": "application/octet-stream",
    ".yaml": "application/yaml",
}


class Files:
    """Entities of files and directories, each version of one once.

    folder: where the crate is; digests: path in it -> sha256.

    A file that is not in the crate must not look as if it were. RO-Crate 1.1 knows files by
    relative path, which have to be there, and by web address, of which these have none. Theirs is
    a local identifier, `#path`: a contextual entity, which validators do not look for on disk.
    """

    def __init__(self, crate: ROCrate, folder: Path, digests: Mapping[str, str]) -> None:
        self.crate, self.folder, self.digests = crate, folder, digests
        self._versions: dict[tuple[str, str], Entity] = {}

    def entity(self, path: str, digest: str | None = None) -> Entity:
        """The file or directory with this digest; without one, as it is in the crate."""
        digest = digest or self.digests[path]
        if (path, digest) not in self._versions:
            held = self.digests.get(path) == digest
            self._versions[path, digest] = (self._held if held else self._absent)(path, digest)
        return self._versions[path, digest]

    def know(self, path: str, entity: Entity) -> None:
        """Take an entity that was made elsewhere for what the crate has at a path."""
        self._versions[path, self.digests[path]] = entity

    def example_of(self, file: Entity, parameter: Entity) -> None:
        """Say that a file was given for, or came out as, a formal parameter."""
        link(file, "exampleOfWork", parameter)

    def _held(self, path: str, digest: str) -> Entity:
        source = self.folder / path
        properties: dict[str, Any] = {"name": path, "sha256": digest}
        if source.is_dir():
            properties["description"] = (
                "Its sha256 is that of the lines `sha256  name` of its files"
            )
            return self.crate.add_dataset(source, path, properties=properties)
        properties["contentSize"] = str(source.stat().st_size)
        properties["encodingFormat"] = FORMATS.get(source.suffix, "text/plain")
        if source.suffix == ".py":
            properties["@type"] = ["File", "SoftwareSourceCode"]
        return self.crate.add_file(source, path, properties=properties)

    def _absent(self, path: str, digest: str) -> Entity:
        another = f"#{path}" in self.crate
        suffix = Path(path).suffix  # only directories, of models, have none
        known = {"encodingFormat": FORMATS.get(suffix, "text/plain")} if suffix else {}
        return entity(
            self.crate,
            f"#{path}@{digest[:12]}" if another else f"#{path}",
            "File" if suffix else "Dataset",
            name=path,
            description="Not in this crate, but known by its digest",
            sha256=digest,
            **known,
        )
