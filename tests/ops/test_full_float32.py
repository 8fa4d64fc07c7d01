"""The reference multiplies in whole float32 on a GPU, and leaves PyTorch's switches as they were."""

from types import SimpleNamespace

import torch

from glsk.ops import full_float32

GPU = SimpleNamespace(is_cuda=True)


def state() -> list[object]:
    return [getattr(owner, name) for owner, name, _ in full_float32._switches()]


def test_tf32_is_off_within_it_and_as_before_afterwards() -> None:
    before, legacy = state(), torch.backends.cudnn.allow_tf32
    with full_float32.full_float32(GPU):
        assert state() == [value for _, _, value in full_float32._switches()]
    assert state() == before
    assert torch.backends.cudnn.allow_tf32 == legacy


def test_on_a_cpu_nothing_is_switched() -> None:
    before = state()
    with full_float32.full_float32(torch.zeros(1)):
        assert state() == before
