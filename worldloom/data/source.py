"""Open a dataset of any known format."""

from pathlib import Path
from typing import Any

from worldloom.console import say
from worldloom.data.episode import EpisodeSource
from worldloom.errors import UserError
from worldloom.registry import Registry

FORMATS = Registry(
    "dataset format",
    {
        "lerobot": "worldloom.data.lerobot.reader:LeRobotSource",
        "lerobot_v21": "worldloom.data.lerobot.reader_v21:LeRobotV21Source",
        "minari": "worldloom.data.formats.minari:MinariSource",
        "robomimic": "worldloom.data.formats.robomimic:RobomimicSource",
        "npz": "worldloom.data.formats.npz:NpzSource",
        "vpt": "worldloom.data.formats.vpt:VPTSource",
        "videos": "worldloom.data.formats.videos:VideosSource",
    },
    group="worldloom.formats",
    kind="worldloom.data.episode:EpisodeSource",
)


def open_dataset(path: Path | str, format: str | None = None) -> EpisodeSource:
    """The dataset at `path`, in the named `format` or the first one of `FORMATS` that recognises it.

    `format` may be your own `module:Class`, which is imported. Raises `UserError` when there is nothing at `path`, when
    no format recognises it, or when its metadata is broken.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder. Give the path of a dataset.")
    path = path.absolute()  # pyarrow and FFmpeg take what stands before a colon in "take:1" for a protocol
    if format is not None:
        return FORMATS.typed(format)(path)
    for name in FORMATS:
        found = FORMATS[name] if name in FORMATS.entries else working(name)
        if found is not None and found.detect(path):
            return found(path)
    raise UserError(
        f"{path}: not a dataset of a known format ({', '.join(FORMATS)}). Name it with --format if it is one."
    )


def working(name: str) -> Any:
    """A format of an installed package; None, with a warning, where that is broken: the others still work."""
    try:
        return FORMATS[name]
    except UserError as error:
        say(f"WARNING: {error}")
        return None
