"""Film strips: rows of frames over a common time axis, for previews while training and for the report.

T frames, C H W image channels, height, width. Frames are uint8 channels first, as everywhere in the kit.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 128
GAP = 4
LABEL = 22
BACKGROUND = (18, 20, 24)
INK = (235, 237, 240)
FAINT = (150, 156, 165)


def film_strip(
    rows: Sequence[tuple[str, np.ndarray]],
    every: int = 1,
    ticks: Sequence[str] | None = None,
    cell: int = CELL,
    max_frames: int = 24,
) -> Image.Image:
    """A picture of several rows of frames, each under its label, every `every`-th frame shown.

    Small frames are enlarged by a whole factor (pixels stay square and sharp) so that a frame's longer side is near
    `cell` pixels. Several cameras are several rows.

    Args:
        rows: (label, uint8 `[T, C, H, W]`); rows may differ in T and in size.
        every: distance between shown frames; raised when more than `max_frames` would be shown.
        ticks: one caption per time step, "0", "1", ... by default.
        cell: longer side of a drawn frame in pixels.
        max_frames: most frames in one row.
    """
    assert rows, "a film strip needs at least one row"
    longest = max(len(frames) for _, frames in rows)
    every = max(every, -(-longest // max_frames))
    ticks = ticks or [str(t) for t in range(longest)]
    drawn = [(label, [enlarge(frame, cell) for frame in frames[::every]]) for label, frames in rows]
    column = max((frame.width for _, frames in drawn for frame in frames), default=cell)
    heights = [max((frame.height for frame in frames), default=0) for _, frames in drawn]
    columns = -(-longest // every)
    size = (columns * (column + GAP) + GAP, sum(heights) + len(drawn) * (LABEL + GAP) + LABEL)
    strip = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(strip)
    top = 0
    for (label, frames), height in zip(drawn, heights, strict=True):
        pen.text((GAP, top + 2), label, INK, font(15))
        for i, frame in enumerate(frames):
            strip.paste(frame, (GAP + i * (column + GAP), top + LABEL))
        top += LABEL + height + GAP
    for i in range(columns):
        pen.text((GAP + i * (column + GAP), top), ticks[i * every], FAINT, font(13))
    return strip


def difference(real: np.ndarray, imagined: np.ndarray) -> np.ndarray:
    """Imagined minus real as a picture, uint8 `[T, C, H, W]`: grey where equal, brighter where too bright."""
    gap = imagined.astype(np.int16) - real.astype(np.int16)
    return np.clip(128 + gap // 2, 0, 255).astype(np.uint8)


def as_frames(images: np.ndarray) -> np.ndarray:
    """Decoded images, float in [0, 1], as uint8 frames of the same shape."""
    return np.clip(np.round(np.asarray(images, np.float32) * 255), 0, 255).astype(np.uint8)


def enlarge(frame: np.ndarray, cell: int = CELL) -> Image.Image:
    """One uint8 `[C, H, W]` frame as an RGB picture whose longer side is near `cell` pixels."""
    image = picture(frame)
    factor = cell / max(image.size)
    if factor >= 1:
        factor = max(1, round(factor))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX)


def picture(frame: np.ndarray) -> Image.Image:
    """One uint8 `[C, H, W]` frame in RGB: grey for one channel, the last three of a stack of frames."""
    assert (frame.dtype, frame.ndim) == (np.uint8, 3), f"want uint8 [C, H, W], got {frame.dtype} {frame.shape}"
    channels = frame[-3:] if len(frame) >= 3 else np.repeat(frame[-1:], 3, axis=0)
    return Image.fromarray(np.ascontiguousarray(channels.transpose(1, 2, 0)))


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that comes inside Pillow, so that pictures look the same everywhere."""
    return ImageFont.load_default(size)
