"""Measured while an agent played: violations, verdicts, and whether true margins stayed above the shield's bounds.

T rows, H horizon, R rules, A action size. An audit is a callback of `worldloom.agents.play.play`. It uses observations
only, never a model's predictions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.environment import to_obs
from worldloom.agents.play import Decision, play
from worldloom.data.segment import Segment, outcome
from worldloom.data.spec import DataSpec
from worldloom.envs.adapt import AdaptedEnv
from worldloom.safety.calibration import identities
from worldloom.safety.decision_log import VERDICTS
from worldloom.safety.residuals import true_values
from worldloom.safety.rules import Rule, margins, read_by, shortfalls
from worldloom.safety.shield import Shield, ShieldMemory


@dataclass
class AuditedEpisode:
    """One episode, a list entry a row; verdicts and the next step's bounds where there was a shield."""

    obs: list[dict[str, np.ndarray]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    signals: list[dict[str, float]] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    verdicts: list[int] = field(default_factory=list)
    bounds: list[Tensor] = field(default_factory=list)

    def margins(self, rules: Sequence[Rule], spec: DataSpec) -> Tensor:
        """The observed margins `[T - 1, R]` after each action, in the units of the data."""
        known = true_values(self.segment(spec), read_by(rules), spec)
        return margins(rules, known, torch.from_numpy(np.stack(self.actions))[None])[0]

    def segment(self, spec: DataSpec) -> Segment:
        """The episode `[1, T]`, as `calibrate` expects it."""
        taken = spec.action.scale(np.stack(self.actions))
        terminated = torch.tensor(self.terminated)[None]
        last = torch.arange(len(self.obs)) == len(self.obs) - 1
        return Segment(
            obs={key: value[None] for key, value in to_obs(self.obs, spec).items()},
            action=torch.from_numpy(np.concatenate([taken, np.zeros_like(taken[:1])]))[None],
            signals=outcome(
                torch.tensor(self.rewards)[None], terminated, last & ~terminated, **self._further_signals(spec)
            ),
            mask=torch.ones_like(terminated),
        )

    def _further_signals(self, spec: DataSpec) -> dict[str, Tensor]:
        """Those of `spec` that the environment reported, such as "cost": `[1, T]`, 0 in steps without a report."""
        reported = {name for row in self.signals for name in row} & spec.keys.keys()
        found = {name: torch.tensor([row.get(name, 0.0) for row in self.signals])[None] for name in sorted(reported)}
        return {name: value > 0 if spec.keys[name].kind == "flag" else value for name, value in found.items()}


@dataclass
class Audit:
    """A callback for `play`; `spec` says which keys of the observation are kept, such as those of a model.

    Signals that the environment reports, such as "cost", are kept too. `guarded`: whether `rules` are those of the
    shield as well, so that its bounds can be compared with true margins.
    """

    rules: Sequence[Rule]
    spec: DataSpec
    guarded: bool = True
    episodes: dict[int, AuditedEpisode] = field(default_factory=dict)

    def __call__(self, decision: Decision) -> None:
        episode = self.episodes.setdefault(decision.seed, AuditedEpisode())
        episode.obs.append({key: decision.obs[key] for key in self.spec.obs})
        episode.rewards.append(decision.reward)
        episode.terminated.append(decision.terminated)
        episode.signals.append(decision.signals)
        if decision.action is None:
            return
        episode.actions.append(self._vector(decision.action))
        if isinstance(decision.memory, ShieldMemory):
            episode.verdicts.append(int(decision.memory.sent.verdict))
            episode.bounds.append(decision.memory.sent.lower[0, 0].cpu())

    def summary(self) -> dict[str, Any]:
        """The counts of all episodes. A decision is unsafe when a true margin was below 0 after it.

        `promise_missed`: the share of episodes in which a true margin one step ahead was ever below its bound; it is at
        most about alpha for episodes like the calibration's; None for a shield of other rules.
        `accepted_but_violated`: the share of decisions that were sent as safe and violated a rule, and the share of
        episodes with at least one of them.
        """
        unsafe = [episode.margins(self.rules, self.spec).amin(1) < 0 for episode in self.episodes.values()]
        counts: dict[str, Any] = {
            "episodes": len(unsafe),
            "decisions": sum(len(steps) for steps in unsafe),
            "violations": sum(int(steps.sum()) for steps in unsafe),
            "violated_episodes": sum(bool(steps.any()) for steps in unsafe),
        }
        return counts | self._shielded(unsafe) if any(c.verdicts for c in self.episodes.values()) else counts

    def _shielded(self, unsafe: list[Tensor]) -> dict[str, Any]:
        verdicts = [torch.tensor(episode.verdicts) for episode in self.episodes.values()]
        wrong = [steps & (given <= 1) for steps, given in zip(unsafe, verdicts, strict=True)]
        every, claimed_safe = torch.cat(verdicts), torch.cat(verdicts) <= 1
        return {
            "verdicts": {name: share(every == number) for number, name in enumerate(VERDICTS)},
            "promise_missed": self._promise_missed() if self.guarded else None,
            "accepted_but_violated_decisions": float(torch.cat(wrong).sum() / claimed_safe.sum().clamp(min=1)),
            "accepted_but_violated_episodes": share(torch.tensor([bool(steps.any()) for steps in wrong])),
        }

    def _promise_missed(self) -> float:
        missed = []
        for episode in self.episodes.values():
            true = episode.margins(self.rules, self.spec)
            missed.append(bool((shortfalls(self.rules, torch.stack(episode.bounds), true) > 0).any()))
        return share(torch.tensor(missed))

    def segments(self) -> list[Segment]:
        """The episodes `[1, T]`, as `calibrate` expects them."""
        return [episode.segment(self.spec) for episode in self.episodes.values()]

    def _vector(self, action: Any) -> np.ndarray:
        if self.spec.action.kind == "discrete":
            return np.eye(self.spec.action.size, dtype=np.float32)[int(action)]
        return np.asarray(action, np.float32)


@dataclass(frozen=True)
class ShieldTrial:
    """How agents are evaluated: an environment, fixed seeds, and rules on the observed keys of `spec`.

    `num_envs` are played at a time; `max_steps` truncates.
    """

    make: Callable[[], AdaptedEnv]
    seeds: Sequence[int]
    rules: Sequence[Rule]
    spec: DataSpec
    num_envs: int = 1
    max_steps: int | None = None

    def run(self, agent: Agent) -> tuple[float, Audit]:
        """The mean return of `agent`, and the audit of its episodes."""
        guarded = not isinstance(agent, Shield) or identities(agent.rules) == identities(self.rules)
        audit = Audit(self.rules, self.spec, guarded)
        played = play(agent, self.make, self.seeds, self.num_envs, self.max_steps, audit)
        return mean(one.episode_return for one in played), audit

    def compare(self, agents: Mapping[str, Agent]) -> dict[str, Any]:
        """The counts and returns of several agents on the same seeds, and the share of the first's return they lose."""
        figures: dict[str, Any] = {}
        for name, agent in agents.items():
            value, audit = self.run(agent)
            bare = next(iter(figures.values()))["return"] if figures else value
            figures[name] = {
                "return": value,
                "return_lost": (bare - value) / abs(bare) if bare else 0.0,
                **audit.summary(),
            }
        return figures


def share(flags: Tensor) -> float:
    return float(flags.float().mean())
