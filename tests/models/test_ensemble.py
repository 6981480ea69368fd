"""Several members as one model. B batch, T time, K members."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import toy
from tests.models.conformance import FamilyConformance
from tests.models.segments import SPECS, random_segment
from worldloom.conformance import assert_close, check_world_model
from worldloom.data.segment import Segment
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.models import build
from worldloom.models.ensemble import Ensemble, EnsembleState
from worldloom.noise import seeded_generators

TINY = {"deter": 32, "hidden": 16, "stoch": 4, "classes": 4, "units": 16, "depth": 8}


class TestEnsembleOfRSSM(FamilyConformance):
    overfit_steps = 25  # what an update does is tested with the member alone

    def make(self, data: str) -> WorldModel:
        return build("ensemble", SPECS[data], "debug", members=2, hyperparameters=TINY)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register_toy(monkeypatch)


def ensemble(member: str = "toy", data: str = "vector", **config: object) -> Ensemble:
    torch.manual_seed(0)
    made = build("ensemble", SPECS[data], "debug", member=member, **config)
    assert isinstance(made, Ensemble)
    return made


def values(model: WorldModel, segment: Segment) -> list[Tensor]:
    """Everything a model says about a segment, its gradients among it."""

    def ask() -> list[Tensor]:
        belief = model.track(segment.obs, segment.action)
        imagined = model.imagine(belief[:, 0], segment.action)
        terms = model.loss(segment)
        model.zero_grad()
        torch.stack([v.mean() for k, v in terms.items() if k != "common"]).sum().backward()
        read = [model.decode(s, k) for s in (belief, imagined) for k in model.decodes if k != "disagreement"]
        return [*read, *(v for k, v in terms.items() if k != "common"), belief.features]

    with seeded_generators(0, torch.device("cpu")):
        return ask()


@pytest.mark.parametrize("data", ["image", "vector"])
def test_an_ensemble_of_tdmpc_keeps_the_contract(data: str) -> None:
    check_world_model(ensemble("tdmpc", data, members=2, batched=True), random_segment(SPECS[data]), overfit_steps=25)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("member", ["toy", "rssm", "tdmpc"])
def test_one_member_alone_is_that_member(member: str, batched: bool) -> None:
    one, segment = ensemble(member, members=1, batched=batched), random_segment(SPECS["vector"])
    alone = one.member(0)
    assert_close(values(one, segment), values(alone, segment), "an ensemble of one is not its member")
    for name, parameter in alone.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(one.members.get_parameter(name).grad[0], parameter.grad)


@pytest.mark.parametrize(
    ("member", "data"), [("toy", "image"), ("rssm", "image"), ("rssm", "vector"), ("tdmpc", "vector")]
)
def test_one_pass_and_turns_give_the_same_numbers(member: str, data: str) -> None:
    together, segment = ensemble(member, data, members=3, batched=True), random_segment(SPECS[data])
    in_turns = ensemble(member, data, members=3, batched=False)
    in_turns.load_state_dict(together.state_dict())
    assert_close(values(together, segment), values(in_turns, segment), "one pass differs from turns")


def test_what_is_decoded_is_the_mean_of_the_members() -> None:
    made, segment = ensemble(members=3), random_segment(SPECS["vector"])
    belief = made.track(segment.obs, segment.action)
    for key in ("state", "reward"):
        single = [m.decode(m.track(segment.obs, segment.action), key) for m in map(made.member, range(3))]
        torch.testing.assert_close(made.decode(belief, key), torch.stack(single).mean(0))
        torch.testing.assert_close(made.disagreement(belief, key), torch.stack(single).std(0, correction=0))


@pytest.mark.parametrize("member", ["toy", "rssm"])
def test_identical_members_agree_exactly_even_where_they_draw(member: str) -> None:
    single = build(member, SPECS["vector"], "debug")
    made, segment = Ensemble.of([single, copy.deepcopy(single), copy.deepcopy(single)]), random_segment(SPECS["vector"])
    made.readout.weight.data[:] = made.readout.weight.data[:1]
    belief = made.imagine(made.start({k: v[:, 0] for k, v in segment.obs.items()}), segment.action)
    assert made.decode(belief, "disagreement").max() < 1e-5
    assert made.disagreement(belief, "state").max() < 1e-5
    apart = ensemble(member, members=3)
    belief = apart.imagine(apart.start({k: v[:, 0] for k, v in segment.obs.items()}), segment.action)
    assert apart.decode(belief, "disagreement").min() > 0.01
    assert apart.disagreement(belief, "state").min() > 1e-4


def test_training_together_is_training_each_alone() -> None:
    made, segment = ensemble("rssm", members=2, hyperparameters=TINY), random_segment(SPECS["vector"])
    singles = [made.member(0), made.member(1)]
    for model in (made, *singles):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-12)
        for step in range(3):
            torch.manual_seed(step)
            terms = model(segment)
            optimizer.zero_grad()
            torch.stack([model.loss_weights[k] * v.mean() for k, v in terms.items()]).sum().backward()
            optimizer.step()
    for number, single in enumerate(singles):
        trained = dict(made.member(number).named_parameters())
        for name, parameter in single.named_parameters():
            torch.testing.assert_close(trained[name], parameter, rtol=1e-3, atol=1e-4, msg=name)


def test_the_slow_copies_of_the_members_follow_their_own_values() -> None:
    made, segment = ensemble("tdmpc", members=2), random_segment(SPECS["vector"])
    made.members.value.output.data.normal_()
    before = made.members.slow_value.output.detach().clone()
    made.after_update()
    rate = made.member(0).config.slow_rate
    moved = before + rate * (made.members.value.output - before)
    torch.testing.assert_close(made.members.slow_value.output, moved)
    assert not made.members.slow_value.output.requires_grad
    assert set(made.loss(segment)) == set(made.loss_weights)


def pushed(batch: int, push: float) -> Segment:
    """Walks whose steps lean to one side; what is seen is where they are."""
    segment = random_segment(SPECS["vector"], batch=batch, time=5, seed=int(torch.randint(10**6, ())))
    action = (0.5 * segment.action + push).clamp(-1, 1)
    path = torch.nn.functional.pad(action.cumsum(1)[:, :-1], (0, 0, 1, 0))
    seen = {"state": 1 + torch.cat([path, path[..., :2].square()], -1)}
    return Segment(seen, action, {**segment.signals, "reward": path[..., 0]}, segment.mask)


def test_members_disagree_more_where_they_have_not_learned() -> None:
    made = ensemble("toy", members=4, batched=False)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(80):
        terms = made(pushed(16, -0.5))
        optimizer.zero_grad()
        torch.stack([made.loss_weights[k] * v.mean() for k, v in terms.items()]).sum().backward()
        optimizer.step()
    with torch.no_grad():
        known, strange = (foreseen(made, pushed(64, push)) for push in (-0.5, 0.5))
        assert made.decode(strange, "disagreement").mean() > 1.5 * made.decode(known, "disagreement").mean()
        for key in ("reward", "state"):
            assert made.disagreement(strange, key).mean() > 2 * made.disagreement(known, key).mean(), key


def foreseen(made: Ensemble, segment: Segment) -> EnsembleState:
    return made.predict(made.track(segment.obs, segment.action)[:, 3], segment.action[:, 3])


@pytest.mark.parametrize("planner", ["mppi", "cem", "gradient"])
def test_planners_run_on_an_ensemble(planner: str) -> None:
    from worldloom.planners import PLANNERS
    from worldloom.planners.objectives import Return
    from worldloom.planners.planner import Problem

    made, segment = ensemble("rssm", members=2, hyperparameters=TINY), random_segment(SPECS["vector"])
    state = made.start({k: v[:, 0] for k, v in segment.obs.items()})
    plan = PLANNERS[planner](horizon=3).plan(Problem(made, state, Return()))
    assert plan.actions.shape == (3, 3, 3)
    assert plan.found.all()


def test_it_trains_and_loads_like_any_family(tmp_path: Path) -> None:
    from worldloom.cli import run
    from worldloom.runs.checkpoint import load

    data = toy.write_toy_dataset(tmp_path / "data", episodes=4)
    words = ["train", "ensemble", str(data), "--out", str(tmp_path / "run"), "--size", "debug", "--steps", "2"]
    words += ["--batch-size", "2", "--length", "8", "--image-size", "16", "--preview-every", "0"]
    run("train", [*words[1:], "--set", "members=2", "--set", "member=toy", "--set", 'hyperparameters={"hidden": 8}'])
    model, found = load(tmp_path / "run")
    assert isinstance(model, Ensemble)
    assert found.config["hyperparameters"] == {"hidden": 8, "noise": 0.0, "ignore_actions": False}
    assert model.members.transition.weight_hh.shape == (2, 24, 8)


def test_impossible_ensembles_are_named() -> None:
    with pytest.raises(UserError, match="hyperparameter members of family 'ensemble' is 0"):
        ensemble(members=0)
    with pytest.raises(UserError, match="single models"):
        ensemble("ensemble")
    with pytest.raises(UserError, match="Did you mean 'rssm'"):
        ensemble("rsmm")
    with pytest.raises(UserError, match="Did you mean 'deter'"):
        ensemble("rssm", hyperparameters={"detr": 3})
    with pytest.raises(UserError, match="models of one family"):
        Ensemble.of([build("rssm", SPECS["vector"], "debug"), build("tdmpc", SPECS["vector"], "debug")])
    with pytest.raises(UserError, match="models of one family"):
        Ensemble.of([])
    made = ensemble(members=2)
    with pytest.raises(UserError, match="can't decode 'cost'"):
        made.decode(made.start({"state": torch.zeros(1, 5)}), "cost")
    with pytest.raises(UserError, match="can't decode 'disagreement'"):
        made.disagreement(made.start({"state": torch.zeros(1, 5)}), "disagreement")
