"""Exports of a branch: an mp4, a PNG of the current node, or a LeRobot dataset marked as synthetic.

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
from worldloom.play.context import ServerContext
from worldloom.play.session import Node
from worldloom.play.starts import Start
from worldloom.render.filmstrip import enlarge

CELL = 384
MAX_FILES = 100


@dataclass
class Exports:
    """Exported files under unguessable names, deleted when the server stops."""

    keep: TemporaryDirectory[str] = field(default_factory=lambda: TemporaryDirectory(prefix="worldloom-play-"))
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return Path(self.keep.name)

    def offer(self, name: str, file: Path) -> str:
        """The URL path of a file. Beyond `MAX_FILES` the oldest file is deleted."""
        key = f"{secrets.token_urlsafe(16)}/{name}"
        self.files[key] = file
        while len(self.files) > MAX_FILES:
            self.files.pop(next(iter(self.files))).unlink(missing_ok=True)
        return f"/files/{key}"

    def close(self) -> None:
        self.keep.cleanup()


def export(kind: str, context: ServerContext, start: Start, path: Sequence[Node], folder: Path) -> tuple[str, Path]:
    """Write one file from the nodes of `path`: its name and location. Raises `UserError`."""
    makers = {"png": write_png, "mp4": write_mp4, "dataset": write_dataset}
    name = {"png": "node.png", "mp4": "session.mp4", "dataset": "session-dataset.zip"}[kind]
    file = folder / f"{secrets.token_hex(8)}-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # the system may have deleted its temporary folders
        makers[kind](context, start, path, file)
    except OSError as error:
        raise UserError(f"{name} cannot be written ({error}): make room in {folder.parent}") from error
    return name, file


def write_png(context: ServerContext, start: Start, path: Sequence[Node], file: Path) -> None:
    """The last node's pictures side by side, not enlarged."""
    Image.fromarray(np.concatenate(pictures_of(path[-1]), 1)).save(file)


def write_mp4(context: ServerContext, start: Start, path: Sequence[Node], file: Path) -> None:
    """All nodes, enlarged by integer factors so that pixels stay sharp."""
    frames = (np.concatenate([large(picture) for picture in pictures_of(node)], 1) for node in path)
    encode(file, (even(frame).transpose(2, 0, 1) for frame in frames), max(1, round(context.spec.fps)))


def even(frame: np.ndarray) -> np.ndarray:
    """Crop to even height and width: many video players refuse odd sizes."""
    height, width = frame.shape[:2]
    return frame[: height - height % 2, : width - width % 2]


def pictures_of(node: Node) -> list[np.ndarray]:
    """The node's pictures, padded to one height. Raises `UserError` when the model decodes none."""
    if not node.result.pictures:
        raise UserError("the model decodes no pictures: export the session as a dataset")
    tallest = max(picture.shape[0] for picture in node.result.pictures.values())
    return [
        np.pad(picture, ((0, tallest - picture.shape[0]), (0, 0), (0, 0))) for picture in node.result.pictures.values()
    ]


def large(picture: np.ndarray) -> np.ndarray:
    return np.asarray(enlarge(picture.transpose(2, 0, 1), CELL))


def write_dataset(context: ServerContext, start: Start, path: Sequence[Node], file: Path) -> None:
    """The branch as one episode of a zipped LeRobotDataset v3.0, whose card says that it was imagined."""
    model = context.engine.model
    about = {
        "synthetic": True,
        "license": "unknown",
        "origin": f"imagined by worldloom ({model.family}, step {context.step}) from {start.label}",
        "imagined_by": context.model_hash,
    }
    with TemporaryDirectory(dir=file.parent) as folder:
        root = Path(folder) / "session"
        with LeRobotWriter(root, dream_spec(model), about=about) as writer:
            writer.add(to_episode(context, path))
        made = shutil.make_archive(str(file.with_suffix("")), "zip", folder, "session")
    assert Path(made) == file, (made, file)


def to_episode(context: ServerContext, path: Sequence[Node]) -> Episode:
    """A branch as an episode in the data's own units."""
    spec = dream_spec(context.engine.model)
    obs = {
        key: np.stack([node.result.pictures[key].transpose(2, 0, 1) for node in path])
        if of.kind == "image"
        else np.stack([node.result.vectors[key] for node in path])
        for key, of in spec.obs.items()
    }
    actions = [np.asarray(node.action, np.float32) for node in path[1:]]
    action = spec.action.unscale(np.stack([*actions, np.zeros(spec.action.size, np.float32)]))
    action[-1] = 0
    reward = np.array([0.0, *(node.result.signals.get("reward", 0.0) for node in path[1:])], np.float32)
    last = np.arange(len(path)) == len(path) - 1
    terminated = last & (path[-1].result.signals.get("terminated", 0.0) > LIKELY)
    return Episode(obs, action, reward, terminated, last & ~terminated)
