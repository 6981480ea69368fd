"""Imagined branches: from a real moment on, actions that were not taken there, until the model is no longer sure.

B branches, C context rows, H steps, A action size.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from worldloom.data.episode import Episode
from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.envs.dream import seeded
from worldloom.errors import UserError
from worldloom.evaluation.filmstrip import as_frames
from worldloom.evaluation.windows import Source
from worldloom.model import State, WorldModel

END = 0.5  # a branch ends where the model finds an end likelier than not
SYNTHETIC = "synthetic"
Act = Callable[[State, int], Tensor]
"""Beliefs `[B]` and the number of the step to actions `[B, A]` in model units."""


@dataclass(frozen=True)
class Moments:
    """Real rows `[B, C]` and the beliefs `[B]` at their last ones.

    `followed` `[B, H, A]` is what was done from there, where it was: `real` `[B, H]` says how far an episode went.
    """

    rows: Segment
    belief: State
    followed: Tensor
    real: Tensor

    def last_rows(self) -> dict[str, np.ndarray]:
        """What was really seen where each branch begins."""
        return {key: values[:, -1].cpu().numpy() for key, values in self.rows.obs.items()}


@dataclass(frozen=True)
class Branches:
    """Beliefs `[B, H]`, the actions `[B, H, A]` that led to them, and how far members of an ensemble disagree there."""

    states: State
    actions: Tensor
    disagreement: Tensor | None


def draw_moments(
    model: WorldModel, source: Source, episodes: list[int], *, count: int, context: int, horizon: int, seed: int
) -> Moments:
    """Moments anywhere in `episodes`, each after `context` real rows and with at least one more behind it.

    Raises `UserError` when no episode is that long.
    """
    dataset, rng = source.dataset, np.random.default_rng(seed)
    places = np.maximum(dataset.lengths[episodes] - context, 0)
    if not places.sum():
        raise UserError(f"no episode of {dataset.path} has more than {context} rows: lower --context")
    device = next(model.parameters()).device
    chosen = [episodes[number] for number in rng.choice(len(episodes), size=count, p=places / places.sum())]
    starts = [int(rng.integers(dataset.lengths[e] - context)) for e in chosen]
    rows = joined([dataset.segment(e, start, context) for e, start in zip(chosen, starts, strict=True)]).to(device)
    lasts = [start + context - 1 for start in starts]
    after = joined([dataset.segment(e, last, horizon) for e, last in zip(chosen, lasts, strict=True)]).to(device)
    left = torch.tensor([int(dataset.lengths[e]) - 1 - last for e, last in zip(chosen, lasts, strict=True)])
    with torch.inference_mode(), seeded(seed, device):
        belief = model.track(rows.obs, rows.action)[:, -1]
    return Moments(rows, belief, after.action, (torch.arange(horizon) < left[:, None]).to(device))


def joined(parts: list[Segment]) -> Segment:
    """Windows of one length `[1, T]` side by side."""
    rest = {f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Segment) if f.name != "obs"}
    return Segment(obs={key: torch.cat([part.obs[key] for part in parts]) for key in parts[0].obs}, **rest)


def imagine_branches(model: WorldModel, moments: Moments, act: Act, horizon: int, seed: int) -> Branches:
    """Act from each moment with eyes closed."""
    states, actions, belief = [], [], moments.belief
    with torch.inference_mode(), seeded(seed, belief.features.device):
        for step in range(horizon):
            actions.append(act(belief, step))
            belief = model.predict(belief, actions[-1])
            states.append(belief)
        stacked = State.stack(states)
        unsure = model.decode(stacked, "disagreement") if "disagreement" in model.decodes else None
        return Branches(stacked, torch.stack(actions, 1), unsure)


def disagreement_limit(
    model: WorldModel, source: Source, *, keep: float, context: int, horizon: int, count: int, seed: int
) -> float | None:
    """The `keep` quantile of the disagreement in dreams of what was really done, `horizon` steps long.

    Where a branch is less sure than that, its actions lead away from what the data tell of. None without an ensemble.
    """
    if "disagreement" not in model.decodes:
        return None
    chosen = source.held_out or source.train
    moments = draw_moments(model, source, chosen, count=count, context=context, horizon=horizon, seed=seed)
    known = imagine_branches(model, moments, lambda belief, step: moments.followed[:, step], horizon, seed)
    assert known.disagreement is not None
    return float(torch.quantile(known.disagreement[moments.real].float(), keep))


def sure_steps(branches: Branches, limit: float | None) -> np.ndarray:
    """After how many steps each branch is first less sure than `limit`: `[B]`, H where it never is."""
    count, horizon = branches.actions.shape[:2]
    if branches.disagreement is None or limit is None:
        return np.full(count, horizon)
    unsure = (branches.disagreement > limit).cpu().numpy()
    return np.where(unsure.any(1), unsure.argmax(1), horizon)


def to_episodes(
    model: WorldModel, moments: Moments, branches: Branches, steps: np.ndarray, spec: DataSpec
) -> list[Episode]:
    """The branches of at least one of `steps` `[B]` as episodes: a real row, then imagined ones, in own units.

    What led to the real row is not repeated: it is in the recording already, and would count twice.
    """
    with torch.inference_mode():
        decoded = {key: model.decode(branches.states, key).float().cpu().numpy() for key in imagined_keys(model)}
    first, actions = moments.last_rows(), own_units(branches.actions.cpu().numpy(), spec)
    made = []
    for branch, sure in enumerate(steps):
        if sure:
            values = {key: value[branch, :sure] for key, value in decoded.items()}
            before = {key: value[branch : branch + 1] for key, value in first.items()}
            made.append(to_episode(spec, before, values, actions[branch, :sure]))
    return made


def to_episode(
    spec: DataSpec, first: dict[str, np.ndarray], values: dict[str, np.ndarray], actions: np.ndarray
) -> Episode:
    """One branch: the real row before it, and what was decoded after each of `actions` `[H, A]`."""
    ends = np.flatnonzero(values["terminated"] > END)[:1] if "terminated" in values else np.empty(0, int)
    rows = 1 + (int(ends[0]) + 1 if len(ends) else len(actions))
    last = np.arange(rows) == rows - 1
    obs = {}
    for key, what in spec.obs.items():
        seen = as_frames(values[key]) if what.kind == "image" else values[key]
        obs[key] = np.concatenate([first[key], seen.astype(first[key].dtype)])[:rows]
    reward = np.zeros(rows, np.float32)
    if "reward" in values:
        reward[1:] = values["reward"][: rows - 1]
    action = np.zeros((rows, actions.shape[1]), np.float32)
    action[:-1] = actions[: rows - 1]
    ended = last & bool(len(ends))
    return Episode(obs, action, reward, ended, last & ~ended, extra={SYNTHETIC: np.arange(rows) > 0})


def imagined_keys(model: WorldModel) -> list[str]:
    return [key for key in model.decodes if key in model.spec.obs or key in ("reward", "terminated")]


def own_units(actions: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Actions as the data have them, none beyond their bounds."""
    own = spec.action.unscale(actions)
    if spec.action.low is not None and spec.action.high is not None:
        own = np.clip(own, np.asarray(spec.action.low, np.float32), np.asarray(spec.action.high, np.float32))
    return own
