"""Merge feed-forward sublayers of Transformers: `compress`, `export` and `load`.

`method` has the paper's equations, `models` how models are read and written, `compression` the tool
for a model of one's own. Imports go compression -> method -> models.
"""

from typing import Any

__all__ = ["compress", "export", "load"]


def __getattr__(name: str) -> Any:
    """Import a public function when it is asked for; the package itself imports nothing."""
    if name == "compress":
        from ffmerge.compression.pipeline import compress

        return compress
    if name == "export":
        from ffmerge.compression.exporting import export

        return export
    if name == "load":
        from ffmerge.compression.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
