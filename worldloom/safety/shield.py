"""An agent that keeps rules another agent does not know of. It is an agent itself.

B environments, H horizon, R rules, F prefix steps, A action size. Every action of the wrapped agent is judged before it
is sent: imagined together with the fallback that could follow it, and bounded by what calibration learned.

* accept: the action, then the fallback (or the agent's own plan, then the fallback), breaks no bound.
* repair: it does, and the nearest plan that breaks none was found.
* recover: none was found, and a plan does less harm than the fallback. So it goes when the robot is already where no
  bound can be kept, and standing still would keep it there.
* fall back: what is left of the last safe plan, and then the user's fallback.
* refuse: the observation is unlike those of the calibration, so the model is not asked; the fallback is sent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from worldloom.agents.agent import Agent
from worldloom.agents.planning import shift
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.model import Obs, State, WorldModel, state
from worldloom.planners import PLANNERS
from worldloom.planners.planner import Plan, Planner
from worldloom.safety.calibration import Calibration
from worldloom.safety.decisions import explain, write_log
from worldloom.safety.forecast import Fallback, Forecaster, Reading
from worldloom.safety.hindsight import Hindsight
from worldloom.safety.judge import Assessed, Judge
from worldloom.safety.novelty import surprise
from worldloom.safety.rules import Rule, Values, check_rules


class Verdict(IntEnum):
    ACCEPT, REPAIR, RECOVER, FALL_BACK, REFUSE = range(5)


@state
class Choice(State):
    """What is sent and why. action `[B, A]`; verdict `[B]`, a `Verdict`; lower `[B, H, R]`, the bounds of what is sent.

    plan `[B, F, A]`: the steps that follow the action in the plan it belongs to, and left `[B]`: how many they are
    before the fallback begins.
    """

    action: Tensor
    plan: Tensor
    left: Tensor
    verdict: Tensor
    lower: Tensor

    @property
    def features(self) -> Tensor:
        return self.action


@state
class ShieldMemory(State):
    """agent: the wrapped agent's memory. belief `[B]`: the shield's own. sent: the last choice.

    hindsight: how the model's forecasts turned out in this episode so far. step and seed `[B]`.
    """

    agent: State
    belief: State
    sent: Choice
    hindsight: Hindsight
    step: Tensor
    seed: Tensor

    @property
    def features(self) -> Tensor:
        return self.belief.features


@dataclass(frozen=True)
class Shield(Agent):
    """`agent` as long as `rules` are kept, judged by `model` within the bounds of `calibration`.

    `fallback` is an action in model units or a function of the values `{key: [N, D]}`, such as to brake; it should lead
    to where staying is safe within the horizon. `planner` searches repairs; its horizon is F. With `adapt`, bounds are
    widened for as long as forecasts in this very episode turn out worse than calibration promised, as they do in a
    world that has changed. `tolerance` multiplies the threshold above which an observation is refused: with more than 1
    a changed world is driven in with widened bounds rather than not at all. `log` gets one JSON line a decision.

    Raises `UserError` when the parts do not belong together, and rather than send an action that is not finite.
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
    judge: Judge = field(init=False, repr=False)

    def __post_init__(self) -> None:
        model, action = self.model, self.agent.spec.action
        check_rules(self.rules, model.spec, model.decodes)
        self.calibration.check(model, self.rules)
        if (action.kind, action.size) != (model.spec.action.kind, model.spec.action.size):
            raise UserError(
                f"the agent takes {action.size} {action.kind} actions, but the shield's model "
                f"{model.spec.action.size} {model.spec.action.kind} ones: use a model of the agent's own environment"
            )
        fallback = Fallback(self.fallback if callable(self.fallback) else tuple(map(float, self.fallback)))
        fallback.check(model.spec)
        if not self.tolerance > 0:
            raise UserError(f"the tolerance is {self.tolerance}, but it must be more than 0")
        forecaster = Forecaster(model, tuple(self.rules), self.calibration.particles)
        object.__setattr__(self, "judge", Judge(forecaster, self.calibration, fallback))
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
        return replace(self.agent.spec, obs={**self.model.spec.obs, **self.agent.spec.obs})

    @property
    def device(self) -> torch.device:
        return self.agent.device

    @torch.no_grad()
    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, ShieldMemory]:
        wanted, agent = self.agent.start(obs, seed)
        belief = self.model.start(self._shown(obs))
        zeros = torch.zeros(len(wanted), dtype=torch.long, device=wanted.device)
        plan = wanted.new_zeros(len(wanted), self.repairs.horizon, wanted.shape[1])
        lower = wanted.new_zeros(len(wanted), self.calibration.horizon, len(self.rules))
        nothing = Choice(wanted, plan, zeros, zeros, lower)
        hindsight = Hindsight.none(belief, wanted, lower)
        memory = ShieldMemory(agent, belief, nothing, hindsight, zeros - 1, zeros + seed)
        return self._decide(memory, wanted, belief, obs)

    @torch.no_grad()
    def act(self, memory: State, obs: Obs) -> tuple[Tensor, ShieldMemory]:
        assert isinstance(memory, ShieldMemory), f"this is the memory of another agent: {type(memory).__name__}"
        shown, sent = self._shown(obs), memory.sent.action
        expected = self.model.predict(memory.belief, sent)
        belief = self.model.observe(memory.belief, sent, shown)
        wanted, agent = self.agent.act(told(memory.agent, sent), obs)
        happened = self.judge.forecaster.now(belief, shown, sent)
        hindsight = memory.hindsight.compare(self.judge.forecaster, self.calibration, sent, happened, belief)
        memory = replace(memory, agent=agent, belief=belief, hindsight=hindsight)
        return self._decide(memory, wanted, expected, obs)

    def _decide(self, memory: ShieldMemory, wanted: Tensor, expected: State, obs: Obs) -> tuple[Tensor, ShieldMemory]:
        """Judge `wanted` `[B, A]`; `expected` is the belief before the look that led to `memory.belief`."""
        shown = self._shown(obs)
        widen = memory.hindsight.widen if self.adapt else torch.ones_like(memory.hindsight.widen)
        intent, planned = self._intent(memory.agent, wanted)
        asked, left = self._ask(memory.belief, intent, planned, widen)
        strange = self.calibration.novelty.score(
            surprise(self.model, self.judge.forecaster.keys, expected, shown), memory.belief.features
        )
        familiar = strange <= self.tolerance * self.calibration.novelty.threshold
        verdict = torch.where(asked.safe, Verdict.ACCEPT, Verdict.FALL_BACK)
        verdict = torch.where(familiar, verdict, Verdict.REFUSE)
        choice = Choice(wanted, follow(intent), left, verdict, asked.lower)
        if bool((verdict != Verdict.ACCEPT).any()):
            fallen, harm = self._fall_back(memory, verdict, shown, widen)
            choice = choose(verdict == Verdict.ACCEPT, choice, fallen)
            rows = (verdict == Verdict.FALL_BACK).nonzero()[:, 0]
            choice = self._repair(memory, choice, rows, intent, harm, widen)
        made = replace(memory, sent=choice, step=memory.step + 1)
        if not bool(choice.action.isfinite().all()):
            sent = choice.action[~choice.action.isfinite().all(1)][0].tolist()
            raise UserError(f"the fallback returned {sent}: no action is sent. Return finite ones, whatever was seen")
        if self.log is not None:
            write_log(self.log, explain(self.judge, made.step, choice, wanted, asked, strange / self.tolerance, widen))
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

    def _ask(self, belief: State, intent: Tensor, planned: bool, widen: Tensor) -> tuple[Assessed, Tensor]:
        """Is it safe to take the action and then fall back, or to follow the agent's plan and then fall back?

        And how many steps `[B]` follow the action before the fallback.
        """
        asked = self.judge.assess(belief, intent[:, :1], widen)
        left = torch.zeros(len(intent), dtype=torch.long, device=intent.device)
        if planned and not bool(asked.safe.all()):
            whole = self.judge.assess(belief, intent, widen)
            better = ~asked.safe & whole.safe
            return whole.where(better, asked), torch.where(better, self.repairs.horizon - 1, left)
        return asked, left

    def _fall_back(self, memory: ShieldMemory, verdict: Tensor, obs: Obs, widen: Tensor) -> tuple[Choice, Tensor]:
        """The rest of the last safe plan where the model is believed and there is some, else the user's fallback.

        And the harm it does, `[B]`.
        """
        going = (verdict == Verdict.FALL_BACK) & (memory.sent.left > 0)
        now = self.judge.fallback(Reading.now(self.model, memory.belief, obs))
        action = torch.where(going[:, None], memory.sent.plan[:, 0], now)
        judged = self.judge.assess(memory.belief, action[:, None], widen)
        left = torch.where(going, memory.sent.left - 1, 0)
        return Choice(action, follow(memory.sent.plan), left, verdict, judged.lower), judged.harm

    def _repair(
        self, memory: ShieldMemory, choice: Choice, rows: Tensor, intent: Tensor, harm: Tensor, widen: Tensor
    ) -> Choice:
        """In `rows`, put the nearest safe plan in the place of the fallback, or one that does less harm than it."""
        if not len(rows):
            return choice
        seed = int(memory.seed[0] + memory.step[0] + 1)
        plan, judged = self.judge.repair(self.repairs, memory.belief[rows], intent[rows], widen[rows], seed)
        verdict = torch.where(judged.safe, Verdict.REPAIR, Verdict.RECOVER)
        left = torch.full_like(rows, self.repairs.horizon - 1)
        found = Choice(plan.actions[:, 0], follow(plan.actions), left, verdict, judged.lower)
        better = judged.safe | (judged.harm < harm[rows])
        best = choose(better, found, choice[rows])
        return tree_map(lambda old, new: old.index_copy(0, rows, new), choice, best)

    def _shown(self, obs: Obs) -> dict[str, Tensor]:
        """What the model looks at."""
        return {key: obs[key] for key in self.model.spec.obs}


def follow(actions: Tensor) -> Tensor:
    """What comes after the first of `[B, F, A]`, zeros at the end."""
    return torch.cat([actions[:, 1:], torch.zeros_like(actions[:, :1])], 1)


def choose(mask: Tensor, one: Choice, other: Choice) -> Choice:
    """`one` where `mask` `[B]`, else the `other`."""
    return tree_map(lambda a, b: torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b), one, other)


def told(memory: Any, action: Tensor) -> Any:
    """The wrapped agent's memory, told what was sent: an agent that keeps its last action has a field `action`.

    One that wraps another keeps that one's memory as `agent` or `inner`, which is told as well.
    """
    if isinstance(memory, ShieldMemory):
        return replace(memory, sent=replace(memory.sent, action=action), agent=told(memory.agent, action))
    known = {f.name for f in fields(memory)}
    changed: dict[str, Any] = {
        name: told(getattr(memory, name), action) for name in ("agent", "inner") if name in known
    }
    if "action" in known and memory.action.shape == action.shape:
        changed["action"] = action
    return replace(memory, **changed)


def default_planner(model: WorldModel, horizon: int) -> Planner:
    """A search of a few steps, wide enough to find a way round."""
    steps = min(6, horizon)
    if model.spec.action.kind == "discrete":
        return PLANNERS["categorical"](horizon=steps)
    return PLANNERS["mppi"](
        horizon=steps, policy_samples=0, temperature=5.0, samples=256, elites=16, iterations=5, max_std=1.0
    )
