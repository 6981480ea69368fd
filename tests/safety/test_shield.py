"""A shield keeps the rules, leaves the rest alone, says why, and is an agent whose memory is a value."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from tests.safety.worlds import RULES, SPEC, Cart, Pusher, brake, calibrated, drive, episodes, look, step
from worldloom.agents.agent import Agent
from worldloom.agents.repeat import Repeat
from worldloom.agents.scripted import Scripted
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import UserError
from worldloom.model import Obs, State
from worldloom.noise import NOISE
from worldloom.planners.mppi import MPPI
from worldloom.safety.calibration import Calibration, calibrate
from worldloom.safety.decision import ShieldDecision
from worldloom.safety.decision_log import VERDICTS, read_log, write_log
from worldloom.safety.rules import Predicate
from worldloom.safety.shield import Shield, ShieldMemory, Verdict

SEARCH = MPPI(horizon=3, samples=32, elites=8, iterations=3, policy_samples=0)


def shield(model: Cart | None = None, push: float = 1.0, **options: object) -> Shield:
    model = model or Cart()
    calibration = options.pop("calibration", None) or calibrated(model)
    given = {"fallback": brake, "planner": SEARCH, **options}
    return Shield(Pusher(push), model, RULES, calibration, **given)  # type: ignore[arg-type]


def credulous(calibration: Calibration) -> Calibration:
    """The same, but nothing is ever strange to it."""
    return replace(calibration, novelty=replace(calibration.novelty, threshold=float("inf")))


def verdicts(memories: list[object]) -> torch.Tensor:
    """`[B, T]`"""
    return torch.stack([memory.sent.verdict for memory in memories], 1)  # type: ignore[attr-defined]


def test_it_keeps_a_rule_that_the_agent_breaks() -> None:
    unshielded, _ = drive(Pusher())
    shielded, memories = drive(shield())
    assert (unshielded > 1).any(1).all()
    assert (shielded <= 1).all()
    assert {Verdict.ACCEPT, Verdict.REPAIR} <= set(verdicts(memories).unique().tolist())


def test_it_leaves_a_safe_agent_alone() -> None:
    places, memories = drive(shield(push=-0.1), steps=10)
    alone, _ = drive(Pusher(-0.1), steps=10)
    assert torch.equal(places, alone)
    assert (verdicts(memories) == Verdict.ACCEPT).all()


def test_no_action_judged_unsafe_is_sent_where_a_safe_one_was_found() -> None:
    _, memories = drive(shield(Cart(noise=0.01), calibration=None), steps=60, batch=6)
    for memory in memories:
        safe = (memory.sent.lower >= 0).flatten(1).all(1)
        claimed = (memory.sent.verdict == Verdict.ACCEPT) | (memory.sent.verdict == Verdict.REPAIR)
        assert torch.equal(safe[claimed], torch.ones_like(safe[claimed]))
        refused = memory.sent.verdict == Verdict.RECOVER
        assert not safe[refused].any()


def test_it_stays_safe_where_actions_are_weaker_than_the_model_thinks() -> None:
    places, _ = drive(shield(), strength=0.6, steps=60)
    assert (places <= 1).all()


def test_bounds_are_widened_while_forecasts_turn_out_too_good() -> None:
    """Actions are stronger than the model thinks, so that the wall comes nearer than it foresees."""
    trusting = credulous(calibrated(Cart()))
    places, memories = drive(shield(calibration=trusting), strength=1.5, steps=60)
    alone, _ = drive(shield(calibration=trusting, adapt=False), strength=1.5, steps=60)
    assert max(float(memory.online_calibration.inflation.max()) for memory in memories) > 1
    assert places.max() < alone.max()
    steady = [float(memory.online_calibration.inflation.max()) for memory in drive(shield(push=-0.1), steps=10)[1]]
    assert steady == [1.0] * 10, "a model that is right is believed"


def test_without_a_planner_that_finds_anything_the_fallback_is_sent() -> None:
    useless = MPPI(horizon=1, samples=4, elites=1, iterations=1, policy_samples=0, max_std=1e-6, min_std=1e-7)
    places, memories = drive(shield(planner=useless))
    assert (places <= 1).all()
    assert (verdicts(memories) == Verdict.FALL_BACK).any()


def test_a_plan_that_was_found_safe_is_gone_on_with() -> None:
    made = shield()
    _, memory = made.start(look(torch.tensor([[0.0, 0.0]])))
    plan = torch.tensor([[[-0.25], [-0.5], [0.0]]])
    sent = ShieldDecision(memory.sent.action, plan, torch.tensor([2]), memory.sent.verdict, memory.sent.lower)
    before = replace(memory, sent=sent)
    verdict, obs = torch.tensor([int(Verdict.FALL_BACK)]), look(torch.tensor([[0.5, 1.0]]))
    decision, _ = made._fall_back(before, verdict, obs, torch.ones(1), NOISE)
    assert decision.action.item() == -0.25
    assert decision.left.item() == 1
    assert decision.plan[0, 0].item() == -0.5


def test_bounds_are_those_of_what_will_be_done_however_much_of_its_plan_a_row_has_left() -> None:
    made, place = shield(), torch.tensor([[0.5, 1.0], [0.4, 0.8], [0.3, 0.6], [0.2, 0.4]])
    _, memory = made.start(look(place))
    plan = torch.tensor([[-0.25], [-0.5], [0.9]]).expand(4, 3, 1)
    sent = ShieldDecision(memory.sent.action, plan, torch.tensor([2, 1, 0, 2]), memory.sent.verdict, memory.sent.lower)
    verdict = torch.tensor([Verdict.FALL_BACK] * 3 + [Verdict.REFUSE])
    decision, violation = made._fall_back(replace(memory, sent=sent), verdict, look(place), torch.ones(4), NOISE)
    assert decision.left.tolist() == [1, 0, 0, 0]
    for row, steps in enumerate((2, 1, 0, 0)):
        own = plan[row : row + 1, :steps] if steps else brake(look(place[row : row + 1]))[:, None]
        alone = made.evaluator.evaluate(memory.belief[row : row + 1], own, torch.ones(1))
        torch.testing.assert_close(decision.lower[row], alone.lower[0])
        torch.testing.assert_close(violation[row], alone.violation[0])


def test_only_a_plan_that_was_found_safe_is_to_be_gone_on_with() -> None:
    made = shield(calibration=credulous(calibrated(Cart())))
    places = torch.tensor([[0.0, 0.0], [0.7, 0.8], [1.3, 0.0]])
    _, memory = made.start(look(places))
    assert memory.sent.verdict.tolist() == [Verdict.ACCEPT, Verdict.REPAIR, Verdict.RECOVER]
    assert memory.sent.left.tolist() == [0, made.repair_planner.horizon - 1, 0]


def test_it_recovers_from_where_no_bound_can_be_kept() -> None:
    made = shield(push=0.0, calibration=credulous(calibrated(Cart())))
    place, memory = torch.tensor([[1.3, 0.0]]), None
    for _ in range(30):
        action, memory = made.start(look(place)) if memory is None else made.act(memory, look(place))
        place = step(place, action)
    assert place[0, 0] < 1, "the fallback alone would have stood still inside the forbidden region"


def test_an_observation_unlike_the_calibration_is_refused_as_such(tmp_path: Path) -> None:
    made = shield(push=-0.1, log=tmp_path / "log.jsonl")
    _, memory = made.start(look(torch.tensor([[0.0, 0.0], [0.0, 0.0]])))
    teleported = torch.tensor([[0.0, -0.04], [-5.0, 3.0]])
    action, memory = made.act(memory, look(teleported))
    assert memory.sent.verdict.tolist() == [Verdict.ACCEPT, Verdict.REFUSE]
    assert action[1].item() == -1.0, "the fallback brakes"
    assert "unlike those of the calibration" in read_log(tmp_path / "log.jsonl")[-1]["reason"]


def with_one_look_spoilt(made: Shield, value: float, missing: tuple[int, ...]) -> list[int]:
    """The verdicts of an episode in which something reads `value` at some steps."""
    place, memory, given = torch.tensor([[0.5, 0.05]]), None, []
    for time in range(20):
        shown = look(torch.tensor([[0.5, value]]) if time in missing else place)
        action, memory = made.start(shown) if memory is None else made.act(memory, shown)
        if time in missing:
            expected = brake({"state": place}) if missing[0] else torch.zeros(1, 1)
            torch.testing.assert_close(action, expected, rtol=0.02, atol=1e-3)
        assert memory.online_calibration.inflation.item() == 1
        given.append(int(memory.sent.verdict))
        place = step(place, action)
    return given


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("missing", [(0,), (0, 1), (4,), (8,), (8, 9)])
@pytest.mark.parametrize("tolerance", [1.0, torch.inf])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_look_that_is_not_a_number_is_refused(
    value: float, missing: tuple[int, ...], recurrent: bool, tolerance: float
) -> None:
    """The prediction stands for what was not seen, and once there is something to see again all is as it was."""
    given = with_one_look_spoilt(shield(Cart(recurrent=recurrent), push=-0.1, tolerance=tolerance), value, missing)
    assert {given[time] for time in missing} == {Verdict.REFUSE}
    # Without a first look nothing can be predicted, so the next one is a surprise to who is not tolerant.
    again = missing[-1] + 1 + (missing[0] == 0 and tolerance == 1)
    assert set(given[: missing[0]] + given[again:]) == {Verdict.ACCEPT}


def test_a_look_that_a_belief_cannot_hold_is_as_good_as_none() -> None:
    given = with_one_look_spoilt(shield(Cart(recurrent=True), push=-0.1), 3e38, (4,))
    assert [time for time, verdict in enumerate(given) if verdict == Verdict.REFUSE] == [4]


def test_what_no_rule_reads_must_be_numbers_too() -> None:
    spec = SPEC.with_obs({**SPEC.obs, "wind": KeySpec("vector", (1,))})
    agent = Scripted(spec, lambda obs: -0.1 + obs["wind"])
    made = Shield(agent, Cart(spec=spec), RULES, credulous(calibrated(Cart())), brake, SEARCH)
    _, memory = made.start({**look(torch.zeros(2, 2)), "wind": torch.tensor([[0.0], [torch.nan]])})
    assert memory.sent.verdict.tolist() == [Verdict.ACCEPT, Verdict.REFUSE]


def test_only_the_row_that_is_not_a_number_is_refused_and_agents_are_shown_numbers() -> None:
    def agent(obs: Obs) -> torch.Tensor:
        assert obs["state"].isfinite().all()
        return -0.1 * torch.ones(len(obs["state"]), 1)

    made = replace(shield(calibration=credulous(calibrated(Cart()))), agent=Scripted(SPEC, agent))
    for first in (torch.tensor([[0.0, 0.0], [0.0, torch.nan]]), torch.zeros(2, 2)):
        _, memory = made.start(look(first))
        _, memory = made.act(memory, look(torch.tensor([[0.0, -0.04], [torch.nan, 0.0]])))
        assert memory.sent.verdict.tolist() == [Verdict.ACCEPT, Verdict.REFUSE]


def test_an_agent_that_wants_no_number_gets_its_way_never() -> None:
    blind = (Predicate("left of the wall", lambda values, _: ~(values["state"][..., 0] > 1), ("state",)),)
    learned = calibrate(Cart(), blind, episodes(60), horizon=4, alpha=0.1, alpha_ood=0.05)
    made = Shield(Pusher(torch.nan), Cart(), blind, learned, brake, SEARCH)
    for memory in drive(made, steps=5)[1]:
        assert memory.sent.action.isfinite().all()
        assert not (memory.sent.verdict == Verdict.ACCEPT).any()


def test_a_fallback_that_is_not_a_number_is_no_push() -> None:
    made = shield(fallback=lambda values: values["state"][:, :1] * torch.nan)
    action, memory = made.start(look(torch.tensor([[-5.0, 3.0]])))
    assert memory.sent.verdict.tolist() == [Verdict.REFUSE]
    assert action.tolist() == [[0.0]]


def test_memory_is_a_value() -> None:
    made = shield()
    _, memory = made.start(look(torch.zeros(3, 2)))
    before = [leaf.clone() for leaf in tree_leaves(memory)]
    one, after = made.act(memory, look(torch.full((3, 2), 0.5)))
    again, _ = made.act(memory, look(torch.full((3, 2), 0.5)))
    assert torch.equal(one, again)
    assert all(torch.equal(old, new) for old, new in zip(before, tree_leaves(memory), strict=True))
    alone, _ = made.act(memory[torch.tensor([1])], look(torch.full((1, 2), 0.5)))
    assert alone.shape == (1, 1)
    assert after.shape == (3,)


@dataclass(frozen=True)
class Listener(Agent):
    """Acts as `agent` does and writes down each action that its memory then says was sent."""

    agent: Agent
    heard: list[float] = field(default_factory=list)
    spec: DataSpec = SPEC

    def start(self, obs: Obs, seed: int = 0) -> tuple[torch.Tensor, State]:
        return self.agent.start(obs, seed)

    def act(self, memory: State, obs: Obs) -> tuple[torch.Tensor, State]:
        self.heard.append(memory.action.item())  # type: ignore[attr-defined]
        return self.agent.act(memory, obs)


def test_the_wrapped_agent_is_told_what_was_sent() -> None:
    listener = Listener(Pusher())
    _, memories = drive(replace(shield(), agent=listener), steps=25, batch=1)
    sent = [memory.sent.action.item() for memory in memories]
    assert listener.heard == sent[:-1]
    assert min(sent) < 1, "the agent wants 1 every time, so something else was sent"


def test_a_repeated_action_stays_the_agents_own_and_only_the_agent_is_told_what_was_sent() -> None:
    listener = Listener(Pusher())
    _, memories = drive(replace(shield(), agent=Repeat(listener, 2)), steps=25, batch=1)
    sent = [memory.sent.action.item() for memory in memories]
    assert listener.heard == sent[1:-1:2]
    assert min(sent) < 1
    assert {memory.agent.action.item() for memory in memories} == {1.0}, "what it goes on to ask for"


def episode(made: Shield, seed: int) -> torch.Tensor:
    place, memory, sent = torch.zeros(1, 2), None, []
    for _ in range(15):
        action, memory = made.start(look(place), seed) if memory is None else made.act(memory, look(place))
        place = step(place, action)
        sent.append(action)
    return torch.cat(sent)


def test_an_episode_follows_from_its_seed_and_from_nobody_elses_random_numbers() -> None:
    model = Cart(noise=0.02)
    made = shield(model, calibration=calibrated(model, particles=4))
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = episode(made, 5)
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(episode(made, 5), first)
    assert not torch.equal(episode(made, 6), first)


def test_a_shield_can_be_shielded() -> None:
    inner = shield()
    outer = Shield(inner, inner.model, RULES, inner.calibration, brake, SEARCH)
    places, memories = drive(outer)
    assert (places <= 1).all()
    assert isinstance(memories[-1].agent, ShieldMemory)


def test_every_decision_is_a_line_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    drive(shield(log=path), steps=25, batch=2)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e["step"], e["row"]) for e in entries] == [(t, b) for t in range(25) for b in range(2)]
    assert {e["verdict"] for e in entries} <= set(VERDICTS)
    repaired = next(e for e in entries if e["verdict"] == "repair")
    assert "'the wall' may be down to" in repaired["reason"]
    assert min(repaired["counterexample"]["bounds"]["the wall"]) < 0
    assert len(repaired["counterexample"]["values"]["state"]) == 8
    assert repaired["bound"] >= 0


def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_log(path, [{"step": 1}])
    with path.open("a") as file:
        file.write('{"step": 2, "ver')
    write_log(path, [{"step": 3}])
    assert read_log(path) == [{"step": 1}, {"step": 3}]


def test_a_log_that_cannot_be_written_stops_the_shield(tmp_path: Path) -> None:
    made = shield(log=tmp_path / "none" / "log.jsonl")
    with pytest.raises(UserError, match="no action is sent"):
        made.start(look(torch.zeros(1, 2)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fallback": (0.0, 0.0)}, "the fallback has 2 numbers, but the action has 1"),
        ({"fallback": (3.0,)}, "must lie in [-1, 1]"),
        ({"planner": MPPI(horizon=20)}, "the planner's horizon is 20 steps"),
        ({"model": Cart(bias=0.5)}, "made for the checkpoint"),
        ({"agent": Pusher(spec=replace(SPEC, action=ActionSpec("discrete", 3)))}, "3 discrete actions"),
        (
            {"agent": Pusher(spec=replace(SPEC, action=ActionSpec("continuous", 1, low=(-1.0,), high=(1.0,))))},
            "1 continuous actions in [-1, 1], but the shield's model 1 continuous actions in [-4, 4]",
        ),
        (
            {"agent": Pusher(spec=replace(SPEC, action=ActionSpec("continuous", 1)))},
            "1 continuous actions, but the shield's model 1 continuous actions in [-4, 4]",
        ),
        (
            {"agent": Pusher(spec=SPEC.with_obs({"state": KeySpec("vector", (3,))}))},
            "'state' as vector (3,), but the shield's model as vector (2,)",
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changed: dict[str, object], words: str) -> None:
    given = {"agent": Pusher(), "model": Cart(), "rules": RULES, "calibration": calibrated(Cart()), "fallback": brake}
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        Shield(**given | changed)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_ranges_that_differ_by_rounding_are_the_same() -> None:
    nearly = ActionSpec("continuous", 1, low=(-4.00001,), high=(3.99999,))
    assert replace(shield(), agent=Pusher(spec=replace(SPEC, action=nearly))).spec.action == nearly


def test_a_fallback_function_of_the_wrong_shape_is_named() -> None:
    made = shield(fallback=lambda values: values["state"])
    with pytest.raises(UserError, match="the fallback returned"):
        made.start(look(torch.zeros(2, 2)))
