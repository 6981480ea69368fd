"""Imagined episodes from branches: decoded, cut where they terminate or are too uncertain, and counted.

B branches, H horizon, T rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from worldloom.augment.branches import Branches, BranchPolicy
from worldloom.augment.start_states import BranchWindow, StartStates
from worldloom.augment.uncertainty_filter import UncertaintyFilter
from worldloom.data.cache import CachedDataset
from worldloom.data.episode import Episode
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.render.filmstrip import as_frames

BATCH = 32
PATIENCE = 30  # batches in a row of which nothing was kept
SHORTEST = 2  # rows: a step has a row before and a row after it
SYNTHETIC, SOURCE_EPISODE = "synthetic", "source_episode"


@dataclass
class BranchCounts:
    """Numbers of branches: `cut` ones were kept up to where they became too uncertain, `dropped` ones not at all, and
    `terminated` ones reached a predicted termination."""

    started: int = 0
    cut: int = 0
    dropped: int = 0
    terminated: int = 0
    kept: int = 0
    rows: int = 0

    def add(self, episode: Episode, cut: bool) -> None:
        self.kept += 1
        self.rows += len(episode)
        self.cut += cut
        self.terminated += bool(episode.terminated[-1])


@dataclass
class EpisodeGenerator:
    """Imagined episodes of one model and policy, beside the real ones of `dataset`.

    An episode is one branch: its first row is the real start row with the new action, and every later row is imagined.
    So no step (this row, this action, the next row) of an imagined episode is a recorded one. Termination is sampled
    from its decoded probability, so that episodes terminate as often as the model predicts and not only where that is
    likelier than not.
    """

    model: WorldModel
    dataset: CachedDataset
    spec: DataSpec
    policy: BranchPolicy
    window: BranchWindow
    uncertainty_filter: UncertaintyFilter | None
    terminal_rows: bool = True
    count: BranchCounts = field(default_factory=BranchCounts)

    def episodes(self, rows: int, rng: np.random.Generator) -> Iterator[Episode]:
        """Episodes of `rows` rows together, or one less where a single row would be left.

        Raises `UserError` when nearly every branch is dropped.
        """
        everywhere, idle = range(len(self.dataset)), 0
        while rows - self.count.rows >= SHORTEST:
            starts = StartStates.draw(self.model, self.dataset, everywhere, self.window, BATCH, rng)
            branches = self.policy(self.model, starts, self.window.horizon, rng)
            kept = self.count.kept
            yield from self._read(starts, branches, rows, rng)
            idle = idle + 1 if self.count.kept == kept else 0
            if idle == PATIENCE:
                raise UserError(self._nothing_kept())

    def _read(self, starts: StartStates, branches: Branches, rows: int, rng: np.random.Generator) -> Iterator[Episode]:
        decoded = {key: self._decode(branches, key) for key in self._keys}
        steps, terminated, rejected = self._lengths(branches, decoded, rng)
        for row in range(len(starts)):
            if rows - self.count.rows < SHORTEST:
                return
            self.count.started += 1
            cut, least = bool(rejected[row]), SHORTEST - self.terminal_rows
            if steps[row] < least:
                self.count.dropped += 1
                continue
            most = rows - self.count.rows - self.terminal_rows  # as many steps as there is room for
            taken = min(int(steps[row]), most)
            ends = bool(terminated[row]) and taken == steps[row]
            episode = self._episode(starts, branches, decoded, row, taken, ends)
            self.count.add(episode, cut)
            yield episode

    @property
    def _keys(self) -> Sequence[str]:
        signals = ("reward",) * self.spec.has_reward + ("terminated",) * self._terminates
        return (*self.spec.obs, *signals)

    @property
    def _terminates(self) -> bool:
        """Whether the model predicts termination: not where no recorded episode terminated."""
        return self.spec.has_end and "terminated" in self.model.decodes

    def _decode(self, branches: Branches, key: str) -> np.ndarray:
        return self.model.decode(branches.states, key).float().cpu().numpy()

    def _lengths(
        self, branches: Branches, decoded: dict[str, np.ndarray], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each branch `[B]` how many steps are kept, whether it terminates there, and whether the filter cut it."""
        rejects = ~np.all([np.isfinite(x).reshape(*x.shape[:2], -1).all(-1) for x in decoded.values()], 0)
        if self.uncertainty_filter is not None:
            rejects |= self.uncertainty_filter.rejects(self.model, branches)
        uniform = rng.random(rejects.shape)
        terminated = uniform < decoded["terminated"] if self._terminates else np.zeros_like(rejects)
        end, rejected = first(terminated) + 1, first(rejects)
        steps = np.minimum(np.minimum(branches.steps, end), rejected)
        return steps, steps == end, (rejected == steps) & (rejected < branches.steps) & (rejected < end)

    def _episode(
        self, starts: StartStates, branches: Branches, decoded: dict[str, np.ndarray], row: int, steps: int, ends: bool
    ) -> Episode:
        rows = steps + self.terminal_rows
        own = in_own_units(branches.actions[row, :steps], self.model.spec)
        if self.terminal_rows:
            own = np.concatenate([own, np.zeros_like(own[:1])])
        obs = {}
        for key, spec in self.spec.obs.items():
            real = starts.obs[key][row : row + 1].cpu().numpy()
            ahead = decoded[key][row, : rows - 1]
            obs[key] = np.concatenate([real, as_frames(ahead) if spec.kind == "image" else ahead])
        reward = np.zeros(rows, np.float32)
        if self.spec.has_reward:
            reward[1:] = decoded["reward"][row, : rows - 1]
        last = np.arange(rows) == rows - 1
        terminated = ends and self.terminal_rows
        index = int(starts.episode[row])
        task = self.dataset.task(index) if self.dataset.tasks else ""
        episode = Episode(obs, own, reward, last & terminated, last & (not terminated), task)
        return marked(episode, True, int(self.dataset.source_index[index]))

    def _nothing_kept(self) -> str:
        return (
            f"of {self.count.started:,} branches {self.count.dropped:,} were dropped at once, as the members disagree "
            "too much: raise --keep, choose a --policy closer to the data, or train the model for longer."
        )


def marked(episode: Episode, synthetic: bool, source_episode: int) -> Episode:
    """The episode with the columns `SYNTHETIC` and `SOURCE_EPISODE`; other signals, which no model decodes, are left
    out."""
    rows = len(episode)
    return replace(
        episode,
        extra={SYNTHETIC: np.full(rows, synthetic), SOURCE_EPISODE: np.full(rows, source_episode, np.int64)},
    )


def in_own_units(actions: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Actions `[T, A]` in model units as in the data's own units, within the declared range."""
    own = spec.action.unscale(actions)
    if spec.action.kind == "continuous" and spec.action.low is not None and spec.action.high is not None:
        own = np.clip(own, np.asarray(spec.action.low, np.float32), np.asarray(spec.action.high, np.float32))
    return own


def first(flags: np.ndarray) -> np.ndarray:
    """The first column in which each row of bool `[B, H]` is true, H where none is."""
    return np.where(flags.any(1), flags.argmax(1), flags.shape[1])
