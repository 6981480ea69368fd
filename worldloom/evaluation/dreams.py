"""Example rollouts for the report: the recording, an imagined rollout, and one with the actions of another episode.

T rows of a clip (context, then open-loop steps), M samples, H open-loop steps, D vector size, C H W image channels,
height, width.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from worldloom.evaluation import rollout
from worldloom.evaluation.rollout import RolloutSettings
from worldloom.evaluation.windows import HeldOut, Window, read_windows
from worldloom.model import WorldModel
from worldloom.render.filmstrip import as_frames, difference, enlarge, film_strip

OBSERVING, DREAMING = (120, 128, 138), (226, 92, 59)
NUM_DREAMS = 3
STRIP_STEPS = (1, 3, 5, 10, 15, 30, 50)
BAR = 4


@dataclass(frozen=True)
class Dream:
    """One window of a held-out episode beside one dream of it.

    real, imagined, shuffled: `{image key: uint8 [T, C, H, W]}`; the first `context` imagined rows are what the model
    observes before the rollout begins. vectors: `{key: (real [T, D], samples [M, H, D])}`.
    """

    name: str
    start: int
    context: int
    real: dict[str, np.ndarray]
    imagined: dict[str, np.ndarray]
    shuffled: dict[str, np.ndarray]
    vectors: dict[str, tuple[np.ndarray, np.ndarray]]


def show_dreams(
    model: WorldModel, held: Sequence[HeldOut], settings: RolloutSettings, count: int = NUM_DREAMS
) -> list[Dream]:
    """Dreams of the middle of `count` held-out episodes, chosen by their place in the list and not by content."""
    long = [h for h in held if h.length > settings.context + 1]
    long = [h for h in long if h.length >= settings.context + settings.length] or sorted(long, key=lambda h: -h.length)[
        :count
    ]
    picked = sorted({int(i) for i in np.linspace(0, len(long) - 1, min(count, len(long)))})
    with torch.inference_mode():
        return [_dream(model, held, long[i], settings) for i in picked]


def _dream(model: WorldModel, held: Sequence[HeldOut], chosen: HeldOut, settings: RolloutSettings) -> Dream:
    horizon = min(settings.length, chosen.length - settings.context)
    start = (chosen.length - settings.context - horizon) // 2
    one = replace(settings, samples=1)
    batch = read_windows([Window(chosen, start)], settings.context, horizon)
    actions = batch.actions
    tracked = model.track(
        {k: v[:, : settings.context].to(settings.device) for k, v in batch.segment.obs.items()},
        batch.segment.action[:, : settings.context].to(settings.device),
        settings.noise,
    )
    belief = tracked[:, -1]
    states = rollout.imagine(model, belief, actions, one, 1)
    others = rollout.imagine(model, belief, _other_actions(held, chosen, actions, settings), one, 1)
    particles = rollout.imagine(model, belief.repeat(settings.samples), actions, settings, 1)
    images = [k for k in model.spec.image_keys if k in model.decodes]
    tracked_images = {k: model.decode(tracked[0], k).cpu() for k in images}
    return Dream(
        chosen.name,
        start,
        settings.context,
        real={k: batch.segment.obs[k][0].numpy() for k in images},
        imagined={
            k: as_frames(torch.cat([tracked_images[k], model.decode(states[0], k).cpu()]).numpy()) for k in images
        },
        shuffled={
            k: as_frames(torch.cat([tracked_images[k], model.decode(others[0], k).cpu()]).numpy()) for k in images
        },
        vectors={
            k: (batch.segment.obs[k][0].numpy(), model.decode(particles, k).cpu().numpy())
            for k in model.spec.vector_keys
            if k in model.decodes
        },
    )


def _other_actions(
    held: Sequence[HeldOut], chosen: HeldOut, actions: torch.Tensor, settings: RolloutSettings
) -> torch.Tensor:
    """Actions of another long enough episode, or the own ones backwards."""
    horizon = actions.shape[1]
    others = [h for h in held if h.index != chosen.index and h.length >= settings.context + horizon]
    if not others:
        return actions.flip(1)
    return read_windows([Window(others[chosen.index % len(others)], 0)], settings.context, horizon).actions


def clip(dream: Dream, fps: float) -> str:
    """A looping WebP as a data URI: real, imagined and difference side by side, one row per camera.

    The bar over the imagined picture is grey while the model observes and orange in the open-loop part.
    """
    frames = []
    for t in range(len(next(iter(dream.real.values())))):
        rows = []
        for key, real in dream.real.items():
            imagined = dream.imagined[key]
            row = [real[t], imagined[t], difference(real[t], imagined[t])]
            rows.append([enlarge(frame, 128) for frame in row])
        frames.append(_mosaic(rows, dreaming=t >= dream.context))
    out = BytesIO()
    # The last picture stays a while, so that the eye sees where the loop begins.
    duration = [round(1000 / min(max(fps, 1.0), 15.0))] * (len(frames) - 1) + [900]
    frames[0].save(
        out, "WEBP", save_all=True, append_images=frames[1:], duration=duration, loop=0, quality=72, method=3
    )
    return data_uri(out.getvalue(), "image/webp")


def strip(dream: Dream, key: str) -> tuple[str, tuple[int, int]]:
    """A film strip of one camera as a data URI, and its size: the last observed row, then steps ever further apart."""
    total = len(dream.real[key]) - dream.context
    steps = sorted({0, *(min(k, total) for k in STRIP_STEPS)})
    shown = [dream.context - 1 + k for k in steps]
    real, imagined = dream.real[key][shown], dream.imagined[key][shown]
    rows = [
        ("real", real),
        ("imagined with the recorded actions", imagined),
        ("imagined minus real (grey: equal)", difference(real, imagined)),
        ("imagined with another episode's actions", dream.shuffled[key][shown]),
    ]
    if np.array_equal(dream.imagined[key], dream.shuffled[key]):
        rows.pop()
    picture = film_strip(rows, 1, [f"+{k}" if k else "last observed" for k in steps])
    out = BytesIO()
    picture.save(out, "WEBP", quality=82, method=4)
    return data_uri(out.getvalue(), "image/webp"), picture.size


def _mosaic(rows: Sequence[Sequence[Image.Image]], dreaming: bool) -> Image.Image:
    widths = [max(row[i].width for row in rows) for i in range(3)]
    heights = [max(image.height for image in row) for row in rows]
    canvas = Image.new("RGB", (sum(widths) + 2 * BAR, sum(heights) + BAR * len(rows)), (18, 20, 24))
    canvas.paste(DREAMING if dreaming else OBSERVING, (widths[0] + BAR, 0, widths[0] + BAR + widths[1], BAR))
    top = BAR
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for image, width in zip(row, widths, strict=True):
            canvas.paste(image, (left, top))
            left += width + BAR
        top += height + BAR
    return canvas


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
