"""`worldloom import`: a foreign dataset becomes a LeRobotDataset v3.0, one episode at a time.

An import can be stopped at any time, by Ctrl-C or worse, and the same command continues it: `meta/import.json` in the
output names the source and the episodes left out, and every episode that was written is already safe (`LeRobotWriter`).
"""

import json
import sys
from pathlib import Path
from typing import Any

from worldloom.data import durable
from worldloom.data.cache_build import with_progress
from worldloom.data.episode import BrokenEpisode, EpisodeSource
from worldloom.data.formats.videos import VideosSource
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.errors import UserError

RECORD = Path("meta/import.json")
INFO = Path("meta/info.json")
NOT_CARRIED_OVER = {"format", "codebase_version", "robot", "robot_type", "fps", "splits", "fps_assumed"}
MOST_LISTED = 20

Skipped = list[tuple[int, str]]


def import_source(
    source: EpisodeSource,
    out: Path | str,
    *,
    skip_broken: bool = False,
    image_size: tuple[int, int] | None = None,
    episodes: int | None = None,
    lossless: bool = False,
    about: dict[str, Any] | None = None,
) -> Skipped:
    """Write the episodes of any `EpisodeSource`, such as one of your own, as a LeRobotDataset v3.0 in the folder `out`.

    Continues what an earlier call began. Returns the episodes left out, each with the reason; `about` adds facts to the
    data card. Raises `BrokenEpisode` at the first broken episode unless `skip_broken`, and `UserError` when nothing
    could be imported, or when `out` holds something else.
    """
    out = Path(out)
    count = min(len(source.episodes), episodes or len(source.episodes))
    with LeRobotWriter(
        out,
        source.spec if image_size is None else source.spec.with_image_size(*image_size),
        robot_type=source.about.get("robot_type", "unknown"),
        about=describe(source) | (about or {}),
        terminal_rows=has_terminal_rows(source.path),
        lossless=lossless or None,
    ) as writer:
        skipped = read_record(out, source, writer.num_episodes)
        _copy(source, writer, skipped, count, image_size, skip_broken)
        kept = writer.num_episodes
    if not kept:
        _remove_record(out)
        first = f": {skipped[0][1]}" if skipped else ""
        raise UserError(f"no episode of {source.path} could be imported{first}")
    return skipped


def open_source(src: Path, format: str | None, fps: int | None) -> EpisodeSource:
    """The dataset at `src`. `fps` sets the rate where the data state none and resamples plain videos.

    Raises `UserError` when the data state a rate of their own: played at another they would be other data.
    """
    source = open_dataset(src, format)
    if fps is None or source.spec.fps == fps:
        return source
    if isinstance(source, VideosSource):
        return VideosSource(src, fps)
    if not source.about.get("fps_assumed"):
        raise UserError(f"--fps {fps}: {src} states {source.spec.fps:g} frames per second; leave --fps out")
    return source


def describe(source: EpisodeSource) -> dict[str, Any]:
    """What the new dataset's card says about where it comes from."""
    carried = {name: fact for name, fact in source.about.items() if fact and name not in NOT_CARRIED_OVER}
    return {**carried, "imported_from": format_of(source)}


def format_of(source: EpisodeSource) -> str:
    return source.about.get("format", type(source).__name__)


def read_record(out: Path, source: EpisodeSource, written: int) -> Skipped:
    """The episodes that an earlier run into `out` left out; starts the record when there is none.

    Raises `UserError` when what `out` holds did not come from this source as it is now.
    """
    path = out / RECORD
    if path.exists():
        record = _read_record(path)
        if record["fingerprint"] != source.fingerprint():
            raise UserError(
                f"{out} holds an import of {record['source']} that was begun with other data or options than "
                f"{source.path} has now; choose a new folder"
            )
        return [(index, problem) for index, problem in record["skipped"]]
    if written:
        raise UserError(
            f"{out} already holds {written} episodes that were not imported from {source.path}; choose a new folder"
        )
    _write_record(out, source, [])
    return []


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"source": str(record["source"]), "fingerprint": record["fingerprint"], "skipped": record["skipped"]}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}). Restore it, or import into a new folder.") from error


def _write_record(out: Path, source: EpisodeSource, skipped: Skipped) -> None:
    durable.make_folder((out / RECORD).parent)
    record = {"source": source.path.name, "fingerprint": source.fingerprint(), "skipped": skipped}
    durable.write_json(out / RECORD, record)


def _remove_record(out: Path) -> None:
    """Leave no trace of an import that brought nothing, so that the folder is free for the next try."""
    durable.remove(out / RECORD)
    for folder in ((out / RECORD).parent, out):
        if not any(folder.iterdir()):
            folder.rmdir()


def _copy(
    source: EpisodeSource,
    writer: LeRobotWriter,
    skipped: Skipped,
    count: int,
    image_size: tuple[int, int] | None,
    skip_broken: bool,
) -> None:
    """Write the episodes up to number `count` that are not yet there; those that are broken go to `skipped`."""
    for index in with_progress(source, "importing", writer.num_episodes + len(skipped), count):
        try:
            _copy_one(source, writer, index, image_size)
        except BrokenEpisode as error:
            if not skip_broken:
                raise BrokenEpisode(_stopped(str(error), writer.num_episodes)) from error
            skipped.append((index, str(error)))
            _write_record(writer.path, source, skipped)
        except KeyboardInterrupt:
            done = f"{writer.num_episodes} episodes are in {writer.path}; the same command continues"
            print(f"worldloom: {done}", file=sys.stderr)
            raise


def _copy_one(source: EpisodeSource, writer: LeRobotWriter, index: int, image_size: tuple[int, int] | None) -> None:
    episode = source.read(index, image_size)
    try:
        writer.add(episode)
    except BrokenEpisode as error:
        raise BrokenEpisode(f"{source.path}, episode {index} of the source: {error}") from error


def _stopped(problem: str, written: int) -> str:
    hint = "" if "--skip-broken" in problem else " (--skip-broken leaves it out)"
    return f"{problem}{hint}. {written} episodes before it are imported; with --skip-broken the same command goes on"


def has_terminal_rows(src: Path) -> bool:
    """Every importer's last row is an observation without an action; LeRobot's is one with, unless we recorded it."""
    if not (src / INFO).is_file():
        return True
    return bool(json.loads((src / INFO).read_text(encoding="utf-8")).get("worldloom", {}).get("terminal_rows"))
