"""Our PNG encoder is lossless in the eyes of another decoder."""

import io

import numpy as np
import pytest
from PIL import Image

from worldloom.data.lerobot.png import encode_png


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 1, 1), (1, 5, 7), (3, 2, 300)])
@pytest.mark.parametrize("content", ["noise", "flat", "ramp"])
def test_pillow_reads_back_every_pixel(shape: tuple[int, ...], content: str) -> None:
    rng = np.random.default_rng(0)
    frames = {
        "noise": rng.integers(0, 256, (3, *shape), dtype=np.uint8),
        "flat": np.full((3, *shape), 200, np.uint8),
        "ramp": np.arange(3 * np.prod(shape)).reshape(3, *shape).astype(np.uint8),
    }[content]
    for frame, file in zip(frames, encode_png(frames), strict=True):
        with Image.open(io.BytesIO(file)) as image:
            image.verify()
        with Image.open(io.BytesIO(file)) as image:
            pixels = np.asarray(image)
        np.testing.assert_array_equal(
            pixels if shape[0] == 1 else pixels.transpose(2, 0, 1), frame.squeeze(0) if shape[0] == 1 else frame
        )


def test_frames_that_are_not_contiguous_are_encoded_alike() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    assert encode_png(frames) == encode_png(np.ascontiguousarray(frames))
