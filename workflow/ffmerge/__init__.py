"""Merge feed-forward sublayers of Transformers: `compress`, `tune`, `evaluate`, `load`, …

`method` has the paper's equations, `models` reads and writes models, `training` and `evaluation`
train and score them, and `compression` is the tool for a user's own model. Imports go compression
-> training and evaluation -> method -> models.
"""

from pkgutil import resolve_name
from typing import Any

__all__ = ["compare", "compress", "evaluate", "export", "load", "tune"]


def __getattr__(name: str) -> Any:
    """Import a public function on first use; importing the package alone imports no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"compress": "pipeline", "load": "source"}.get(name, name)
    return resolve_name(f"ffmerge.compression.{module}:{name}")
