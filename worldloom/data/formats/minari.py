"""Minari datasets (HDF5): `<id>/data/main_data.hdf5` beside `metadata.json`, which declares the spaces.

Layout, as Minari's storage writes it: `episode_i/{observations, actions, rewards, terminations, truncations, infos}`
with n + 1 observations for n steps, nested spaces as nested groups (`_index_i` for tuples). https://minari.farama.org

Rule: all n + 1 observations become rows, so the terminal observation is there; action t stays in row t, its reward, end
and cut arrive in row t + 1. An episode that was not terminated counts as cut. Nested observations are flattened to one
key per leaf (`robot_arm` for robot -> arm), a discrete one becomes a one-hot vector, a text that stays the same all
episode becomes its task. Files from before Minari 0.5, which keep the metadata in HDF5 attributes, are read too.
"""

from pathlib import Path
from typing import Any

import numpy as np

from worldloom.data.episode import BrokenEpisode, Episode, EpisodeInfo, EpisodeSource
from worldloom.data.formats.columns import (
    ASSUMED_FPS,
    SKIP,
    actions,
    at_end,
    file_digest,
    finite,
    image_shape,
    observation,
    read_json,
    resize,
    rewards,
)
from worldloom.data.formats.hdf5 import array, attributes, child, names, open_hdf5, optional, text
from worldloom.data.formats.spaces import Leaf, Space, action_spec, leaf_spec, leaves, to_action, to_vector
from worldloom.data.spec import DataSpec, signal_keys
from worldloom.errors import UserError

MAIN_FILE = "main_data.hdf5"
KEPT_INFOS = ("success", "cost")


class MinariSource(EpisodeSource):
    """A Minari dataset folder, or its `data` folder. Raises `UserError` when its file or metadata cannot be read."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.file = _main_file(self.path)
        metadata = _metadata(self.file)
        observed, self.acted = (_leaves(metadata, name, self.file) for name in ("observation", "action"))
        self.texts = [leaf for leaf in observed if leaf.space["type"] == "Text"]
        self.kept = [(leaf, spec) for leaf in observed if (spec := leaf_spec(leaf.space))]
        if not self.kept:
            raise UserError(
                f"{self.file}: none of {[leaf.key for leaf in observed]} is an image or a vector to learn from"
            )
        with open_hdf5(self.file) as file:
            found = names(file, str(self.file))
            self.groups = sorted((name for name in found if name.startswith("episode_")), key=_number)
            inspected = [self._inspect(file, name) for name in self.groups]
        self.episodes = [info for info, _ in inspected]
        if not self.groups:
            raise UserError(f"{self.file} holds no episode")
        self.spec = DataSpec(
            {
                **{leaf.key: spec for leaf, spec in self.kept},
                **signal_keys(reward=True, terminated=any(terminates for _, terminates in inspected)),
            },
            action_spec(self.acted, str(self.file)),
            ASSUMED_FPS,
        )
        left_out = [leaf.key for leaf in observed if leaf not in self.texts and not leaf_spec(leaf.space)]
        self.about = _about(metadata, left_out)

    @staticmethod
    def detect(path: Path) -> bool:
        return any(file.is_file() for file in _main_files(path))

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        where = f"{self.file}: {self.groups[index]}"
        with open_hdf5(self.file) as file:
            group = child(file, self.groups[index], str(self.file))
            reward = array(group, "rewards", where)
            rows = len(reward) + 1
            if rows == 1:
                raise BrokenEpisode(f"{where} holds no step; {SKIP}")
            terminated, _ = (_ended(group, name, rows, where) for name in ("terminations", "truncations"))
            return Episode(
                obs=self._observations(group, rows, where, image_size),
                action=self._actions(group, rows, where),
                reward=rewards(reward, rows, f"{where}/rewards"),
                terminated=at_end(rows, terminated),
                truncated=at_end(rows, not terminated),
                task=_task(group, self.texts, where),
                extra=_extra(group, rows, where),
            )

    def fingerprint(self) -> str:
        return file_digest(self.file.parent.glob("*"), self.spec.to_json())

    def _inspect(self, file: Any, name: str) -> tuple[EpisodeInfo, bool]:
        """Length, task, and whether it ends in a terminal row; nothing of an episode that `read` will find broken."""
        try:
            group = child(file, name, str(self.file))
            flags = array(group, "terminations", name)
            info = EpisodeInfo(len(flags) + 1, _task(group, self.texts, name))
        except BrokenEpisode:
            return EpisodeInfo(0), False
        return info, bool(flags[-1:].any())

    def _observations(
        self, group: Any, rows: int, where: str, image_size: tuple[int, int] | None
    ) -> dict[str, np.ndarray]:
        obs = {}
        for leaf, spec in self.kept:
            values, here = _rows(group, leaf, rows, where), f"{where}/{leaf.path}"
            if leaf.space["type"] != "Box":
                values = to_vector(values, leaf.space, here)
            if spec.kind == "image" and image_shape(values.shape[1:]) == (1, *spec.shape[1:]):
                values = np.repeat(values.reshape(rows, *spec.shape[1:], 1), 3, -1)
            obs[leaf.key] = resize(observation(values, spec, here), image_size)
        return obs

    def _actions(self, group: Any, rows: int, where: str) -> np.ndarray:
        spec = self.spec.action
        parts = [_rows(group, leaf, rows - 1, where) for leaf in self.acted]
        if spec.kind == "discrete":
            return actions(parts[0] - self.acted[0].space.get("start", 0), rows, spec, f"{where}/actions")
        vectors = [to_action(p, leaf.space, f"{where}/{leaf.path}") for p, leaf in zip(parts, self.acted, strict=True)]
        return actions(np.concatenate(vectors, 1), rows, spec, f"{where}/actions")


def _main_files(path: Path) -> list[Path]:
    return [path / "data" / MAIN_FILE, path / MAIN_FILE]


def _main_file(path: Path) -> Path:
    for file in _main_files(path):
        if file.is_file():
            return file
    raise UserError(f"{path} is no Minari dataset: it has no data/{MAIN_FILE}")


def _number(name: str) -> int:
    digits = name.rsplit("_", 1)[-1]
    return int(digits) if digits.isdigit() else -1


def _metadata(file: Path) -> dict[str, Any]:
    """`metadata.json` beside the data, or the attributes of files older than that."""
    beside = file.parent / "metadata.json"
    if beside.is_file():
        metadata = read_json(beside.read_bytes(), str(beside))
        if metadata.get("data_format", "hdf5") != "hdf5":
            raise UserError(f"{beside}: data_format is {metadata['data_format']!r}; only 'hdf5' can be imported")
        return metadata
    with open_hdf5(file) as opened:
        return attributes(opened, str(file))


def _leaves(metadata: dict[str, Any], name: str, file: Path) -> list[Leaf]:
    """The parts of the "observation" or "action" space."""
    space = _space(metadata, f"{name}_space", file)
    try:
        return leaves(space, f"{name}s")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{file}: its {name}_space is not one that Minari writes ({error!r}); fetch it again"
        ) from error


def _space(metadata: dict[str, Any], name: str, file: Path) -> Space:
    if name not in metadata:
        raise UserError(
            f"{file.parent / 'metadata.json'} declares no {name!r}, so its arrays cannot be understood; "
            "save the dataset again with a Minari version that stores the spaces (0.4.3 or newer)"
        )
    space = metadata[name]
    return read_json(space, f"{file}: {name}") if isinstance(space, str) else space


def _about(metadata: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    author = metadata.get("author")
    facts = {
        "format": "Minari HDF5",
        "dataset": metadata.get("dataset_id"),
        "origin": metadata.get("code_permalink"),
        "author": ", ".join(author) if isinstance(author, list) else author,
        "left_out": left_out,
        "fps_assumed": True,
    }
    return {name: fact for name, fact in facts.items() if fact}


def _rows(group: Any, leaf: Leaf, rows: int, where: str) -> np.ndarray:
    values = array(group, leaf.path, where)
    if len(values) != rows:
        raise BrokenEpisode(f"{where}/{leaf.path} has {len(values)} rows where the rewards call for {rows}; {SKIP}")
    return values


def _ended(group: Any, name: str, rows: int, where: str) -> bool:
    """Whether the last step raised the flag `name`; an earlier one means that two episodes were stored as one."""
    flags = array(group, name, where).astype(bool).ravel()
    if len(flags) != rows - 1:
        raise BrokenEpisode(f"{where}/{name} has {len(flags)} rows where the rewards call for {rows - 1}; {SKIP}")
    early = np.flatnonzero(flags[:-1])
    if len(early):
        raise BrokenEpisode(f"{where}/{name}, row {early[0]}, is true before the last row; {SKIP}")
    return bool(flags.any())


def _task(group: Any, texts: list[Leaf], where: str) -> str:
    lines = []
    for leaf in texts:
        values = array(group, leaf.path, where)
        changed = np.flatnonzero(values != values[:1])
        if len(changed):
            raise BrokenEpisode(f"{where}/{leaf.path}, row {changed[0]}: the text changes, so it is not a task; {SKIP}")
        lines += [text(line) for line in values[:1]]
    return "; ".join(lines)


def _extra(group: Any, rows: int, where: str) -> dict[str, np.ndarray]:
    """Success and cost from `infos`: n + 1 values are one per row already, n values arrived after each action."""
    extra = {}
    for name in KEPT_INFOS:
        values = optional(group, f"infos/{name}", where)
        if values is not None and values.ndim == 1 and len(values) in (rows - 1, rows):
            values = finite(values, f"{where}/infos/{name}")
            extra[name] = np.concatenate([np.zeros(rows - len(values), np.float32), values])
    return extra
