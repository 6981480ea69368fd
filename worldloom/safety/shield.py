"""An agent that keeps rules another agent does not know of. It is an agent itself.

B environments, H horizon, R rules, F prefix steps, A action size. Every action of the wrapped agent is judged before it
is sent: imagined together with the fallback that could follow it, and bounded by what calibration learned.

* accept: the action, then the fallback (or the agent's own plan, then the fallback), breaks no bound.
* repair: it does, and the nearest plan that breaks none was found.
* recover: none was found, and a plan does less harm than the fallback. So it goes when the robot is already where no
  bound can be kept, and standing still would keep it there.
* fall back: what is left of the last safe plan, and then the user's fallback.
* refuse: the observation is unlike those of the calibration, so the model is not asked; the fallback is sent. So it is
  where something observed is not a number; the model's own prediction then stands for what was not seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldloom.agents.agent import Agent, next_seed
from worldloom.agents.planning import shift
from worldloom.agents.reference import batch_size
from worldloom.data.spec import ActionSpec, DataSpec
from worldloom.errors import UserError
from worldloom.model import Obs, State, WorldModel, state
from worldloom.noise import Noise, TorchNoise
from worldloom.planners import PLANNERS
from worldloom.planners.planner import Plan, Planner
from worldloom.safety.calibration import Calibration
from worldloom.safety.decision import ShieldDecision
from worldloom.safety.decision_log import explain, write_log
from worldloom.safety.evaluator import SafetyEvaluation, SafetyEvaluator
from worldloom.safety.forecast import DecodedValues, Fallback, Forecaster
from worldloom.safety.novelty import prediction_error
from worldloom.safety.online_calibration import OnlineCalibration
from worldloom.safety.rules import Rule, Values, check_rules

ROUNDING = 1e-4  # bounds that went through JSON and float32 may differ in the last digit


class Verdict(IntEnum):
    ACCEPT, REPAIR, RECOVER, FALL_BACK, REFUSE = range(5)


@state
class ShieldMemory(State):
    """agent: the wrapped agent's memory. belief `[B]`: the shield's own. sent: the last choice.

    online_calibration: how the model's forecasts turned out in this episode so far. step and seed `[B]`.
    """

    agent: State
    belief: State
    sent: ShieldDecision
    online_calibration: OnlineCalibration
    step: Tensor
    seed: Tensor

    @property
    def features(self) -> Tensor:
        return self.belief.features


@dataclass(frozen=True)
class CheckedObservation:
    """What the shield goes by: the belief, what was shown, and whether each row `[B]` was all numbers."""

    belief: State
    shown: dict[str, Tensor]
    sound: Tensor


@dataclass(frozen=True)
class Shield(Agent):
    """`agent` as long as `rules` are kept, judged by `model` within the bounds of `calibration`.

    `fallback` is an action in model units or a function of the values `{key: [N, D]}`, such as to brake; it should lead
    to where staying is safe within the horizon. `planner` searches repairs; its horizon is F. With `adapt`, bounds are
    widened for as long as forecasts in this very episode turn out worse than calibration promised, as they do in a
    world that has changed. `tolerance` multiplies the threshold above which an observation is refused: with more than 1
    a changed world is driven in with widened bounds rather than not at all. `log` gets one JSON line a decision.

    Whatever agent, model and planner draw follows from the seed of the episode, and torch's generators are left as they
    are. Raises `UserError` when the parts do not belong together.
    """

    agent: Agent
    model: WorldModel
    rules: Sequence[Rule]
    calibration: Calibration
    fallback: Sequence[float] | Callable[[Values], Tensor]
    planner: Planner | None = None
    adapt: bool = True
    tolerance: float = 1.0
    log: Path | None = None
    judge: SafetyEvaluator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        model = self.model
        check_rules(self.rules, model.spec, model.decodes)
        self.calibration.check(model, self.rules)
        check_same_world(self.agent.spec, model.spec)
        fallback = Fallback(self.fallback if callable(self.fallback) else tuple(map(float, self.fallback)))
        fallback.check(model.spec)
        if not self.tolerance > 0:
            raise UserError(f"the tolerance is {self.tolerance}, but it must be more than 0")
        forecaster = Forecaster(model, tuple(self.rules), self.calibration.particles)
        object.__setattr__(self, "judge", SafetyEvaluator(forecaster, self.calibration, fallback))
        object.__setattr__(self, "planner", self.planner or default_planner(model, self.calibration.horizon))
        if self.repairs.horizon > self.calibration.horizon:
            raise UserError(
                f"the planner's horizon is {self.repairs.horizon} steps, but the calibration reaches "
                f"{self.calibration.horizon}: plan less far, or calibrate further"
            )

    @property
    def repairs(self) -> Planner:
        assert self.planner is not None
        return self.planner

    @property
    def spec(self) -> DataSpec:  # type: ignore[override]
        """The agent's, and what else the model looks at."""
        return self.agent.spec.with_obs({**self.model.spec.obs, **self.agent.spec.obs})

    @property
    def device(self) -> torch.device:
        return self.agent.device

    @torch.no_grad()
    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, ShieldMemory]:
        # Another stream than the wrapped agent's, which is given the seed as it is.
        seeds = next_seed(torch.full((batch_size(obs),), ~seed, device=self.device))
        noise, shown = TorchNoise.seeded(int(seeds[0]), self.device), self._shown(obs)
        nothing_seen = self.model.start({key: torch.zeros_like(value) for key, value in shown.items()}, noise)
        look = self._look(self.model.start(shown, noise), nothing_seen, shown)
        wanted, agent = self.agent.start({**obs, **look.shown}, seed)
        zeros = torch.zeros_like(seeds)
        plan = wanted.new_zeros(len(wanted), self.repairs.horizon, wanted.shape[1])
        lower = wanted.new_zeros(len(wanted), self.calibration.horizon, len(self.rules))
        nothing = ShieldDecision(wanted, plan, zeros, zeros, lower)
        online_calibration = OnlineCalibration.none(look.belief, wanted, lower, look.sound)
        memory = ShieldMemory(agent, look.belief, nothing, online_calibration, zeros - 1, seeds)
        return self._decide(memory, wanted, look.belief, look, noise)

    @torch.no_grad()
    def act(self, memory: State, obs: Obs) -> tuple[Tensor, ShieldMemory]:
        assert isinstance(memory, ShieldMemory), f"this is the memory of another agent: {type(memory).__name__}"
        shown, sent, seeds = self._shown(obs), memory.sent.action, next_seed(memory.seed)
        noise, forecaster = TorchNoise.seeded(int(seeds[0]), self.device), self.judge.forecaster
        expected = self.model.predict(memory.belief, sent, noise)
        look = self._look(self.model.observe(memory.belief, sent, shown, noise), expected, shown)
        wanted, agent = self.agent.act(with_action(memory.agent, sent), {**obs, **look.shown})
        happened = forecaster.now(look.belief, look.shown, sent).masked_fill(~look.sound[:, None], torch.nan)
        online_calibration = memory.online_calibration.compare(
            forecaster, self.calibration, sent, happened, look.belief, noise
        )
        memory = replace(memory, agent=agent, belief=look.belief, online_calibration=online_calibration, seed=seeds)
        return self._decide(memory, wanted, expected, look, noise)

    def _shown(self, obs: Obs) -> dict[str, Tensor]:
        """What the model looks at."""
        return {key: obs[key] for key in self.model.spec.obs}

    def _look(self, seen: State, expected: State, shown: dict[str, Tensor]) -> CheckedObservation:
        """The belief `seen` after a look at what was `shown` where both are all numbers, else what was `expected`."""
        sound = seen.isfinite() & torch.stack([finite(value) for value in shown.values()]).all(0)
        if bool(sound.all()):
            return CheckedObservation(seen, shown, sound)
        belief, model = seen.where(sound, expected), self.model
        guessed = {key: value.nan_to_num(0.0, 0.0, 0.0) for key, value in shown.items()}
        guessed |= {key: model.decode(belief, key) for key in model.spec.vector_keys if key in model.decodes}
        return CheckedObservation(
            belief, {key: choose(sound, value, guessed[key]) for key, value in shown.items()}, sound
        )

    def _decide(
        self, memory: ShieldMemory, wanted: Tensor, expected: State, look: CheckedObservation, noise: Noise
    ) -> tuple[Tensor, ShieldMemory]:
        """Evaluate `wanted` `[B, A]`; `expected` is the belief before the `look` that led to `memory.belief`."""
        inflation = (
            memory.online_calibration.inflation if self.adapt else torch.ones_like(memory.online_calibration.inflation)
        )
        intent, planned = self._intent(memory.agent, wanted)
        asked, left = self._ask(memory.belief, intent, planned, inflation, noise)
        surprised = prediction_error(self.model, self.judge.forecaster.keys, expected, look.shown)
        strange = self.calibration.novelty.score(surprised, look.belief.features) / self.tolerance
        strange = strange.masked_fill(~look.sound, torch.inf)
        familiar = look.sound & (strange <= self.calibration.novelty.threshold)
        verdict = torch.where(asked.safe & finite(wanted), Verdict.ACCEPT, Verdict.FALL_BACK)
        verdict = torch.where(familiar, verdict, Verdict.REFUSE)
        choice = ShieldDecision(wanted, follow(intent), left, verdict, asked.lower)
        if bool((verdict != Verdict.ACCEPT).any()):
            fallen, harm = self._fall_back(memory, verdict, look.shown, inflation, noise)
            choice = choice.where(verdict == Verdict.ACCEPT, fallen)
            rows = (verdict == Verdict.FALL_BACK).nonzero()[:, 0]
            choice = self._repair(memory, choice, rows, intent, harm, inflation, noise)
        made = replace(memory, sent=choice, step=memory.step + 1)
        if self.log is not None:
            write_log(self.log, explain(self.judge, made.step, choice, wanted, asked, strange, inflation))
        return choice.action, made

    def _intent(self, agent: State, wanted: Tensor) -> tuple[Tensor, bool]:
        """What the agent would do if it could: its own plan where its memory has one, or else the same action again.

        `[B, F, A]`, and whether it is a plan.
        """
        plan, steps = getattr(agent, "plan", None), self.repairs.horizon
        held = wanted[:, None].expand(-1, steps, -1)
        if not isinstance(plan, Plan):
            return held, False
        rest = shift(plan.actions, agent.age) if hasattr(agent, "age") else plan.actions
        rest = torch.cat([wanted[:, None], rest[:, 1:steps]], 1)
        return torch.cat([rest, held[:, rest.shape[1] :]], 1), True

    def _ask(
        self, belief: State, intent: Tensor, planned: bool, inflation: Tensor, noise: Noise
    ) -> tuple[SafetyEvaluation, Tensor]:
        """Is it safe to take the action and then fall back, or to follow the agent's plan and then fall back?

        And how many steps `[B]` follow the action before the fallback.
        """
        asked = self.judge.evaluate(belief, intent[:, :1], inflation, noise=noise)
        left = torch.zeros(len(intent), dtype=torch.long, device=intent.device)
        if planned and not bool(asked.safe.all()):
            whole = self.judge.evaluate(belief, intent, inflation, noise=noise)
            better = ~asked.safe & whole.safe
            return whole.where(better, asked), torch.where(better, self.repairs.horizon - 1, left)
        return asked, left

    def _fall_back(
        self, memory: ShieldMemory, verdict: Tensor, obs: Obs, inflation: Tensor, noise: Noise
    ) -> tuple[ShieldDecision, Tensor]:
        """The rest of the last safe plan where the model is believed and there is some, else the user's fallback.

        And the harm it does, `[B]`.
        """
        going = (verdict == Verdict.FALL_BACK) & (memory.sent.left > 0)
        rest = memory.sent.plan
        now = self.judge.fallback(DecodedValues.now(self.model, memory.belief, obs))
        action = torch.where(going[:, None], rest[:, 0], now)
        steps = torch.where(going, memory.sent.left, 1)
        plans = torch.cat([action[:, None], rest[:, 1:]], 1)
        judged = self.judge.evaluate_each(memory.belief, plans, steps, inflation, noise)
        return ShieldDecision(action, follow(rest), steps - 1, verdict, judged.lower), judged.harm

    def _repair(
        self,
        memory: ShieldMemory,
        choice: ShieldDecision,
        rows: Tensor,
        intent: Tensor,
        harm: Tensor,
        inflation: Tensor,
        noise: Noise,
    ) -> ShieldDecision:
        """In `rows`, put the nearest safe plan in the place of the fallback, or one that does less harm than it."""
        if not len(rows):
            return choice
        seed = int(memory.seed[0]) ^ 1  # another stream than the one the belief was drawn from
        plan, judged = self.judge.repair(self.repairs, memory.belief[rows], intent[rows], inflation[rows], seed, noise)
        verdict = torch.where(judged.safe, Verdict.REPAIR, Verdict.RECOVER)
        left = torch.where(judged.safe, self.repairs.horizon - 1, 0)
        found = ShieldDecision(plan.actions[:, 0], follow(plan.actions), left, verdict, judged.lower)
        better = judged.safe | (judged.harm < harm[rows])
        best, source = found.where(better, choice[rows]), torch.arange(len(harm), device=rows.device)
        source[rows] = len(harm) + torch.arange(len(rows), device=rows.device)
        return ShieldDecision.cat([choice, best])[source]


def follow(actions: Tensor) -> Tensor:
    """What comes after the first of `[B, F, A]`, zeros at the end."""
    return torch.cat([actions[:, 1:], torch.zeros_like(actions[:, :1])], 1)


def choose(mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Of two tensors `[B, ...]`, `one` where `mask` `[B]`, else the `other`."""
    return torch.where(mask.view(-1, *[1] * (one.ndim - 1)), one, other)


def finite(rows: Tensor) -> Tensor:
    """Which rows of a tensor `[B, ...]` hold nothing but finite numbers: bool `[B]`."""
    return rows.isfinite().reshape(len(rows), -1).all(1)


def with_action(memory: Any, action: Tensor) -> Any:
    """The wrapped agent's memory, told what was sent: an agent that keeps its last action has a field `action`.

    One that wraps another keeps that one's memory as `agent` or `inner`, and that is told instead: an action beside
    `inner` is what the wrapper itself goes on to send.
    """
    if isinstance(memory, ShieldMemory):
        return replace(memory, sent=replace(memory.sent, action=action), agent=with_action(memory.agent, action))
    known = {f.name for f in fields(memory)}
    changed: dict[str, Any] = {
        name: with_action(getattr(memory, name), action) for name in ("agent", "inner") if name in known
    }
    if "action" in known and "inner" not in known and memory.action.shape == action.shape:
        changed["action"] = action
    return replace(memory, **changed)


def check_same_world(agent: DataSpec, model: DataSpec) -> None:
    """Raise `UserError` unless an agent and a model mean the same by every action, and by the keys both look at."""
    takes, knows = agent.action, model.action
    if (takes.kind, takes.size) != (knows.kind, knows.size) or not same_range(takes, knows):
        raise UserError(
            f"the agent takes {in_words(takes)}, but the shield's model {in_words(knows)}: "
            "use a model of the agent's own environment"
        )
    for key in agent.obs.keys() & model.obs.keys():
        one, other = agent.obs[key], model.obs[key]
        if (one.kind, one.shape) != (other.kind, other.shape):
            raise UserError(
                f"the agent looks at {key!r} as {one.kind} {one.shape}, but the shield's model as {other.kind} "
                f"{other.shape}: use a model of the agent's own environment"
            )


def same_range(one: ActionSpec, other: ActionSpec) -> bool:
    """Whether 1 in model units is the same; an action without a range is in model units already."""
    if one.kind == "discrete":
        return True
    mine, theirs = (torch.tensor([a.low or (-1.0,) * a.size, a.high or (1.0,) * a.size]) for a in (one, other))
    return torch.allclose(mine, theirs, rtol=ROUNDING, atol=0.0)


def in_words(action: ActionSpec) -> str:
    words = f"{action.size} {action.kind} actions"
    if action.low is None or action.high is None:
        return words
    return f"{words} in {' x '.join(f'[{a:g}, {b:g}]' for a, b in zip(action.low, action.high, strict=True))}"


def default_planner(model: WorldModel, horizon: int) -> Planner:
    """A search of a few steps, wide enough to find a way round."""
    steps = min(6, horizon)
    if model.spec.action.kind == "discrete":
        return PLANNERS["categorical"](horizon=steps)
    return PLANNERS["mppi"](
        horizon=steps, policy_samples=0, temperature=5.0, samples=256, elites=16, iterations=5, max_std=1.0
    )
