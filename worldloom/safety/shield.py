"""An agent that makes another agent keep rules. It is an agent itself.

B environments, H horizon, R rules, F prefix steps, A action size. Every action of the wrapped agent is evaluated before
it is sent: imagined together with the fallback that could follow it, with bounds from the calibration.

* accept: the action, then the fallback (or the agent's own plan, then the fallback), breaks no bound.
* repair: the action breaks a bound; the nearest plan that breaks none is sent.
* recover: no such plan was found, but one that violates less than the fallback. This happens when the robot is already
  in a state where no bound can be kept, and standing still would keep it there.
* fall back: what is left of the last safe plan, and then the user's fallback.
* refuse: the observation is unlike those of the calibration, or not finite. The model is not used, and the fallback is
  sent. The model's prediction then replaces the observed values that are not finite.
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
    """agent: the wrapped agent's memory. belief `[B]`: the shield's own. sent: the last decision.

    online_calibration: the errors of the model's forecasts in this episode so far. step and seed `[B]`.
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
    """The belief, the observation `obs` `{key: [B, ...]}` that the model reads, and where both were finite: `[B]`.

    Rows of `obs` that were not finite are replaced by what the model predicts.
    """

    belief: State
    obs: dict[str, Tensor]
    valid: Tensor


@dataclass(frozen=True)
class Shield(Agent):
    """`agent` as long as `rules` are kept, as predicted by `model` within the bounds of `calibration`.

    `fallback` is an action in model units or a function of the values `{key: [N, D]}`, such as to brake; it should lead
    to a state that stays safe within the horizon. `planner` searches repairs; its horizon is F. With `adapt`, bounds
    are inflated while forecasts of this episode are worse than the calibration guarantees, as in a changed environment.
    `tolerance` multiplies the novelty threshold above which an observation is refused: above 1 the agent acts in a
    changed environment with inflated bounds, instead of being refused. `log` gets one JSON line a decision.

    All that agent, model and planner sample follows from the seed of the episode, and torch's generators are left
    unchanged. Raises `UserError` when the parts do not belong together.
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
    evaluator: SafetyEvaluator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        model = self.model
        check_rules(self.rules, model.spec, model.decodes)
        self.calibration.check(model, self.rules)
        check_same_environment(self.agent.spec, model.spec)
        fallback = Fallback(self.fallback if callable(self.fallback) else tuple(map(float, self.fallback)))
        fallback.check(model.spec)
        if not self.tolerance > 0:
            raise UserError(f"the tolerance is {self.tolerance}, but it must be more than 0")
        forecaster = Forecaster(model, tuple(self.rules), self.calibration.particles)
        object.__setattr__(self, "evaluator", SafetyEvaluator(forecaster, self.calibration, fallback))
        object.__setattr__(self, "planner", self.planner or default_planner(model, self.calibration.horizon))
        if self.repair_planner.horizon > self.calibration.horizon:
            raise UserError(
                f"the planner's horizon is {self.repair_planner.horizon} steps, but the calibration reaches "
                f"{self.calibration.horizon}: plan less far, or calibrate further"
            )

    @property
    def repair_planner(self) -> Planner:
        assert self.planner is not None
        return self.planner

    @property
    def spec(self) -> DataSpec:  # type: ignore[override]
        """The agent's, and what else the model observes."""
        return self.agent.spec.with_obs({**self.model.spec.obs, **self.agent.spec.obs})

    @property
    def device(self) -> torch.device:
        return self.agent.device

    @torch.no_grad()
    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, ShieldMemory]:
        # Another random stream than the wrapped agent's, which gets the seed unchanged.
        seeds = next_seed(torch.full((batch_size(obs),), ~seed, device=self.device))
        noise, model_obs = TorchNoise.seeded(int(seeds[0]), self.device), self._model_obs(obs)
        unobserved = self.model.start({key: torch.zeros_like(value) for key, value in model_obs.items()}, noise)
        checked = self._check_observation(self.model.start(model_obs, noise), unobserved, model_obs)
        wanted, agent = self.agent.start({**obs, **checked.obs}, seed)
        zeros = torch.zeros_like(seeds)
        plan = wanted.new_zeros(len(wanted), self.repair_planner.horizon, wanted.shape[1])
        lower = wanted.new_zeros(len(wanted), self.calibration.horizon, len(self.rules))
        no_decision = ShieldDecision(wanted, plan, zeros, zeros, lower)
        online_calibration = OnlineCalibration.initial(checked.belief, wanted, lower, checked.valid)
        memory = ShieldMemory(agent, checked.belief, no_decision, online_calibration, zeros - 1, seeds)
        return self._decide(memory, wanted, checked.belief, checked, noise)

    @torch.no_grad()
    def act(self, memory: State, obs: Obs) -> tuple[Tensor, ShieldMemory]:
        assert isinstance(memory, ShieldMemory), f"this is the memory of another agent: {type(memory).__name__}"
        model_obs, sent, seeds = self._model_obs(obs), memory.sent.action, next_seed(memory.seed)
        noise, forecaster = TorchNoise.seeded(int(seeds[0]), self.device), self.evaluator.forecaster
        expected = self.model.predict(memory.belief, sent, noise)
        posterior = self.model.observe(memory.belief, sent, model_obs, noise)
        checked = self._check_observation(posterior, expected, model_obs)
        wanted, agent = self.agent.act(with_action(memory.agent, sent), {**obs, **checked.obs})
        observed = forecaster.now(checked.belief, checked.obs, sent).masked_fill(~checked.valid[:, None], torch.nan)
        online_calibration = memory.online_calibration.update(
            forecaster, self.calibration, sent, observed, checked.belief, noise
        )
        memory = replace(memory, agent=agent, belief=checked.belief, online_calibration=online_calibration, seed=seeds)
        return self._decide(memory, wanted, expected, checked, noise)

    def _model_obs(self, obs: Obs) -> dict[str, Tensor]:
        """The keys that the model observes."""
        return {key: obs[key] for key in self.model.spec.obs}

    def _check_observation(self, posterior: State, prior: State, obs: dict[str, Tensor]) -> CheckedObservation:
        """The `posterior` and `obs` where both are finite, elsewhere the `prior` and what it decodes."""
        valid = posterior.isfinite() & torch.stack([finite_rows(value) for value in obs.values()]).all(0)
        if bool(valid.all()):
            return CheckedObservation(posterior, obs, valid)
        belief, model = posterior.where(valid, prior), self.model
        predicted = {key: value.nan_to_num(0.0, 0.0, 0.0) for key, value in obs.items()}
        predicted |= {key: model.decode(belief, key) for key in model.spec.vector_keys if key in model.decodes}
        completed = {key: select_rows(valid, value, predicted[key]) for key, value in obs.items()}
        return CheckedObservation(belief, completed, valid)

    def _decide(
        self, memory: ShieldMemory, wanted: Tensor, expected: State, checked: CheckedObservation, noise: Noise
    ) -> tuple[Tensor, ShieldMemory]:
        """Evaluate `wanted` `[B, A]`; `expected` is the belief before the observation that led to `memory.belief`."""
        inflation = memory.online_calibration.inflation
        inflation = inflation if self.adapt else torch.ones_like(inflation)
        intent, planned = self._intent(memory.agent, wanted)
        evaluated, left = self._evaluate(memory.belief, intent, planned, inflation, noise)
        error = prediction_error(self.model, expected, checked.obs)
        novelty = self.calibration.novelty.score(error, checked.belief.features) / self.tolerance
        novelty = novelty.masked_fill(~checked.valid, torch.inf)
        familiar = checked.valid & (novelty <= self.calibration.novelty.threshold)
        verdict = torch.where(evaluated.safe & finite_rows(wanted), Verdict.ACCEPT, Verdict.FALL_BACK)
        verdict = torch.where(familiar, verdict, Verdict.REFUSE)
        decision = ShieldDecision(wanted, after_first(intent), left, verdict, evaluated.lower)
        if bool((verdict != Verdict.ACCEPT).any()):
            fallen, violation = self._fall_back(memory, verdict, checked.obs, inflation, noise)
            decision = decision.where(verdict == Verdict.ACCEPT, fallen)
            rows = (verdict == Verdict.FALL_BACK).nonzero()[:, 0]
            decision = self._repair(memory, decision, rows, intent, violation, inflation, noise)
        memory = replace(memory, sent=decision, step=memory.step + 1)
        if self.log is not None:
            write_log(self.log, explain(self.evaluator, memory.step, decision, wanted, evaluated, novelty, inflation))
        return decision.action, memory

    def _intent(self, agent: State, wanted: Tensor) -> tuple[Tensor, bool]:
        """What the agent would do without a shield: its own plan where its memory has one, else the same action again.

        `[B, F, A]`, and whether it is a plan.
        """
        plan, steps = getattr(agent, "plan", None), self.repair_planner.horizon
        held = wanted[:, None].expand(-1, steps, -1)
        if not isinstance(plan, Plan):
            return held, False
        rest = shift(plan.actions, agent.age) if hasattr(agent, "age") else plan.actions
        rest = torch.cat([wanted[:, None], rest[:, 1:steps]], 1)
        return torch.cat([rest, held[:, rest.shape[1] :]], 1), True

    def _evaluate(
        self, belief: State, intent: Tensor, planned: bool, inflation: Tensor, noise: Noise
    ) -> tuple[SafetyEvaluation, Tensor]:
        """The action followed by the fallback, or where only that is safe the agent's plan followed by the fallback.

        Also returns how many steps `[B]` follow the action before the fallback.
        """
        evaluated = self.evaluator.evaluate(belief, intent[:, :1], inflation, noise=noise)
        left = torch.zeros(len(intent), dtype=torch.long, device=intent.device)
        if planned and not bool(evaluated.safe.all()):
            whole = self.evaluator.evaluate(belief, intent, inflation, noise=noise)
            better = ~evaluated.safe & whole.safe
            return whole.where(better, evaluated), torch.where(better, self.repair_planner.horizon - 1, left)
        return evaluated, left

    def _fall_back(
        self, memory: ShieldMemory, verdict: Tensor, obs: Obs, inflation: Tensor, noise: Noise
    ) -> tuple[ShieldDecision, Tensor]:
        """The rest of the last safe plan where the model is used and steps are left, else the user's fallback.

        Also returns its violation `[B]`.
        """
        going = (verdict == Verdict.FALL_BACK) & (memory.sent.left > 0)
        rest = memory.sent.plan
        now = self.evaluator.fallback(DecodedValues.now(self.model, memory.belief, obs))
        action = torch.where(going[:, None], rest[:, 0], now)
        steps = torch.where(going, memory.sent.left, 1)
        plans = torch.cat([action[:, None], rest[:, 1:]], 1)
        evaluated = self.evaluator.evaluate_each(memory.belief, plans, steps, inflation, noise)
        return ShieldDecision(action, after_first(rest), steps - 1, verdict, evaluated.lower), evaluated.violation

    def _repair(
        self,
        memory: ShieldMemory,
        decision: ShieldDecision,
        rows: Tensor,
        intent: Tensor,
        violation: Tensor,
        inflation: Tensor,
        noise: Noise,
    ) -> ShieldDecision:
        """In `rows`, replace the fallback by the nearest safe plan, or by a plan that violates less."""
        if not len(rows):
            return decision
        seed = int(memory.seed[0]) ^ 1  # another random stream than the one the belief was sampled from
        belief, intent, inflation = memory.belief[rows], intent[rows], inflation[rows]
        plan, evaluated = self.evaluator.repair(self.repair_planner, belief, intent, inflation, seed, noise)
        verdict = torch.where(evaluated.safe, Verdict.REPAIR, Verdict.RECOVER)
        left = torch.where(evaluated.safe, self.repair_planner.horizon - 1, 0)
        found = ShieldDecision(plan.actions[:, 0], after_first(plan.actions), left, verdict, evaluated.lower)
        better = evaluated.safe | (evaluated.violation < violation[rows])
        best, source = found.where(better, decision[rows]), torch.arange(len(violation), device=rows.device)
        source[rows] = len(violation) + torch.arange(len(rows), device=rows.device)
        return ShieldDecision.cat([decision, best])[source]


def after_first(actions: Tensor) -> Tensor:
    """The actions after the first of `[B, F, A]`, zeros at the end."""
    return torch.cat([actions[:, 1:], torch.zeros_like(actions[:, :1])], 1)


def select_rows(mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Of two tensors `[B, ...]`, `one` where `mask` `[B]`, else the `other`."""
    return torch.where(mask.view(-1, *[1] * (one.ndim - 1)), one, other)


def finite_rows(rows: Tensor) -> Tensor:
    """Where all numbers of a row of `[B, ...]` are finite: bool `[B]`."""
    return rows.isfinite().reshape(len(rows), -1).all(1)


def with_action(memory: Any, action: Tensor) -> Any:
    """The wrapped agent's memory with the action that was sent, in the field `action` where it has one.

    A wrapper keeps the memory of its agent as `agent` or `inner`, and the action is set there: an action beside `inner`
    is what the wrapper itself repeats.
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


def check_same_environment(agent: DataSpec, model: DataSpec) -> None:
    """Raise `UserError` unless actions, and the keys that both observe, are the same for an agent and a model."""
    ours, theirs = agent.action, model.action
    if (ours.kind, ours.size) != (theirs.kind, theirs.size) or not same_range(ours, theirs):
        raise UserError(
            f"the agent takes {describe_actions(ours)}, but the shield's model {describe_actions(theirs)}: "
            "use a model of the agent's own environment"
        )
    for key in agent.obs.keys() & model.obs.keys():
        one, other = agent.obs[key], model.obs[key]
        if (one.kind, one.shape) != (other.kind, other.shape):
            raise UserError(
                f"the agent observes {key!r} as {one.kind} {one.shape}, but the shield's model as {other.kind} "
                f"{other.shape}: use a model of the agent's own environment"
            )


def same_range(one: ActionSpec, other: ActionSpec) -> bool:
    """Whether 1 in model units is the same; an action without a range is in model units already."""
    if one.kind == "discrete":
        return True
    mine, theirs = (torch.tensor([a.low or (-1.0,) * a.size, a.high or (1.0,) * a.size]) for a in (one, other))
    return torch.allclose(mine, theirs, rtol=ROUNDING, atol=0.0)


def describe_actions(action: ActionSpec) -> str:
    words = f"{action.size} {action.kind} actions"
    if action.low is None or action.high is None:
        return words
    return f"{words} in {' x '.join(f'[{a:g}, {b:g}]' for a, b in zip(action.low, action.high, strict=True))}"


def default_planner(model: WorldModel, horizon: int) -> Planner:
    """A search of a few steps, wide enough to find a detour."""
    steps = min(6, horizon)
    if model.spec.action.kind == "discrete":
        return PLANNERS["categorical"](horizon=steps)
    return PLANNERS["mppi"](
        horizon=steps, policy_samples=0, temperature=5.0, samples=256, elites=16, iterations=5, max_std=1.0
    )
