"""One picture of a dataset: several episodes at several times through every camera.

T rows, C H W image channels, height, width.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldloom.data.episode import EpisodeSource

EPISODES, TIMES = 5, 6
CELL = 176  # width of one frame
GAP, CAPTION = 6, 22
BACKGROUND, INK, FAINT = (18, 20, 24), (235, 237, 240), (150, 156, 165)


def contact_sheet(
    source: EpisodeSource, readable: Sequence[int], image_size: tuple[int, int] | None = None
) -> Image.Image | None:
    """A sheet of up to `EPISODES` of the `readable` episodes, spread over the dataset; None when there is no camera.

    `image_size`: height and width that pictures are read at, which need not keep the proportions of every camera.
    """
    cameras = source.spec.image_keys
    if not cameras:
        return None
    places = np.linspace(0, len(readable) - 1, min(EPISODES, len(readable))).round().astype(int)
    strips = [_strip(source, readable[place], image_size) for place in places]
    width = max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, sum(strip.height + GAP for strip in strips) + GAP), BACKGROUND)
    top = GAP
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + GAP
    return sheet


def _strip(source: EpisodeSource, index: int, image_size: tuple[int, int] | None) -> Image.Image:
    """One episode: a caption, a row of times per camera, the time under them."""
    episode, keys = source.read(index, image_size), source.spec.obs
    times = np.linspace(0, len(episode) - 1, TIMES).round().astype(int)
    rows = [[_cell(episode.obs[key][t], keys[key].shape) for t in times] for key in source.spec.image_keys]
    heights = [row[0].height for row in rows]
    width = TIMES * (CELL + GAP) + GAP
    strip = Image.new("RGB", (width, CAPTION * 2 + sum(heights) + GAP * len(rows)), BACKGROUND)
    pen = ImageDraw.Draw(strip)
    title = f"episode {index}, {len(episode)} rows" + (f": {episode.task}" if episode.task else "")
    pen.text((GAP, 3), _shorten(pen, title, width - 2 * GAP), INK, _font())
    top = CAPTION
    for key, row, height in zip(source.spec.image_keys, rows, heights, strict=True):
        for i, cell in enumerate(row):
            strip.paste(cell, (GAP + i * (CELL + GAP), top))
        if len(rows) > 1:
            _label(pen, (GAP + 3, top + 3), key)
        top += height + GAP
    for i, t in enumerate(times):
        pen.text((GAP + i * (CELL + GAP), top - 2), f"{t / source.spec.fps:.1f} s", FAINT, _font())
    return strip


def _cell(frame: np.ndarray, shape: tuple[int, ...]) -> Image.Image:
    """A uint8 `[C, H, W]` frame at the sheet's width in the proportions of the camera's own `shape`; small frames are
    enlarged with hard pixels.
    """
    picture = Image.fromarray(frame.transpose(1, 2, 0) if len(frame) == 3 else frame[0]).convert("RGB")
    size = (CELL, max(1, round(CELL * shape[1] / shape[2])))
    small = 2 * picture.width <= CELL
    return picture.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _label(pen: ImageDraw.ImageDraw, place: tuple[int, int], words: str) -> None:
    left, top, right, bottom = pen.textbbox(place, words, _font())
    pen.rectangle((left - 3, top - 2, right + 3, bottom + 2), BACKGROUND)
    pen.text(place, words, INK, _font())


def _shorten(pen: ImageDraw.ImageDraw, words: str, width: int) -> str:
    while pen.textlength(words, _font()) > width:
        words = words.rstrip("…")[:-1] + "…"
    return words


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)
