"""D4RL and OGBench files: long arrays in which trajectories follow one another; a file, or a folder of `.npz` files.

N entries of the file, n entries of one trajectory.

Layout: `observations` `[N, ...]`, `actions` `[N, ...]`, `terminals` and maybe `timeouts`, `rewards`,
`next_observations`, `qpos`, `qvel` (D4RL: `infos/qpos`, `infos/qvel`). D4RL itself ships the same arrays as HDF5, which
is read too. https://github.com/Farama-Foundation/D4RL, https://github.com/seohongpark/ogbench

The rule depends on what the file holds:

* `OGBENCH` (no `rewards`, no `timeouts`): `terminals` marks the last *state* of a trajectory, where the recording
  stopped. All n entries are rows, the last action is invalid and becomes padding, the last row is truncated, never
  terminated.
* `D4RL` (`rewards` or `timeouts`): `terminals` marks a *transition* into a terminal state that is not stored. The n
  entries are n rows; the last action and reward have no row to show their effect in and are left out; the last row is
  truncated, and no end can be learned.
* `TRANSITIONS` (`next_observations`): the last one of a trajectory becomes a further row, n + 1 in all. It is
  terminated where `terminals` says so, else truncated; nothing is left out. `qpos` and `qvel`, which lack that entry,
  are.

A trajectory also ends with its file and, with `next_observations`, wherever the next observation is not the one that
follows: D4RL files without `timeouts` show the ends of cut trajectories in no other way. Integers in `actions` are
discrete choices.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from worldloom.data.episode import BrokenEpisode, Episode, EpisodeInfo, EpisodeSource
from worldloom.data.formats.arrays import Arrays, open_arrays
from worldloom.data.formats.columns import (
    ASSUMED_FPS,
    SKIP,
    actions,
    at_end,
    file_digest,
    key_spec,
    observation,
    resize,
    rewards,
)
from worldloom.data.formats.hdf5 import is_hdf5
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import UserError

SIMULATOR = ("qpos", "qvel")
COMPARED = 65536  # entries of observations and next_observations held in memory at a time

Rule = Literal["OGBENCH", "D4RL", "TRANSITIONS"]


@dataclass(frozen=True)
class Trajectory:
    """Entries `start` to `stop` of one file; `terminated` says that the last of them led to a terminal state."""

    arrays: Arrays
    start: int
    stop: int
    terminated: bool


class NpzSource(EpisodeSource):
    """A D4RL or OGBench file, or a folder of `.npz` files. Raises `UserError` when one is damaged or lacks an array."""

    first_choice = 0

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.files = [open_arrays(file) for file in _files(self.path)]
        for arrays in self.files:
            _check_lengths(arrays)
        first = self.files[0]
        self.rule = rule_of(first)
        for arrays in self.files:
            if rule_of(arrays) != self.rule:
                raise UserError(f"{arrays.path} is read as {rule_of(arrays)}, {first.path} as {self.rule}: part them")
        self.trajectories = [t for arrays in self.files for t in _trajectories(arrays, self.rule)]
        self.names = {"state": "observations"} | _simulator_names(first, self.rule)
        obs = {key: _key_spec(first, name) for key, name in self.names.items()}
        if obs["state"].kind == "image":
            self.names["image"], obs["image"] = self.names.pop("state"), obs.pop("state")
        more = int(self.rule == "TRANSITIONS")
        self.episodes = [EpisodeInfo(t.stop - t.start + more) for t in self.trajectories]
        has_end = any(t.terminated for t in self.trajectories)
        self.spec = DataSpec(
            {**obs, **signal_keys(reward="rewards" in first.shapes, terminated=has_end)},
            self._action_spec(),
            ASSUMED_FPS,
        )
        self.about = {"format": f"D4RL / OGBench arrays, read as {self.rule}", "fps_assumed": True}

    @staticmethod
    def detect(path: Path) -> bool:
        if is_hdf5(path):
            try:
                return {"observations", "actions"} <= set(open_arrays(path).shapes)
            except UserError as error:
                if isinstance(error, ImportError):
                    raise
                return False
        return path.suffix == ".npz" or (path.is_dir() and any(path.glob("*.npz")))

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        one = self.trajectories[index]
        where = f"{one.arrays.path}: entries {one.start} to {one.stop - 1}"
        obs = {key: self._observation(one, key, where) for key in self.spec.obs}
        rows = len(next(iter(obs.values())))
        taken = _slice(one, "actions", where)
        if self.spec.action.kind == "discrete":
            taken = taken.reshape(len(taken), -1).astype(np.int64) - self.first_choice
        reward = _slice(one, "rewards", where) if self.spec.has_reward else np.zeros(one.stop - one.start)
        return Episode(
            obs={key: resize(column, image_size) for key, column in obs.items()},
            action=actions(taken, rows, self.spec.action, f"{where}: actions"),
            reward=rewards(reward, rows, f"{where}: rewards"),
            terminated=at_end(rows, one.terminated),
            truncated=at_end(rows, not one.terminated),
        )

    def fingerprint(self) -> str:
        return file_digest([arrays.path for arrays in self.files], self.spec.to_json())

    def _observation(self, one: Trajectory, key: str, where: str) -> np.ndarray:
        values, spec = _slice(one, self.names[key], where), self.spec.obs[key]
        column = observation(values, spec, f"{where}: {self.names[key]}")
        if self.rule != "TRANSITIONS":
            return column
        last = _slice(replace(one, start=one.stop - 1), "next_observations", where)
        return np.concatenate([column, observation(last, spec, f"{where}: last of next_observations")])

    def _action_spec(self) -> ActionSpec:
        """Whole numbers are choices; the first one is 0, or the least where that is below."""
        first = self.files[0]
        if first.types["actions"].kind not in "iu":
            return ActionSpec("continuous", int(np.prod(first.shapes["actions"][1:])))
        if int(np.prod(first.shapes["actions"][1:])) != 1:
            raise UserError(
                f"{first.path}: actions are several integers per row; save them as one integer or as floats"
            )
        found = [_needed(arrays, "actions") for arrays in self.files]
        self.first_choice = min(0, *(int(values.min()) for values in found))
        choices = range(self.first_choice, 1 + max(int(values.max()) for values in found))
        return ActionSpec("discrete", len(choices), tuple(map(str, choices)))


def rule_of(arrays: Arrays) -> Rule:
    """Which of the module's three rules the file calls for."""
    if "next_observations" in arrays.shapes:
        return "TRANSITIONS"
    return "D4RL" if {"rewards", "timeouts"} & set(arrays.shapes) else "OGBENCH"


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.glob("*.npz"))
    if not files:
        raise UserError(f"{path} holds no .npz file")
    return files


def _check_lengths(arrays: Arrays) -> None:
    names = set(arrays.shapes)
    missing = {"observations", "actions"} - names
    if not {"terminals", "timeouts"} & names:
        missing.add("terminals")
    if missing:
        raise UserError(
            f"{arrays.path} has no {sorted(missing)[0]!r} (it has {', '.join(sorted(names)) or 'nothing'}); "
            "D4RL and OGBench files hold observations, actions and terminals or timeouts"
        )
    known = ["observations", "actions", "terminals", "timeouts", "rewards", "next_observations"]
    lengths = {name: (arrays.shapes[name] or (0,))[0] for name in known if name in names}
    for name, length in lengths.items():
        if length != lengths["observations"] or not length:
            raise UserError(
                f"{arrays.path}: {name!r} has {length} entries, 'observations' {lengths['observations']}; "
                "they must be equally long and not empty: save the file again"
            )


def _trajectories(arrays: Arrays, rule: Rule) -> list[Trajectory]:
    count = arrays.shapes["observations"][0]
    terminals, timeouts = (_flags(arrays, name, count) for name in ("terminals", "timeouts"))
    ends = terminals | timeouts
    if rule == "TRANSITIONS":
        ends |= _breaks(arrays, count)
    ends[-1] = True
    stops = np.flatnonzero(ends) + 1
    starts = np.concatenate([[0], stops[:-1]])
    if rule == "TRANSITIONS" and len(stops) > count / 2:
        raise UserError(
            f"{arrays.path}: {len(stops)} of {count} next_observations do not come next: the transitions are shuffled, "
            "and a world model needs them in the order they happened"
        )
    terminated = terminals[stops - 1] & (rule == "TRANSITIONS")
    return [Trajectory(arrays, int(a), int(b), bool(e)) for a, b, e in zip(starts, stops, terminated, strict=True)]


def _flags(arrays: Arrays, name: str, count: int) -> np.ndarray:
    if name not in arrays.shapes:
        return np.zeros(count, bool)
    return _needed(arrays, name).astype(bool).reshape(count, -1)[:, 0]


def _breaks(arrays: Arrays, count: int) -> np.ndarray:
    """Entries `[N]` whose next observation is not the observation that follows."""
    breaks = np.zeros(count, bool)
    for start in range(0, count - 1, COMPARED):
        stop = min(start + COMPARED, count - 1)
        after = _needed(arrays, "next_observations", start, stop).reshape(stop - start, -1)
        following = _needed(arrays, "observations", start + 1, stop + 1).reshape(stop - start, -1)
        breaks[start:stop] = ~np.isclose(after, following, rtol=1e-4, atol=1e-5, equal_nan=True).all(1)
    return breaks


def _needed(arrays: Arrays, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Entries without which the episodes cannot even be told apart: damage here stops the dataset."""
    try:
        return arrays.rows(name, start, stop)
    except OSError as error:
        raise UserError(
            f"{arrays.path}: {name} cannot be read ({error}); the file is damaged: fetch it again"
        ) from error


def _simulator_names(arrays: Arrays, rule: Rule) -> dict[str, str]:
    names = {key: name for key in SIMULATOR for name in (key, f"infos/{key}") if name in arrays.shapes}
    return {} if rule == "TRANSITIONS" else names


def _key_spec(arrays: Arrays, name: str) -> KeySpec:
    shape, dtype = arrays.shapes[name][1:], arrays.types[name]
    spec = key_spec(shape, dtype)
    if spec is None:
        raise UserError(
            f"{arrays.path}: {name!r} holds {dtype} {shape} per entry, neither a grey or RGB uint8 picture nor a vector"
        )
    return spec


def _slice(one: Trajectory, name: str, where: str) -> np.ndarray:
    if name not in one.arrays.shapes:
        raise BrokenEpisode(f"{one.arrays.path} has no {name!r}, which the other files have; {SKIP}")
    try:
        return one.arrays.rows(name, one.start, one.stop)
    except OSError as error:
        raise BrokenEpisode(f"{where}: {name} cannot be read ({error}); {SKIP}") from error
