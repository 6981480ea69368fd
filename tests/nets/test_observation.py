"""Pictures and numbers on their way into a model and out of it."""

import pytest
import torch

from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.nets.observation import PictureScale


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("cameras", [1, 2])
def test_undoing_the_scale_of_pictures_a_row_at_a_time_is_undoing_it_a_channel_at_a_time(
    cameras: int, memory: torch.memory_format
) -> None:
    keys = {
        f"camera{i}": KeySpec("image", (3, 16, 32), mean=(0.4, 0.5, 0.3), std=(0.1, 0.3, 0.02 + i))
        for i in range(cameras)
    }
    scale = PictureScale(DataSpec(keys, ActionSpec("continuous", 1), 10.0))
    pictures = torch.randn(5, 3 * cameras, 16, 32).to(memory_format=memory).requires_grad_()
    wanted, found = (pictures / scale.gain + scale.mean).clamp(0, 1), scale.undo(pictures)
    assert torch.equal(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)
    (ours,), (theirs,) = (torch.autograd.grad(x.square().sum(), pictures) for x in (found, wanted))
    assert torch.equal(ours, theirs)
