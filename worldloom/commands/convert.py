"""The command `worldloom import`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from worldloom.data.convert import INFO, MOST_LISTED, RECORD, Skipped, format_of, import_source, open_source
from worldloom.data.episode import EpisodeSource
from worldloom.data.source import FORMATS
from worldloom.errors import UserError, unknown
from worldloom.flags import named
from worldloom.limits import at_least, between, check_limits
from worldloom.registry import is_reference


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """Convert a dataset into LeRobotDataset v3.0. Stop it whenever you like; the same command continues."""

    src: Positional[Path]
    """The dataset: Minari, D4RL or OGBench, robomimic, VPT, a folder of videos, or an older LeRobot one."""
    out: Positional[Path]
    """The folder to write. It must be new, or hold an unfinished import of the same data."""
    format: Annotated[str, named(FORMATS, "The format of SRC; auto looks at the files", "auto")] = "auto"
    skip_broken: bool = False
    """Leave out episodes that are broken and list them, instead of stopping at the first one."""
    fps: Annotated[int | None, between(1, 100_000)] = None
    """Frames per second, for data that do not state it. Plain videos are sampled at this rate."""
    image_size: Annotated[tuple[int, int] | None, between(1, 20_000)] = None
    """Height and width to resize all pictures to. Default: keep theirs."""
    license: str | None = None
    """The licence of the data, for its data card."""
    origin: str | None = None
    """Where the data come from, for their data card."""
    episodes: Annotated[int | None, at_least(1)] = None
    """Convert only the first so many episodes."""
    lossless: bool = False
    """Store large pictures as PNG instead of video. Those below 128 pixels always are."""


def convert(settings: Annotated[ImportSettings, arg(name="")]) -> None:
    """Convert a dataset into LeRobotDataset v3.0. Stop it whenever you like; the same command continues."""
    src, out = settings.src.expanduser(), settings.out.expanduser()
    check_limits(settings)
    _check_options(src, out, settings.format)
    source = open_source(src, None if settings.format == "auto" else settings.format, settings.fps)
    if settings.fps is not None:
        source.spec = replace(source.spec, fps=float(settings.fps))
        source.about.pop("fps_assumed", None)
    given = {name: fact for name, fact in (("license", settings.license), ("origin", settings.origin)) if fact}
    options: dict[str, Any] = {
        "image_size": settings.image_size,
        "episodes": settings.episodes,
        "lossless": settings.lossless,
        "about": given,
    }
    try:
        skipped = import_source(source, out, skip_broken=settings.skip_broken, **options)
    except OSError as error:
        what = f"{error.filename or out}: {error.strerror or error}"
        raise UserError(f"{what}. What was imported is kept; fix that and type the same command again.") from error
    for line in summary(source, out, skipped):
        print(line)


def summary(source: EpisodeSource, out: Path, skipped: Skipped) -> Iterator[str]:
    """The summary printed at the end, line by line."""
    info = json.loads((out / INFO).read_text(encoding="utf-8"))
    counts = f"{info['total_episodes']} episodes, {info['total_frames']:,} rows"
    yield f"{out}: {counts}, from {source.path} ({format_of(source)})"
    if source.about.get("fps_assumed"):
        yield f"the data do not say how fast they were recorded; {info['fps']} frames per second are assumed (--fps)"
    if source.about.get("left_out"):
        yield f"left out, neither pictures nor vectors: {', '.join(source.about['left_out'])}"
    for index, problem in skipped[:MOST_LISTED]:
        yield f"left out episode {index}: {problem}"
    if len(skipped) > MOST_LISTED:
        yield f"and {len(skipped) - MOST_LISTED} more, listed in {out / RECORD}"
    yield f"worldloom inspect {out}"


def _check_options(src: Path, out: Path, format: str) -> None:
    if format not in ("auto", *FORMATS) and not is_reference(format):
        raise unknown("dataset format", format, ("auto", *FORMATS))
    if src.is_dir() and out.resolve().is_relative_to(src.resolve()):
        raise UserError(f"{out} lies inside {src}, which is being read; choose a folder outside it")
