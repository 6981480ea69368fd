"""Reading meta/info.json and its neighbours, with errors that say what to fix. Shared by v3.0 and v2.1."""

import hashlib
import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from worldloom.data.files import files_below
from worldloom.data.lerobot.features import Layout
from worldloom.data.lerobot.tasks import not_represented
from worldloom.errors import UserError

LAST_REWARD = "the reward of the last action of each episode"  # it belongs to an observation that was not stored
REQUIRED: dict[str, Any] = {
    "codebase_version": str,
    "fps": (int, float),
    "features": dict,
    "total_episodes": int,
    "chunks_size": int,
    "data_path": str,
}


def version_of(path: Path) -> str | None:
    """The codebase version of the dataset in a folder; "" if its info.json cannot be read, None if there is none."""
    info = path / "meta/info.json"
    if not info.is_file():
        return None
    try:
        found = json.loads(info.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return ""
    return str(found.get("codebase_version", "")) if isinstance(found, dict) else ""


def read_info(path: Path) -> dict[str, Any]:
    """meta/info.json with every field that is relied on checked. Raises `UserError` naming the field and its value."""
    where = path / "meta/info.json"
    info = read_json(where)
    if not isinstance(info, dict):
        raise UserError(f"{where}: holds a {type(info).__name__}, not an object. Restore the file.")
    info.setdefault("chunks_size", 1000)
    for name, kind in REQUIRED.items():
        if not isinstance(info.get(name), kind) or isinstance(info.get(name), bool):
            raise UserError(f"{where}: {name!r} is {info.get(name, 'missing')!r}. Restore the field.")
    if info["fps"] <= 0 or info["chunks_size"] <= 0 or info["total_episodes"] < 0:
        raise UserError(
            f"{where}: fps, chunks_size and total_episodes must be positive, fps is {info['fps']}. Fix them."
        )
    for name, feature in info["features"].items():
        _check_feature(feature, f"{where}, feature {name!r}")
    if "worldloom" in info:
        _check_own(info["worldloom"], info["features"], where)
    return info


def _check_own(ours: Any, features: dict[str, Any], where: Path) -> None:
    """What a writer of ours declared (see `own_facts`), as far as it is there."""
    kinds: dict[str, Any] = {
        "about": dict,
        "action": dict,
        "fps": (int, float),
        "folded": int,
        "terminal_rows": bool,
        "has_end": bool,
        "keys": dict,
    }
    if not isinstance(ours, dict):
        raise UserError(f"{where}: 'worldloom' is {ours!r}, not an object. Restore the field.")
    for name, kind in kinds.items():
        if name in ours and not isinstance(ours[name], kind):
            raise UserError(f"{where}: worldloom.{name} is {ours[name]!r}. Restore the field.")
    if "fps" in ours and not 0 < ours["fps"] < float("inf"):
        raise UserError(f"{where}: worldloom.fps is {ours['fps']!r}, not a positive number. Restore the field.")
    action = ours.get("action")
    if not action or "action" not in features:
        return
    if action.get("kind") not in ("discrete", "continuous", "mixed"):
        raise UserError(f"{where}: worldloom.action.kind is {action.get('kind')!r}, not discrete, continuous or mixed.")
    size = prod(features["action"]["shape"])
    for name, kind in (("names", str), ("low", (int, float)), ("high", (int, float))):
        values = action.get(name)
        if values and not (
            isinstance(values, list) and len(values) == size and all(isinstance(value, kind) for value in values)
        ):
            raise UserError(
                f"{where}: worldloom.action.{name} is {values!r}, want a list of {size}. Restore the field."
            )


def _check_feature(feature: Any, where: str) -> None:
    if not isinstance(feature, dict) or not isinstance(feature.get("dtype"), str):
        raise UserError(f"{where}: has no dtype. Restore it, for example {{'dtype': 'float32', 'shape': [7]}}.")
    shape = feature.get("shape")
    if not isinstance(shape, list) or not shape or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise UserError(f"{where}: its shape is {shape!r}, not a list of whole numbers. Restore it.")
    for name in ("info", "video_info"):
        if feature.get(name) and not isinstance(feature[name], dict):
            raise UserError(f"{where}: its {name} is {feature[name]!r}, not an object. Restore it.")


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises `UserError` naming the place where it stops being JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: the file is missing. Restore it.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not JSON ({error}). Restore the file.") from error


def fill(path: Path, info: dict[str, Any], template: str, place: dict[str, Any]) -> str:
    """info.json's "data_path" or "video_path" for one episode, relative to the dataset.

    Raises `UserError` for a placeholder nobody fills and for a path out of the dataset: a foreign info.json must not
    decide which other files are read, or overwritten.
    """
    where = f"{path / 'meta/info.json'}: {template} is {info[template]!r}"
    try:
        filled = info[template].format(**place)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        known = ", ".join(f"{{{name}}}" for name in place)
        raise UserError(f"{where}. It may use {known}.") from error
    if Path(filled).is_absolute() or ".." in Path(filled).parts:
        raise UserError(f"{where}, which leads out of the dataset to {filled!r}. Name a path inside it.")
    return filled


def facts_about(
    path: Path, info: dict[str, Any], format: str, layout: Layout, tasks: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """What the data card prints: what the writer declared, the licence in README.md's header, info.json's own facts."""
    readme = path / "README.md"
    header = readme.read_text(encoding="utf-8", errors="replace").split("---")[1:2] if readme.is_file() else []
    fields = dict(line.split(":", 1) for line in (header[0].splitlines() if header else []) if ":" in line)
    declared = info.get("worldloom", {}).get("about", {})
    return {
        "format": format,
        "codebase_version": info["codebase_version"],
        "robot": info.get("robot_type") or "unknown",
        "robot_type": info.get("robot_type") or "unknown",
        "fps": info["fps"],
        "splits": info.get("splits", {}),
        "license": fields.get("license", "").strip() or None,
        "origin": None,
        "ignored_features": sorted(layout.ignored),
        "beyond_float32": layout.beyond_float32,
        "not_represented": [
            *([LAST_REWARD] if layout.reward and not layout.terminal_rows else []),
            *not_represented(tasks),
        ],
        **declared,
    }


def fingerprint(path: Path) -> str:
    """A digest of the names, sizes and times of all files of the dataset and of the content of info.json.

    Links are followed: the same link to other data is another dataset.
    """
    digest = hashlib.sha256((path / "meta/info.json").read_bytes())
    for folder in ("meta", "data", "videos"):
        for file in files_below(path / folder):
            state = file.stat()
            digest.update(f"{file.relative_to(path)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
