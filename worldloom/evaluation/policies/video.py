"""The film of one episode as an mp4: the real world, and beside it the future the agent imagined for its plan.

A model that decodes pictures shows the imagined ones; vectors, rewards and values are drawn as lines over time, what
was imagined against what then happened.

T decisions, H horizon, C H W image channels, height, width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image, ImageDraw

from worldloom.data.durable import make_folder, replacing
from worldloom.data.video import encode
from worldloom.errors import UserError
from worldloom.evaluation.dreams import DREAMING
from worldloom.evaluation.policies.charts import REAL, TO_COME, Chart, draw_chart
from worldloom.evaluation.policies.film import Film, FilmFrame, picture_steps
from worldloom.render.filmstrip import BACKGROUND, FAINT, GAP, INK, enlarge, font, picture

VIEW, PANEL, HEAD, FOOT = 384, 576, 34, 30
PICTURE, TITLE = 128, 18
FINE = 2  # lines are drawn this many times as fine, then averaged
MOST_FPS = 30
MOST_CHARTS = 6
SHORTEST_PAST, SHORTEST_FUTURE = 30, 8


def write_video(film: Film, path: Path, caption: str, discount: float, fps: float) -> None:
    """Encode what was filmed. `fps` are decisions a second; above 30 the video is slower than life, and says so.

    Raises `UserError` when the model decodes nothing that could be drawn.
    """
    frames = Frames(film, caption, discount, fps)
    make_folder(path.parent)
    with replacing(path) as temporary:
        encode(temporary, frames, max(1, round(min(fps, MOST_FPS))))


class Frames(Sequence[np.ndarray]):
    """The video's frames, uint8 `[C, H, W]`, each drawn when it is asked for: a long film need not fit in memory."""

    def __init__(self, film: Film, caption: str, discount: float, fps: float):
        self.frames = [m for m in film.frames if m.imagined or m.pictures]
        self.film, self.caption, self.fps = film, caption, fps
        self.layout = FrameLayout.of(film, discount)
        self.total = np.cumsum([frame.reward for frame in film.frames])

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return np.ascontiguousarray(np.asarray(self.draw(index)).transpose(2, 0, 1))

    def draw(self, now: int) -> Image.Image:
        """The frame of decision `now`."""
        layout, frame = self.layout, self.frames[now]
        canvas = Image.new("RGB", layout.size, BACKGROUND)
        pen = ImageDraw.Draw(canvas)
        self._write(pen, now)
        if layout.view and frame.view is not None:
            view = fit(frame.view.transpose(2, 0, 1), VIEW)
            canvas.paste(view, (GAP + (VIEW - view.width) // 2, HEAD + (VIEW - view.height) // 2))
        if layout.camera:
            self._paste_pictures(canvas, pen, now, layout.camera)
        canvas.paste(self._charts(now), (layout.left, layout.charts_top))
        return canvas

    def _paste_pictures(self, canvas: Image.Image, pen: ImageDraw.ImageDraw, now: int, camera: str) -> None:
        """Two rows: what was imagined for some steps ahead, and below it what then happened."""
        layout, frame, all_frames = self.layout, self.frames[now], self.film.frames
        for number, step in enumerate(layout.steps):
            when = frame.made + step + 1
            left = layout.left + number * (PANEL // len(layout.steps))
            rows = [("imagined", DREAMING, frame.pictures[camera][number])]
            if when < len(all_frames):
                rows.append(("happened", REAL, all_frames[when].obs[camera].transpose(2, 0, 1)))
            for row, (words, colour, pixels) in enumerate(rows):
                top = HEAD + row * (PICTURE + TITLE)
                pen.text((left, top), f"{words}, {when - now:+d}", colour, font(13))
                canvas.paste(fit(pixels, PICTURE), (left, top + TITLE))

    def _write(self, pen: ImageDraw.ImageDraw, now: int) -> None:
        layout = self.layout
        seconds = f"{now / self.fps:.1f} s"
        if layout.view:
            pen.text((GAP, 8), f"real   {seconds}   return {self.total[now]:.1f}", INK, font(16))
        pen.text((layout.left, 8), self.caption, DREAMING, font(16))
        bottom = layout.size[1] - FOOT + 6
        speed = f", {MOST_FPS / self.fps:.2g} x real speed" if self.fps > MOST_FPS else ""
        pen.text((GAP, bottom), f"decision {now}{speed}" if layout.view else f"{seconds}{speed}", FAINT, font(13))
        x = layout.left
        for words, colour in (("happened", REAL), ("happened later", TO_COME), ("imagined", DREAMING)):
            pen.line([(x, bottom + 8), (x + 18, bottom + 8)], colour, 3)
            pen.text((x + 24, bottom), words, FAINT, font(13))
            x += 40 + int(pen.textlength(words, font(13)))

    def _charts(self, now: int) -> Image.Image:
        layout = self.layout
        width, height = PANEL * FINE, layout.charts_height * FINE
        panel = Image.new("RGB", (width, height), BACKGROUND)
        pen = ImageDraw.Draw(panel)
        columns, rows = layout.grid
        wide, high = width // columns, height // rows
        for number, chart in enumerate(layout.charts):
            left, top = number % columns * wide, number // columns * high
            box = (left, top, left + wide - 2 * GAP * FINE, top + high - GAP * FINE)
            draw_chart(pen, box, chart, now, layout.past, layout.future, FINE)
        return panel.reduce(FINE)


@dataclass(frozen=True)
class FrameLayout:
    """What is drawn where: the view on the left if there is one, imagined pictures on the right, charts below them."""

    view: bool
    camera: str | None
    steps: tuple[int, ...]
    charts: list[Chart]
    past: int
    future: int

    @classmethod
    def of(cls, film: Film, discount: float) -> "FrameLayout":
        shown = [frame for frame in film.frames if frame.imagined or frame.pictures]
        if not shown:
            raise UserError("the model decodes nothing that a video could show: plan with --no-video")
        camera = next(iter(shown[0].pictures), None)
        horizon = film.horizon
        charts = make_charts(film, shown, discount, 2 if camera else MOST_CHARTS)
        return cls(
            view=shown[0].view is not None,
            camera=camera,
            steps=picture_steps(horizon),
            charts=charts,
            past=max(2 * horizon, SHORTEST_PAST),
            future=max(horizon, SHORTEST_FUTURE),
        )

    @property
    def left(self) -> int:
        """Where the imagined side begins."""
        return VIEW + 4 * GAP if self.view else GAP

    @property
    def size(self) -> tuple[int, int]:
        """Width and height; both even, as most players want."""
        return self.left + PANEL + self.left % 2, HEAD + VIEW + FOOT

    @property
    def charts_top(self) -> int:
        return HEAD + (2 * (PICTURE + TITLE) + GAP if self.camera else 0)

    @property
    def charts_height(self) -> int:
        return HEAD + VIEW - self.charts_top

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows of charts."""
        if self.camera:
            return max(1, len(self.charts)), 1
        columns = 1 if len(self.charts) <= 2 else 2
        return columns, max(1, -(-len(self.charts) // columns))


def fit(frame: np.ndarray, side: int) -> Image.Image:
    """A uint8 frame `[C, H, W]` as large as fits a square; a small one by a whole factor, so that its pixels show."""
    image = picture(frame)
    factor = side / max(image.size)
    if factor >= 2:
        return enlarge(frame, int(factor) * max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def make_charts(film: Film, shown: list[FilmFrame], discount: float, most: int) -> list[Chart]:
    """The reward, the value, then those numbers of the vectors that moved most for their usual spread."""
    titles = {"reward": "reward", "value": "value: discounted reward to come"}
    charts = []
    for key, title in titles.items():
        if key in shown[0].imagined:
            charts.append(Chart.of(title, film.real(key, discount), [(m.made, m.imagined[key]) for m in shown]))
    numbers = []
    for key in film.spec.vector_keys:
        if key in shown[0].imagined:
            real, spec = film.real(key, discount), film.spec.obs[key]
            moved = real[: len(shown)].std(0) / np.maximum(spec.std or np.ones(real.shape[1]), 1e-6)
            numbers += [(float(moved[d]), key, d, real[:, d]) for d in range(real.shape[1])]
    liveliest = sorted(numbers, key=lambda n: -n[0])[: max(0, most - len(charts))]
    for _, key, d, real in sorted(liveliest, key=lambda n: (n[1], n[2])):
        names = film.spec.obs[key].names
        title = names[d] if names else f"{key} {d}"
        charts.append(Chart.of(title, real, [(m.made, m.imagined[key][:, d]) for m in shown]))
    return charts
