"""Film strips on the way: what the model imagines from a few frames of a held-out episode, under what happened."""

from pathlib import Path

import torch
from PIL import Image

from worldloom.data import durable
from worldloom.data.segment import Segment
from worldloom.model import WorldModel
from worldloom.render.filmstrip import as_frames, difference, film_strip

CONTEXT, HORIZON = 5, 45


def film_strips(model: WorldModel, segment: Segment) -> dict[str, Image.Image]:
    """One strip per image key: real, imagined open-loop after `CONTEXT` rows, and their difference.

    `segment` is `[1, T]`; nothing is drawn when the model decodes no image or T leaves nothing to imagine.
    """
    context = min(CONTEXT, segment.shape[1] - 1)
    keys = [key for key in model.spec.image_keys if key in model.decodes]
    if context < 1 or not keys:
        return {}
    observed = segment[:, :context]
    belief = model.track(observed.obs, observed.action)[:, -1]
    imagined = model.imagine(belief, segment.action[:, context - 1 : -1])
    return {key: _strip(model.decode(imagined, key)[0].float(), segment.obs[key][0], context) for key in keys}


def save_previews(strips: dict[str, Image.Image], folder: Path, step: int) -> list[Path]:
    """Write `step-00001000-KEY.png` for each image key."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for key, image in strips.items():
        path = folder / f"step-{step:08d}-{key}.png"
        with durable.replacing(path) as partial:
            image.save(partial, format="PNG")
        paths.append(path)
    return paths


def _strip(imagined: torch.Tensor, real: torch.Tensor, context: int) -> Image.Image:
    """`imagined` float `[H, C, h, w]` follows after `context` rows of `real` uint8 `[T, C, h, w]`."""
    recorded = real.cpu().numpy()[context:]
    frames = as_frames(imagined.cpu().numpy())
    rows = [("real", recorded), ("imagined", frames), ("difference", difference(recorded, frames))]
    return film_strip(rows, ticks=[f"+{t + 1}" for t in range(len(recorded))])
