"""A walk as a file to keep: an mp4, a PNG of where the player is, or a LeRobot dataset marked as synthetic.

T rows, A action size, C H W image channels, height, width.
"""

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from worldloom.data.episode import Episode
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.video import encode
from worldloom.errors import UserError
from worldloom.evaluation.imagined_dataset import LIKELY, dream_spec
from worldloom.play.scenes import Scene
from worldloom.play.session import Moment
from worldloom.play.stage import Stage
from worldloom.render.filmstrip import enlarge

CELL = 384
MOST_FILES = 100


@dataclass
class Exports:
    """Files that were made and can be fetched under names nobody guesses; gone when the server ends."""

    keep: TemporaryDirectory[str] = field(default_factory=lambda: TemporaryDirectory(prefix="worldloom-play-"))
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return Path(self.keep.name)

    def offer(self, name: str, file: Path) -> str:
        """The address of a file. The oldest make room for the newest."""
        key = f"{secrets.token_urlsafe(16)}/{name}"
        self.files[key] = file
        while len(self.files) > MOST_FILES:
            self.files.pop(next(iter(self.files))).unlink(missing_ok=True)
        return f"/files/{key}"

    def close(self) -> None:
        self.keep.cleanup()


def export(kind: str, stage: Stage, scene: Scene, path: Sequence[Moment], folder: Path) -> tuple[str, Path]:
    """Make one file of the moments of `path`: its name and where it lies. Raises `UserError`."""
    makers = {"png": write_png, "mp4": write_mp4, "dataset": write_dataset}
    name = {"png": "moment.png", "mp4": "walk.mp4", "dataset": "walk-dataset.zip"}[kind]
    file = folder / f"{secrets.token_hex(8)}-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # the system tidies its temporary folders
        makers[kind](stage, scene, path, file)
    except OSError as error:
        raise UserError(f"{name} cannot be written ({error}): make room in {folder.parent}") from error
    return name, file


def write_png(stage: Stage, scene: Scene, path: Sequence[Moment], file: Path) -> None:
    """The last moment's pictures, side by side as they are."""
    Image.fromarray(np.concatenate(pictures_of(path[-1]), 1)).save(file)


def write_mp4(stage: Stage, scene: Scene, path: Sequence[Moment], file: Path) -> None:
    """All moments, enlarged by whole factors so that pixels stay sharp."""
    frames = (np.concatenate([large(picture) for picture in pictures_of(moment)], 1) for moment in path)
    encode(file, (even(frame).transpose(2, 0, 1) for frame in frames), max(1, round(stage.spec.fps)))


def even(frame: np.ndarray) -> np.ndarray:
    """Without the last row or column where their number is odd, which half the players of videos refuse."""
    height, width = frame.shape[:2]
    return frame[: height - height % 2, : width - width % 2]


def pictures_of(moment: Moment) -> list[np.ndarray]:
    """Raises `UserError` when the model imagines none."""
    if not moment.answer.pictures:
        raise UserError("the model imagines no pictures: keep the walk as a dataset")
    tallest = max(picture.shape[0] for picture in moment.answer.pictures.values())
    return [
        np.pad(picture, ((0, tallest - picture.shape[0]), (0, 0), (0, 0)))
        for picture in moment.answer.pictures.values()
    ]


def large(picture: np.ndarray) -> np.ndarray:
    return np.asarray(enlarge(picture.transpose(2, 0, 1), CELL))


def write_dataset(stage: Stage, scene: Scene, path: Sequence[Moment], file: Path) -> None:
    """The walk as one episode of a LeRobotDataset v3.0, zipped. What it holds was imagined, and its card says so."""
    about = {
        "synthetic": True,
        "license": "unknown",
        "origin": f"played in a dream of worldloom ({stage.engine.model.family}, step {stage.step}) from {scene.label}",
        "imagined_by": stage.model_hash,
    }
    with TemporaryDirectory(dir=file.parent) as folder:
        root = Path(folder) / "walk"
        with LeRobotWriter(root, dream_spec(stage.engine.model), about=about) as writer:
            writer.add(to_episode(stage, path))
        made = shutil.make_archive(str(file.with_suffix("")), "zip", folder, "walk")
    assert Path(made) == file, (made, file)


def to_episode(stage: Stage, path: Sequence[Moment]) -> Episode:
    """A branch as an episode in the data's own units."""
    spec = dream_spec(stage.engine.model)
    obs = {
        key: np.stack([moment.answer.pictures[key].transpose(2, 0, 1) for moment in path])
        if of.kind == "image"
        else np.stack([moment.answer.vectors[key] for moment in path])
        for key, of in spec.obs.items()
    }
    taken = [np.asarray(moment.action, np.float32) for moment in path[1:]]
    action = spec.action.unscale(np.stack([*taken, np.zeros(spec.action.size, np.float32)]))
    action[-1] = 0
    reward = np.array([0.0, *(moment.answer.signals.get("reward", 0.0) for moment in path[1:])], np.float32)
    last = np.arange(len(path)) == len(path) - 1
    ended = last & (path[-1].answer.signals.get("terminated", 0.0) > LIKELY)
    return Episode(obs, action, reward, ended, last & ~ended)
