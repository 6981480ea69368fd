"""The promise: exchangeable scores exceed their quantile with probability alpha at most, and almost that often."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from tests.safety.worlds import RULES, SPEC, Cart, calibrated, episodes
from worldloom.data.segment import Segment
from worldloom.data.spec import KeySpec
from worldloom.errors import UserError
from worldloom.model import State
from worldloom.safety.calibration import Calibration, calibrate, miscovered, weights_hash
from worldloom.safety.conformal import conformal_quantile, episodes_needed
from worldloom.safety.forecast import Forecaster
from worldloom.safety.residuals import episode_scores, residuals
from worldloom.safety.rules import ActionLimit, Limit, Never, Predicate


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("count", [20, 99, 137])
@pytest.mark.parametrize("shape", ["normal", "cauchy", "ties"])
def test_exchangeable_scores_are_covered_as_promised(alpha: float, count: int, shape: str) -> None:
    generator = torch.Generator().manual_seed(count)
    scores = torch.randn(count + 1, 4000, generator=generator)
    if shape == "cauchy":
        scores = scores / torch.randn(count + 1, 4000, generator=generator)
    if shape == "ties":
        scores = scores.round()
    # A drift common to all rows of a column keeps them exchangeable, though no longer independent.
    scores = scores + torch.randn(1, 4000, generator=generator).mul(3).round()
    missed = (scores[-1] > conformal_quantile(scores[:-1], alpha)).float().mean().item()
    assert missed <= alpha + 0.016
    assert shape == "ties" or missed >= alpha - 1 / (count + 1) - 0.016


@pytest.mark.parametrize(("alpha", "need"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.5, 1)])
def test_too_few_scores_are_refused_and_just_enough_are_not(alpha: float, need: int) -> None:
    assert episodes_needed(alpha) == need
    scores = torch.arange(float(need))
    assert conformal_quantile(scores, alpha) == scores.max()
    with pytest.raises(UserError, match=f"needs at least {need} held-out episodes"):
        conformal_quantile(scores[1:], alpha)


@pytest.mark.parametrize("scope", ["episode", "decision"])
@pytest.mark.parametrize("model", [Cart(), Cart(bias=0.05), Cart(noise=0.02)], ids=["exact", "biased", "noisy"])
def test_new_episodes_keep_the_promise_whatever_the_model(model: Cart, scope: str) -> None:
    learned = calibrate(
        model, RULES, episodes(160), horizon=5, alpha=0.2, particles=4 if model.noise else 1, scope=scope
    )  # type: ignore[arg-type]
    rate = miscovered(learned, model, RULES, episodes(300, first=10_000)).float().mean(0)
    assert (rate < 0.2 + 0.13).all(), rate
    assert (rate > 0.2 - 0.13).all(), rate


class CartOfCosts(Cart):
    """It also says how probable it is that the cart is right of 0.1, with an edge `off` its true place."""

    def __init__(self, off: float) -> None:
        super().__init__(spec=replace(SPEC, keys={**SPEC.keys, "cost": KeySpec("flag", (), role="target")}))
        self.off = off

    @property
    def decodes(self) -> tuple[str, ...]:
        return ("state", "cost")

    def decode(self, state: State, key: str) -> Tensor:
        return (
            (20 * (state.features[..., 0] - 0.1 - self.off)).sigmoid() if key == "cost" else super().decode(state, key)
        )


def costly(count: int, first: int = 0) -> list[Segment]:
    found = episodes(count, first)
    return [replace(one, signals={**one.signals, "cost": one.obs["state"][..., 0] > 0.1}) for one in found]


@pytest.mark.parametrize("off", [0.0, 0.1])
def test_a_signal_that_must_never_be_is_foreseen_as_often_as_promised(off: float) -> None:
    model, rules = CartOfCosts(off), (Never("cost"),)
    learned = calibrate(model, rules, costly(160), horizon=5, alpha=0.2, alpha_ood=0.05)
    rate = miscovered(learned, model, rules, costly(300, first=10_000)).float().mean(0)
    assert (rate < 0.2 + 0.13).all(), rate
    assert (rate > 0.2 - 0.13).all(), rate
    refused_from = (-learned.slack(torch.zeros(5, 1))).sigmoid()
    assert (refused_from < 0.5).all()
    assert (refused_from > 1e-3).all(), "some plans are left to accept"


def test_a_wrong_model_pays_with_wider_bounds() -> None:
    exact, biased = (torch.tensor(calibrated(Cart(bias=b)).quantile) for b in (0.0, 0.1))
    scales = [torch.tensor(calibrated(Cart(bias=b)).scale)[:, 0] for b in (0.0, 0.1)]
    assert (biased * scales[1] > exact * scales[0]).all()


def test_a_calibration_is_the_same_after_saving(tmp_path: Path) -> None:
    model = Cart()
    learned = calibrated(model)
    learned.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json", model, RULES)
    assert again.quantile == learned.quantile
    spread = torch.rand(2, 8, 1)
    assert torch.equal(again.slack(spread), learned.slack(spread))
    novelty_inputs = torch.rand(5, 2), torch.rand(5, 2)
    torch.testing.assert_close(again.novelty.score(*novelty_inputs), learned.novelty.score(*novelty_inputs))


def test_it_carries_the_hash_of_the_checkpoint() -> None:
    model = Cart()
    assert weights_hash(model) == hashlib.sha256(save(model.state_dict())).hexdigest()
    assert calibrated(model).checkpoint == weights_hash(model)


def test_it_is_refused_for_another_model_other_rules_and_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    calibrated(Cart()).save(path)
    with pytest.raises(UserError, match="made for the checkpoint"):
        Calibration.load(path, Cart(bias=0.1), RULES)
    with pytest.raises(UserError, match="other rules"):
        Calibration.load(path, Cart(), (Limit("state", 0, high=2.0),))
    with pytest.raises(UserError, match="other rules"):  # the same name does not make it the same rule
        Calibration.load(path, Cart(), (Limit("state", 0, high=2.0, label=RULES[0].name),))
    content = json.loads(path.read_text())
    del content["quantile"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was changed after it was written"):
        Calibration.load(path, Cart(), RULES)
    path.write_text("{}")
    with pytest.raises(UserError, match="no calibration"):
        Calibration.load(path, Cart(), RULES)
    path.write_text("{")
    with pytest.raises(UserError, match="no calibration"):
        Calibration.load(path, Cart(), RULES)
    with pytest.raises(UserError, match="cannot be read"):
        Calibration.load(tmp_path / "none.json", Cart(), RULES)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha_ood": 2.0}, "alpha_ood is 2.0"),
        ({"episodes": []}, "the calibration set is empty"),
        ({"alpha": 0.01}, "needs at least 100 held-out episodes"),
        ({"horizon": 0}, "the horizon of the calibration is 0"),
        ({"horizon": 500}, "the longest held-out episode has 29"),
        ({"particles": 0}, "particles is 0"),
        ({"rules": ()}, "no rules"),
        ({"rules": (Limit("speed", 0, high=1),)}, "unknown key 'speed'"),
        ({"model": Cart(broken=True)}, "not finite"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(changed: dict[str, object], words: str) -> None:
    given = {"model": Cart(), "rules": RULES, "episodes": episodes(30), "horizon": 5, "alpha": 0.1, "alpha_ood": 0.1}
    given |= changed
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        calibrate(given.pop("model"), given.pop("rules"), given.pop("episodes"), **given)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_what_a_model_samples_follows_from_the_seed_and_from_nobody_elses_random_numbers() -> None:
    model = Cart(noise=0.02)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = calibrated(model, particles=4, seed=1)
    missing = miscovered(first, model, RULES, episodes(60, first=500), seed=2)
    assert torch.equal(torch.rand(4), expected)
    again = calibrated(model, particles=4, seed=1)
    assert (again.quantile, again.scale) == (first.quantile, first.scale)
    assert torch.equal(miscovered(first, model, RULES, episodes(60, first=500), seed=2), missing)
    assert calibrated(model, particles=4, seed=2).quantile != first.quantile


def test_episodes_of_different_lengths_score_as_each_would_alone() -> None:
    """So nothing beyond an episode's end counts, neither the padding nor its last row again and again."""
    forecaster, generator = Forecaster(Cart(bias=0.05), RULES), torch.Generator()
    given = [segment[:, :rows] for segment, rows in zip(episodes(4), (9, 4, 6, 2), strict=True)]

    def scores(some: list[Segment]) -> torch.Tensor:
        with torch.no_grad():
            return episode_scores(residuals(forecaster, some, 5), torch.ones_like, True, generator)

    together = scores(given)
    torch.testing.assert_close(together, torch.cat([scores([segment]) for segment in given]))
    reached = torch.tensor([[rows > step for step in range(1, 6)] for rows in (9, 4, 6, 2)])
    assert torch.equal(together.isfinite(), reached)


def test_a_rule_about_the_action_alone_is_known_exactly() -> None:
    rules = (*RULES, ActionLimit(0, high=3.0), Predicate("gentle", lambda _, action: 2 - action.abs()[..., 0]))
    learned = calibrate(Cart(noise=0.1), rules, episodes(60), horizon=4, alpha=0.1, alpha_ood=0.1, particles=3)
    assert torch.equal(learned.slack(torch.rand(2, 4, 3))[..., 1:], torch.zeros(2, 4, 2))
    assert (learned.slack(torch.rand(2, 4, 3))[..., 0] > 0).all()
