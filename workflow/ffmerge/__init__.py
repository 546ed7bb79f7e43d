"""Merging feed-forward sublayers for compressed Transformers.

Modules are named after what the paper names; imports go one way:
scripts -> tasks -> method (features, permutation, merge, tie, windows) -> architectures.

Importing the package makes transformers' Auto classes load merged models, whichever of the two is
imported first; it imports neither transformers nor torch.
"""

from types import ModuleType
from typing import Any

from ffmerge.import_hook import when_imported


def __getattr__(name: str) -> Any:
    """What the package itself offers, imported when it is asked for; no job does."""
    if name == "compress":
        from ffmerge.own_model.pipeline import compress

        return compress
    if name == "export":
        from ffmerge.own_model.exporting import export

        return export
    if name == "load":
        from ffmerge.own_model.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _register(configuration_auto: ModuleType) -> None:
    from ffmerge.tied_model import MODEL_TYPE, MergedConfig  # transformers is being imported

    configuration_auto.AutoConfig.register(MODEL_TYPE, MergedConfig, exist_ok=True)


when_imported("transformers.models.auto.configuration_auto", _register)
