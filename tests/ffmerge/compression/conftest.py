"""Fixtures of the tests of the tool."""

from pathlib import Path

import pytest
import torch

import ffmerge
import own_models
from families import FAMILIES


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Use one thread: for so small a model a second one costs more than it gains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(family, form, rank): its pico model, merged in that form, and data for it."""

    def make(name: str, form: str = "tied", rank: int = 0) -> tuple[Path, Path, Path]:
        folder = tmp_path_factory.getbasetemp() / f"tune {name} {form} {rank}"
        model, data, small = folder / "model", folder / "data", folder / "small"
        if not folder.exists():
            own_models.save(name, model)
            own_models.data_for(FAMILIES[name], data)
            for image in data.glob("*.png"):  # a subfolder is a label, here the same for all
                (data / "1").mkdir(exist_ok=True)
                image.rename(data / "1" / image.name)
            options = {"remove": "1/3", "n_tokens": 12, "form": form, "rank": rank}
            ffmerge.compress(model, features=data, out=small, **options)
        return model, data, small

    return make
