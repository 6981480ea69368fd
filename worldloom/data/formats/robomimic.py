"""robomimic HDF5 files, and those that follow them (robosuite, MimicGen, LIBERO): a file, or a folder of such files.

Layout: `data/demo_i/{obs/*, next_obs/*, actions, rewards, dones, states}` with n entries each; `data` has the JSON
attribute `env_args`, a demo has `num_samples`. https://robomimic.github.io/docs/datasets/overview.html

Rule: entry t becomes row t, reward t arrives in row t + 1. With `next_obs` the last one becomes a further row (n + 1)
and a true last `dones` marks it as terminated; without it there are n rows, the last action has nothing after it, and
the episode counts as cut. An earlier `dones` only says that the task was solved already: no end. Pictures turn from H,
W, C to channels first. `states` (the simulator's) is left out. The task is the demo's `ep_meta.lang`, else the file's
`problem_info.language_instruction`, else "".
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
    key_spec,
    observation,
    read_json,
    resize,
    rewards,
)
from worldloom.data.formats.hdf5 import SUFFIXES, array, is_hdf5, open_hdf5, text
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import UserError


class RobomimicSource(EpisodeSource):
    """A robomimic file, or a folder of them. Raises `UserError` when a file cannot be read or holds no observations."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.files = _files(self.path)
        self.demos: list[tuple[Path, str]] = []
        self.episodes = []
        self.solved = False
        for file in self.files:
            with open_hdf5(file) as opened:
                self._list(file, opened)
        if not self.demos:
            raise UserError(f"{self.path} has no demo_0, demo_1, ... under 'data'")
        file, demo = self.demos[0]
        with open_hdf5(file) as opened:
            group = opened["data"][demo]
            obs, left_out = _key_specs(group, f"{file}: {demo}")
            env_args = _attribute(opened["data"], "env_args", file)
            size = int(np.prod(array(group, "actions", f"{file}: {demo}").shape[1:]))
            has_reward, self.after = "rewards" in group, "next_obs" in group
        fps = env_args.get("env_kwargs", {}).get("control_freq")
        self.spec = DataSpec(
            obs,
            ActionSpec("continuous", size),
            fps=float(fps or ASSUMED_FPS),
            has_reward=has_reward,
            has_end=self.after and self.solved,
        )
        self.about: dict[str, Any] = {"format": "robomimic HDF5", "environment": env_args.get("env_name", "unknown")}
        self.about |= {"left_out": left_out} if left_out else {}
        self.about |= {} if fps else {"fps_assumed": True}

    @staticmethod
    def detect(path: Path) -> bool:
        """True too for an HDF5 file that cannot be opened, so that opening it can say why."""
        files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
        return any(is_hdf5(file) and _is_robomimic(file) for file in files)

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        file, demo = self.demos[index]
        where = f"{file}: {demo}"
        with open_hdf5(file) as opened:
            group = opened["data"][demo]
            taken = array(group, "actions", where)
            steps = len(taken)
            if steps == 0 or steps != group.attrs.get("num_samples", steps):
                raise BrokenEpisode(f"{where} has {steps} actions, num_samples is {group.attrs['num_samples']}; {SKIP}")
            rows = steps + int(self.after)
            obs = {key: self._observation(group, key, steps, where) for key in self.spec.obs}
            ended = self.after and _done(group)
            paid = _entries(group, "rewards", steps, where) if self.spec.has_reward else np.zeros(steps)
        return Episode(
            obs={key: resize(column, image_size) for key, column in obs.items()},
            action=actions(taken, rows, self.spec.action, f"{where}/actions"),
            reward=rewards(paid, rows, f"{where}/rewards"),
            terminated=at_end(rows, ended),
            truncated=at_end(rows, not ended),
            task=self.episodes[index].task,
        )

    def fingerprint(self) -> str:
        return file_digest(self.files, self.spec.to_json())

    def _list(self, file: Path, opened: Any) -> None:
        if "data" not in opened:
            raise UserError(f"{file} has no group 'data', so it is no robomimic file (it has {', '.join(opened)})")
        data = opened["data"]
        task = _attribute(data, "problem_info", file).get("language_instruction", "")
        for demo in sorted((name for name in data if name.startswith("demo")), key=_number):
            group = data[demo]
            length = int(group.attrs.get("num_samples", len(group["actions"]) if "actions" in group else 0))
            lang = _attribute(group, "ep_meta", file).get("lang", task)
            self.demos.append((file, demo))
            self.solved |= _done(group)
            self.episodes.append(EpisodeInfo(length + ("next_obs" in group), lang))

    def _observation(self, group: Any, key: str, steps: int, where: str) -> np.ndarray:
        parts = [(f"obs/{key}", slice(None)), (f"next_obs/{key}", slice(-1, None))][: 1 + self.after]
        columns = [
            observation(_entries(group, name, steps, where)[kept], self.spec.obs[key], f"{where}/{name}")
            for name, kept in parts
        ]
        return np.concatenate(columns)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]


def _is_robomimic(file: Path) -> bool:
    try:
        with open_hdf5(file) as opened:
            return "data" in opened and any(name.startswith("demo") for name in opened["data"])
    except UserError as error:
        if isinstance(error, ImportError):
            raise
        return True


def _key_specs(group: Any, where: str) -> tuple[dict[str, KeySpec], list[str]]:
    if "obs" not in group:
        raise UserError(f"{where} has no 'obs': extract observations first (robomimic's dataset_states_to_obs.py does)")
    found = {key: key_spec(values.shape[1:], values.dtype) for key, values in group["obs"].items()}
    kept = {key: spec for key, spec in found.items() if spec}
    if not kept:
        raise UserError(f"{where}/obs: none of {sorted(found)} is an image or a vector to learn from")
    return kept, sorted(set(found) - set(kept))


def _entries(group: Any, name: str, steps: int, where: str) -> np.ndarray:
    values = array(group, name, where)
    if len(values) != steps:
        raise BrokenEpisode(f"{where}/{name} has {len(values)} entries for {steps} actions; {SKIP}")
    return values


def _done(group: Any) -> bool:
    return "dones" in group and len(group["dones"]) > 0 and bool(group["dones"][-1])


def _attribute(group: Any, name: str, file: Path) -> dict[str, Any]:
    """A JSON attribute as a dict, empty when it is absent."""
    return read_json(text(group.attrs[name]), f"{file}: {group.name}, attribute {name}") if name in group.attrs else {}


def _number(demo: str) -> int:
    digits = demo.rsplit("_", 1)[-1]
    return int(digits) if digits.isdigit() else -1
