"""The device to compute on."""

import pytest
import torch

from ffmerge.models.memory import check_device


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:x", "", "cuda:999"])
def test_a_device_that_this_machine_lacks_is_named(device):
    with pytest.raises(ValueError, match=f"^device '{device}': "):
        check_device(device)


def test_the_processor_is_always_there_and_cuda_where_torch_sees_a_gpu():
    check_device("cpu")
    if torch.cuda.is_available():
        check_device("cuda")
    else:
        with pytest.raises(ValueError, match="this machine has no such device"):
            check_device("cuda")
