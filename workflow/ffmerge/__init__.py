"""Merge feed-forward sublayers of Transformers: `compress`, `tune`, `evaluate`, `load`, …

`method` has the paper's equations, `models` reads and writes models, `training` and `evaluation`
train and score them, and `compression` is the tool for a user's own model. Imports go compression
-> training and evaluation -> method -> models.
"""

from typing import Any

__all__ = ["compare", "compress", "evaluate", "export", "load", "tune"]


def __getattr__(name: str) -> Any:
    """Import a public function on first use; importing the package alone imports no torch."""
    if name == "compress":
        from ffmerge.compression.pipeline import compress

        return compress
    if name == "compare":
        from ffmerge.compression.compare import compare

        return compare
    if name == "export":
        from ffmerge.compression.export import export

        return export
    if name == "load":
        from ffmerge.compression.load import load

        return load
    if name == "tune":
        from ffmerge.compression.tune import tune

        return tune
    if name == "evaluate":
        from ffmerge.compression.evaluate import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
