"""Files written and read one tensor at a time have the bytes of the safetensors library."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffmerge.method import quantization
from ffmerge.method.layer_drop import drop_on_disk
from ffmerge.method.merge_on_disk import merge_on_disk
from ffmerge.models import checkpoint, tensor_file
from ffmerge.models.architectures import ARCHITECTURES
from ffmerge.models.format import WEIGHTS
from ffmerge.models.tensor_file import DTYPES, FORMAT, Stored
from merged_windows import in_every_tower, merge_window


def library_bytes(directory, tmp_path) -> bytes:
    """The bytes that the library writes for the tensors of a file."""
    save_file(load_file(directory / WEIGHTS), tmp_path / "library", metadata=FORMAT)
    return (tmp_path / "library").read_bytes()


def test_tensors_of_every_type_and_shape_are_written_as_by_the_library(tmp_path):
    shapes = [(3,), (), (0, 2), (2, 5)]
    tensors = {
        f"{name}·{len(shape)}": torch.randn(shape).mul(9).to(dtype)
        for dtype, name in zip(DTYPES.values(), "qwertyuiopas", strict=True)
        for shape in shapes
    }
    tensors["transposed"] = torch.randn(4, 3).T
    tensor_file.write_all(tmp_path / "ours", tensors)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, tmp_path / "library", metadata=FORMAT)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "library").read_bytes()
    head = tensor_file.read_head(tmp_path / "ours")
    for name, tensor in tensors.items():
        read = tensor_file.read(tmp_path / "ours", head[name])
        assert read.dtype == tensor.dtype and torch.equal(read.double(), tensor.double())


def test_every_kind_of_model_is_saved_as_by_the_library(model_type, pico, tmp_path):
    base, layers = tmp_path / "base", [1, 2]
    checkpoint.save(pico(model_type).half(), base)
    groups = in_every_tower(ARCHITECTURES[model_type].towers, layers, 1)
    merge_on_disk(base, groups, None, tmp_path / "merged")
    drop_on_disk(base, layers, tmp_path / "dropped")
    model = checkpoint.load(base)
    merge_window(model, layers, 1)
    checkpoint.save(model, tmp_path / "saved")
    quantization.save(quantization.quantize(model), tmp_path / "int8")
    for name in ("base", "merged", "dropped", "saved", "int8"):
        written = (tmp_path / name / WEIGHTS).read_bytes()
        assert written == library_bytes(tmp_path / name, tmp_path), name
    assert (tmp_path / "merged" / WEIGHTS).read_bytes() == (
        tmp_path / "saved" / WEIGHTS
    ).read_bytes()


@pytest.mark.parametrize("n_bytes", [1, 50, 1 << 24])
def test_a_tensor_is_copied_in_blocks_of_its_rows(n_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_file, "BLOCK", n_bytes)
    shapes = {"matrix": (7, 3), "vector": (5,), "number": (), "none": (0, 2), "cube": (3, 2, 4)}
    tensors = {name: torch.randn(shape).half() for name, shape in shapes.items()}
    tensor_file.write_all(tmp_path / "half", tensors)
    head = tensor_file.read_head(tmp_path / "half")
    entries = {name: Stored(torch.float32, shape) for name, shape in shapes.items()}
    tensor_file.write(
        tmp_path / "float",
        entries,
        lambda name: tensor_file.read_rows(tmp_path / "half", head[name]),
    )
    tensor_file.write_all(tmp_path / "whole", {name: t.float() for name, t in tensors.items()})
    assert (tmp_path / "float").read_bytes() == (tmp_path / "whole").read_bytes()
    assert all(row.numel() <= max(n_bytes / 2, 8) for row in tensor_file.read_rows(
        tmp_path / "half", head["cube"]
    ))  # fmt: skip


def test_too_few_rows_are_an_error_that_names_the_tensor(tmp_path):
    entries = {"a.weight": Stored(torch.float32, (2, 3))}
    with pytest.raises(ValueError, match=r"a\.weight: has not as many values as \(2, 3\) says"):
        tensor_file.write(tmp_path / "f", entries, lambda _: [torch.ones(1, 3)])


def test_a_tensor_of_another_shape_than_announced_is_named(tmp_path):
    entries = {"a.weight": Stored(torch.float32, (2, 3))}
    with pytest.raises(ValueError, match=r"a\.weight: \(3, 2\) values where \(2, 3\) belong"):
        tensor_file.write(tmp_path / "f", entries, lambda _: torch.ones(3, 2))


MEASURED = """
import sys
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel
from ffmerge.method.groups import Group
from ffmerge.method.merge_on_disk import merge_on_disk
from ffmerge.models import checkpoint
from ffmerge.models.format import WEIGHTS
from ffmerge.models.memory import give_back_large

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

base, step = Path(sys.argv[1]), sys.argv[2]
if step == "save":
    config = GPT2Config(n_layer=24, n_embd=512, n_head=8, vocab_size=5000)
    model = GPT2LMHeadModel(config)
if step == "merge":
    give_back_large()  # as the job does
Path("/proc/self/clear_refs").write_text("5")  # reset VmHWM, the peak
before = memory("VmRSS")
match step:
    case "save":
        checkpoint.save(model, base)
    case "load":
        model = checkpoint.load(base)
    case "merge":
        merge_on_disk(base, [Group("decoder", (3, 4, 5), 3)], None, base.parent / "merged")
print((memory("VmHWM") - before) / (base / WEIGHTS).stat().st_size)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_model_is_held_twice_to_be_saved_loaded_or_merged(tmp_path):
    def share(step: str) -> float:
        """Peak memory of a step beyond what the process had before, as a share of the weights."""
        command = [sys.executable, "-c", MEASURED, str(tmp_path / "base"), step]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    assert share("save") < 0.1  # the model is in memory already
    assert 1.0 <= share("load") < 1.15
    # one sublayer of 24, and one of its matrices as read, permuted, and summed in float64
    assert share("merge") < 0.13
