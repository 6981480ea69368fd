"""robomimic HDF5 files, and those that follow them (robosuite, MimicGen, LIBERO): a file, or a folder of such files.

Layout: `data/demo_i/{obs/*, next_obs/*, actions, rewards, dones, states}` with n entries each; `data` has the JSON
attribute `env_args`, a demo has `num_samples`. https://robomimic.github.io/docs/datasets/overview.html

Rule: entry t becomes row t, reward t arrives in row t + 1. With `next_obs` the last one becomes a further row (n + 1)
and a true last `dones` marks it as terminated; without it there are n rows, the last action has nothing after it, and
the episode counts as cut. An earlier `dones` only says that the task was solved already: no end. Pictures turn from H,
W, C to channels first. `states` (the simulator's) is left out. The task is the demo's `ep_meta.lang`, else the file's
`problem_info.language_instruction`, else "".
"""

from dataclasses import dataclass
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
from worldloom.data.formats.hdf5 import (
    SUFFIXES,
    array,
    attributes,
    child,
    is_hdf5,
    names,
    open_hdf5,
    optional,
    shape_of,
)
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import UserError


class RobomimicSource(EpisodeSource):
    """A robomimic file, or a folder of them. Raises `UserError` when a file cannot be read or holds no observations."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.files = _files(self.path)
        self.demos: list[tuple[Path, str]] = []
        self.episodes = []
        self.solved = False
        self.facts: dict[str, Any] = {}
        for file in self.files:
            with open_hdf5(file) as opened:
                self._list(file, opened)
        if not self.demos:
            raise UserError(f"{self.path} has no demo_0, demo_1, ... under 'data'")
        first = _first_readable(self.demos)
        self.after = first.after
        env_args = self.facts.get("env_args", {})
        fps = env_args.get("env_kwargs", {}).get("control_freq")
        self.spec = DataSpec(
            {**first.obs, **signal_keys(reward=first.has_reward, terminated=self.after and self.solved)},
            ActionSpec("continuous", first.action_size),
            float(fps or ASSUMED_FPS),
        )
        self.about: dict[str, Any] = {"format": "robomimic HDF5", "environment": env_args.get("env_name", "unknown")}
        self.about |= {"left_out": first.left_out} if first.left_out else {}
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
            group = child(opened, f"data/{demo}", str(file))
            taken = array(group, "actions", where)
            steps = len(taken)
            declared = attributes(group, where).get("num_samples", steps)
            if steps == 0 or steps != declared:
                raise BrokenEpisode(f"{where} has {steps} actions, num_samples is {declared}; {SKIP}")
            rows = steps + int(self.after)
            obs = {key: self._observation(group, key, steps, where) for key in self.spec.obs}
            ended = self.after and _done(group, where)
            reward = _entries(group, "rewards", steps, where) if self.spec.has_reward else np.zeros(steps)
        return Episode(
            obs={key: resize(column, image_size) for key, column in obs.items()},
            action=actions(taken, rows, self.spec.action, f"{where}/actions"),
            reward=rewards(reward, rows, f"{where}/rewards"),
            terminated=at_end(rows, ended),
            truncated=at_end(rows, not ended),
            task=self.episodes[index].task,
        )

    def fingerprint(self) -> str:
        return file_digest(self.files, self.spec.to_json())

    def _list(self, file: Path, opened: Any) -> None:
        data = child(opened, "data", str(file))
        facts = _parsed(attributes(data, f"{file}: data"), f"{file}: data")
        self.facts = self.facts or facts
        for demo in sorted((name for name in names(data, str(file)) if name.startswith("demo")), key=_number):
            self.demos.append((file, demo))
            task = facts.get("problem_info", {}).get("language_instruction", "")
            self.episodes.append(self._inspect(data, demo, task))

    def _inspect(self, data: Any, demo: str, task: str) -> EpisodeInfo:
        """Length and task of a demo; nothing of one that `read` will find broken."""
        try:
            group = child(data, demo, demo)
            length = shape_of(child(group, "actions", demo), demo)[0][0]
            task = _parsed(attributes(group, demo), demo).get("ep_meta", {}).get("lang", task)
            self.solved |= _done(group, demo)
            return EpisodeInfo(length + ("next_obs" in names(group, demo)), task)
        except BrokenEpisode:
            return EpisodeInfo(0)

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
            held = names(opened, str(file))
            return "data" in held and any(n.startswith("demo") for n in names(child(opened, "data", ""), str(file)))
    except UserError as error:
        if isinstance(error, ImportError):
            raise
        return True


@dataclass(frozen=True)
class FirstEpisode:
    """What one demo says about all of them."""

    obs: dict[str, KeySpec]
    left_out: list[str]
    action_size: int
    has_reward: bool
    after: bool


def _first_readable(demos: list[tuple[Path, str]]) -> FirstEpisode:
    problem = None
    for file, demo in demos:
        try:
            with open_hdf5(file) as opened:
                return _inspect_demo(child(opened, f"data/{demo}", str(file)), f"{file}: {demo}")
        except BrokenEpisode as error:
            problem = problem or error
    raise UserError(f"no demo of {demos[0][0]} can be read: {problem}")


def _inspect_demo(group: Any, where: str) -> FirstEpisode:
    held = names(group, where)
    if "obs" not in held:
        raise UserError(f"{where} has no 'obs': extract observations first (robomimic's dataset_states_to_obs.py does)")
    obs = child(group, "obs", where)
    shapes = {key: shape_of(child(obs, key, where), f"{where}/obs/{key}") for key in names(obs, where)}
    found = {key: key_spec(shape[1:], dtype) for key, (shape, dtype) in shapes.items()}
    kept = {key: spec for key, spec in found.items() if spec}
    if not kept:
        raise UserError(f"{where}/obs: none of {sorted(found)} is an image or a vector to learn from")
    size = int(np.prod(shape_of(child(group, "actions", where), where)[0][1:]))
    return FirstEpisode(kept, sorted(set(found) - set(kept)), size, "rewards" in held, "next_obs" in held)


def _entries(group: Any, name: str, steps: int, where: str) -> np.ndarray:
    values = array(group, name, where)
    if len(values) != steps:
        raise BrokenEpisode(f"{where}/{name} has {len(values)} entries for {steps} actions; {SKIP}")
    return values


def _done(group: Any, where: str) -> bool:
    flags = optional(group, "dones", where)
    return flags is not None and bool(flags[-1:].any())


def _parsed(found: dict[str, Any], where: str) -> dict[str, Any]:
    """The attributes that hold a JSON object, parsed."""
    known = [name for name in ("env_args", "problem_info", "ep_meta") if name in found]
    parsed = {name: read_json(str(found[name]), f"{where}, attribute {name}") for name in known}
    return {name: value for name, value in parsed.items() if isinstance(value, dict)}


def _number(demo: str) -> int:
    digits = demo.rsplit("_", 1)[-1]
    return int(digits) if digits.isdigit() else -1
