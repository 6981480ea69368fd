"""A dream as an mp4: what really happened beside what the model imagined, every camera, labels readable on a phone.

T rows, N dreams, C H W image channels, height, width.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from worldloom.data.durable import replacing
from worldloom.data.video import encode
from worldloom.errors import UserError
from worldloom.evaluation.dreams import DREAMING, OBSERVING
from worldloom.evaluation.open_loop import Dreams
from worldloom.model import WorldModel
from worldloom.render.filmstrip import BACKGROUND, FAINT, GAP, INK, as_frames, enlarge, font
from worldloom.runs.start_row import StartRow

CELL = 320
HEAD, FOOT = 34, 34
MOST_DREAMS = 4


def write_video(model: WorldModel, start: StartRow, dreams: Dreams, out: Path, recorded: bool) -> None:
    """Encode the dream. `recorded`: the actions are those of the recording, so that the real rows go on beside it.

    Raises `UserError` when there are no images to show or too many dreams to show side by side.
    """
    cameras = [k for k in model.spec.image_keys if k in model.decodes]
    if not cameras:
        raise UserError(f"--out {out}: the model imagines no images. Give a folder, which becomes a dataset.")
    if len(dreams.actions) > MOST_DREAMS:
        raise UserError(
            f"--samples {len(dreams.actions)}: a video shows at most {MOST_DREAMS}. Give a folder for more."
        )
    columns = _columns(model, start, dreams, cameras, recorded)
    context = start.observed.shape[1]
    frames = np.stack([np.asarray(frame) for frame in _frames(columns, cameras, context, model.spec.fps)])
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        encode(temporary, np.ascontiguousarray(frames.transpose(0, 3, 1, 2)), max(1, round(model.spec.fps)))


def _columns(
    model: WorldModel, start: StartRow, dreams: Dreams, cameras: list[str], recorded: bool
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """(label, uint8 `{camera: [T, C, H, W]}`) of the real rows and of every dream, all equally long."""
    rows = start.observed.shape[1] + dreams.actions.shape[1]
    real = {}
    for key in cameras:
        known = start.observed.obs[key][0].numpy()
        if recorded and start.future is not None:
            known = np.concatenate([known, start.future.obs[key][0].numpy()])[:rows]
        # Without a recording of these actions the last real picture stays, darkened.
        rest = np.repeat(known[-1:] // 3, rows - len(known), 0)
        real[key] = np.concatenate([known, rest])
    columns = [("real" if recorded else "real, observed part only", real)]
    many = len(dreams.actions) > 1
    with torch.inference_mode():
        for number in range(len(dreams.actions)):
            made = {}
            for key in cameras:
                seen, ahead = model.decode(dreams.tracked[0], key), model.decode(dreams.states[number], key)
                made[key] = as_frames(torch.cat([seen, ahead]).float().cpu().numpy())
            columns.append((f"imagined {number + 1}" if many else "imagined", made))
    return columns


def _frames(
    columns: list[tuple[str, dict[str, np.ndarray]]], cameras: list[str], context: int, fps: float
) -> Iterator[Image.Image]:
    for t in range(len(next(iter(columns[0][1].values())))):
        cells = [[enlarge(images[key][t], CELL) for _, images in columns] for key in cameras]
        yield _compose(cells, [label for label, _ in columns], cameras, t - context + 1, fps)


def _compose(
    cells: list[list[Image.Image]], labels: list[str], cameras: list[str], ahead: int, fps: float
) -> Image.Image:
    """One frame of the video, `ahead` steps after the last observed row. Its sides are even, as most players want."""
    width = max(cell.width for row in cells for cell in row) + GAP
    size = (width * len(labels) + GAP, sum(row[0].height + GAP for row in cells) + HEAD + FOOT)
    canvas = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for i, label in enumerate(labels):
        pen.text((GAP + i * width, 7), label, INK, font(18))
    dreaming = ahead > 0
    pen.rectangle((GAP + width, HEAD - 5, width * len(labels), HEAD - 2), DREAMING if dreaming else OBSERVING)
    top = HEAD
    for row, camera in zip(cells, cameras, strict=True):
        for i, cell in enumerate(row):
            canvas.paste(cell, (GAP + i * width, top))
        if len(cameras) > 1:
            _tag(pen, camera, GAP, top)
        top += row[0].height + GAP
    state = f"open loop, +{ahead} steps, {ahead / fps:.1f} s" if dreaming else "observed"
    pen.text((GAP, top + 5), state, DREAMING if dreaming else FAINT, font(18))
    return canvas


def _tag(pen: ImageDraw.ImageDraw, camera: str, left: int, top: int) -> None:
    box = pen.textbbox((left + 6, top + 4), camera, font(15))
    pen.rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), BACKGROUND)
    pen.text((left + 6, top + 4), camera, INK, font(15))
