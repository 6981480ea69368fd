"""Planted models get the card they deserve: one that knows the world, one that stands still, one that is deaf."""

import json
from typing import Any

import numpy as np
import pytest

from tests.evaluation.worlds import BareState, LinearModel, PlaceState, judge_linear, linear_dataset, linear_spec
from worldloom.errors import UserError
from worldloom.noise import NOISE, Noise


@pytest.fixture(scope="module")
def perfect() -> Any:
    return judge_linear(LinearModel(linear_spec()), linear_dataset(linear_spec(), 20))


def metric(judged: Any, name: str, key: str) -> Any:
    return judged.card.measured.metrics[name][key]


def test_a_model_that_knows_the_world_gets_the_best_of_everything(perfect: Any):
    for k in (1, 5, 15):
        assert metric(perfect, "skill", f"state@{k}").value == pytest.approx(1, abs=1e-6)
        # Pictures are stored in 256 steps, which is all that is wrong with them.
        assert metric(perfect, "skill", f"image@{k}").value > 0.995
        assert metric(perfect, "psnr", f"image@{k}").value > 55
        assert metric(perfect, "ssim", f"image@{k}").value > 0.99
        assert metric(perfect, "controllability", f"image@{k}").low > 10
        assert metric(perfect, "reward_r2", f"open_loop@{k}").value == pytest.approx(1)
        assert metric(perfect, "terminated_auroc", f"open_loop@{k}").value == 1
        assert metric(perfect, "terminated_ece", f"open_loop@{k}").value == 0
    assert metric(perfect, "useful_horizon", "image").value == 15
    assert metric(perfect, "reward_r2", "tracked").value == pytest.approx(1)
    assert metric(perfect, "terminated_auroc", "tracked").value == 1
    assert metric(perfect, "loss_ratio", "total").value > 100
    assert metric(perfect, "return_bias", "open_loop@15").value == pytest.approx(0, abs=1e-5)
    assert metric(perfect, "return_spearman", "open_loop@15").value == pytest.approx(1)


def test_each_variable_is_judged_by_its_name(perfect: Any):
    assert metric(perfect, "skill", "state.x@5").value == pytest.approx(1, abs=1e-6)
    assert metric(perfect, "skill", "state.y@5").value == pytest.approx(1, abs=1e-6)


def test_each_variable_of_a_baseline_is_judged_by_its_name(perfect: Any):
    baselines = perfect.card.measured.baselines
    for k in (1, 5, 15):
        variables = {name: [baselines[name]["skill"][f"state.{v}@{k}"].value for v in "xy"] for name in baselines}
        assert variables["persistence"] == [0, 0]
        assert min(variables["linear"]) > 0.999
        # Both variables have one standard deviation, so that the skill of all lies between theirs.
        whole = baselines["mean"]["skill"][f"state@{k}"].value
        assert min(variables["mean"]) <= whole <= max(variables["mean"]) < 0.95


def test_the_latent_forecast_of_a_model_that_knows_the_world_is_what_it_tracks_later(perfect: Any):
    for k in (1, 5, 15):
        found = metric(perfect, "skill", f"latent@{k}")
        assert found.value == pytest.approx(1, abs=1e-6)
        # The belief of this world is its state, so that both keys measure the same thing.
        assert found.value == pytest.approx(metric(perfect, "skill", f"state@{k}").value, abs=1e-6)
        assert found.low is not None


def test_latent_skill_is_that_of_the_state_where_the_belief_is_the_state():
    judged = judge_linear(LinearModel(linear_spec(), deaf=True), linear_dataset(linear_spec()))
    for k in (1, 5, 15):
        found, state = metric(judged, "skill", f"latent@{k}"), metric(judged, "skill", f"state@{k}")
        assert found.value == pytest.approx(state.value, abs=1e-5)
        assert (found.low, found.high) == pytest.approx((state.low, state.high), abs=1e-5)
        assert found.value < 0.9


def test_a_belief_that_stands_still_while_it_is_imagined_has_no_latent_skill():
    judged = judge_linear(LinearModel(linear_spec(), frozen=True), linear_dataset(linear_spec()))
    assert metric(judged, "skill", "latent@5").value == 0


def test_dreams_are_averaged_before_the_latent_error_is_taken():
    model, data = LinearModel(linear_spec(), noise=0.1), linear_dataset(linear_spec())
    one, many = (judge_linear(model, data, samples=samples) for samples in (1, 16))
    assert metric(many, "skill", "latent@5").value > metric(one, "skill", "latent@5").value + 0.01


def test_a_model_that_ignores_the_world_can_have_perfect_latent_skill():
    class Clock(LinearModel):
        """Its belief counts rows and nothing else: perfectly foreseen and perfectly useless."""

        def start(self, obs: Any, noise: Noise = NOISE) -> PlaceState:
            return PlaceState(obs["state"] * 0)

        def observe(self, state: Any, action: Any, obs: Any, noise: Noise = NOISE) -> PlaceState:
            return PlaceState(state.features + 1)

        def predict(self, state: Any, action: Any, noise: Noise = NOISE) -> PlaceState:
            return PlaceState(state.features + 1)

    judged = judge_linear(Clock(linear_spec()), linear_dataset(linear_spec()))
    assert metric(judged, "skill", "latent@5").value == 1
    assert metric(judged, "skill", "state@5").value < 0


def test_a_belief_of_pure_noise_is_flattered_as_the_docs_warn():
    class Clueless(LinearModel):
        def start(self, obs: Any, noise: Noise = NOISE) -> PlaceState:
            return PlaceState(noise.normal(obs["state"].shape, obs["state"]))

        def observe(self, state: Any, action: Any, obs: Any, noise: Noise = NOISE) -> PlaceState:
            return self.start(obs, noise)

        def predict(self, state: Any, action: Any, noise: Noise = NOISE) -> PlaceState:
            return PlaceState(noise.normal(state.features.shape, state.features))

    judged = judge_linear(Clueless(linear_spec()), linear_dataset(linear_spec()), batch_size=96, samples=4, seed=1)
    # (1 - 1/4) / 2 in expectation, with the luck of some two hundred draws.
    assert 0.15 < metric(judged, "skill", "latent@5").value < 0.6


def test_a_belief_that_never_changes_has_no_latent_skill_and_says_why():
    class Blind(LinearModel):
        def start(self, obs: Any, noise: Noise = NOISE) -> PlaceState:
            return PlaceState(obs["state"] * 0)

        def observe(self, state: Any, action: Any, obs: Any, noise: Noise = NOISE) -> PlaceState:
            return PlaceState(state.features)

    judged = judge_linear(Blind(linear_spec(), frozen=True), linear_dataset(linear_spec()))
    assert metric(judged, "skill", "latent@5").value is None
    assert "does not change" in metric(judged, "skill", "latent@5").why


def test_a_belief_without_features_has_no_latent_skill():
    class Plain(LinearModel):
        def start(self, obs: Any, noise: Noise = NOISE) -> BareState:
            return BareState(obs["state"])

        def observe(self, state: Any, action: Any, obs: Any, noise: Noise = NOISE) -> BareState:
            return BareState(obs["state"])

        def predict(self, state: Any, action: Any, noise: Noise = NOISE) -> BareState:
            return BareState(super().predict(PlaceState(state.place), action).place)

        def decode(self, state: Any, key: str) -> Any:
            return super().decode(PlaceState(state.place), key)

        def loss(self, segment: Any, belief: Any = None, noise: Noise = NOISE) -> Any:
            return {}

    judged = judge_linear(Plain(linear_spec()), linear_dataset(linear_spec()))
    assert metric(judged, "skill", "state@5").value == pytest.approx(1, abs=1e-6)
    assert "latent@5" not in judged.card.measured.metrics["skill"]


def test_the_linear_baseline_learns_a_linear_world_and_persistence_has_no_skill(perfect: Any):
    baselines = perfect.card.measured.baselines
    for k in (1, 5, 15):
        assert baselines["linear"]["skill"][f"state@{k}"].value > 0.999
        assert baselines["linear"]["skill"][f"image@{k}"].value > 0.99
        assert baselines["persistence"]["skill"][f"state@{k}"].value == 0
        assert baselines["mean"]["skill"][f"state@{k}"].value < 0.9
    assert baselines["persistence"]["useful_horizon"]["state"].value == 0


def test_the_difference_to_linear_is_the_difference_of_the_skills(perfect: Any):
    skill = metric(perfect, "skill", "image@15").value
    linear = perfect.card.measured.baselines["linear"]["skill"]["image@15"].value
    assert metric(perfect, "skill_minus_linear", "image@15").value == pytest.approx(skill - linear)


def test_a_model_that_stands_still_has_no_skill():
    judged = judge_linear(LinearModel(linear_spec(), frozen=True), linear_dataset(linear_spec()))
    assert metric(judged, "skill", "state@5").value == 0
    assert abs(metric(judged, "skill", "image@5").value) < 0.01
    assert metric(judged, "useful_horizon", "state").value == 0


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_deaf_model_is_not_controllable(noise: float):
    judged = judge_linear(LinearModel(linear_spec(), deaf=True, noise=noise), linear_dataset(linear_spec()))
    for key in ("image@5", "state@5"):
        found = metric(judged, "controllability", key)
        assert found.low <= 0 <= found.high
    assert metric(judged, "loss_ratio", "total").value == pytest.approx(1)
    assert any("may ignore its actions" in note for note in judged.card.provenance["notes"])


def test_averaging_dreams_brings_a_noisy_model_closer_to_its_expectation():
    model, data = LinearModel(linear_spec(), noise=0.1), linear_dataset(linear_spec())
    one, many = (judge_linear(model, data, samples=samples) for samples in (1, 16))
    assert metric(many, "skill", "state@5").value > metric(one, "skill", "state@5").value + 0.01
    assert many.card.provenance["samples"] == 16


def test_a_deterministic_model_is_dreamed_once(perfect: Any):
    assert perfect.card.provenance["samples"] == 1


def test_the_same_seed_gives_the_same_card():
    cards = [
        judge_linear(LinearModel(linear_spec(), noise=0.1), linear_dataset(linear_spec())).card.to_json()
        for _ in range(2)
    ]
    for card in cards:
        del card["metrics"]["cost"]
    assert cards[0]["metrics"] == cards[1]["metrics"]
    assert cards[0]["baselines"] == cards[1]["baselines"]


def test_the_card_is_plain_json_with_a_value_and_an_interval_everywhere(perfect: Any):
    card = json.loads(json.dumps(perfect.card.to_json(), allow_nan=False))
    assert set(card) == {"metrics", "baselines", "provenance"}
    for table in (card["metrics"], *card["baselines"].values()):
        for figures in table.values():
            for figure in figures.values():
                assert {"value", "low", "high"} <= set(figure)
                assert figure["value"] is not None or figure["why"]
    facts = card["provenance"]
    assert facts["checkpoint"]["sha256"] == "c" * 64
    assert facts["datasets"][0]["held_out_episodes"] == list(range(8, 20))


def test_every_interval_holds_its_value(perfect: Any):
    for table in (perfect.card.measured.metrics, *perfect.card.measured.baselines.values()):
        for figures in table.values():
            for figure in figures.values():
                if figure.low is not None:
                    assert figure.low - 1e-9 <= figure.value <= figure.high + 1e-9


def test_vectors_without_images_are_judged_in_decibels_too():
    spec = linear_spec(image=False)
    judged = judge_linear(LinearModel(spec), linear_dataset(spec))
    assert "psnr" not in judged.card.measured.metrics
    assert metric(judged, "controllability", "state@5").low > 10


def test_data_without_actions_say_why_controllability_is_missing():
    spec = linear_spec(actions=0)
    judged = judge_linear(LinearModel(spec), linear_dataset(spec))
    assert metric(judged, "skill", "state@5").value == pytest.approx(1, abs=1e-6)
    assert metric(judged, "controllability", "state").why == "the data have no actions"
    assert metric(judged, "loss_ratio", "total").why == "the data have no actions"


def test_a_model_without_heads_says_so():
    judged = judge_linear(LinearModel(linear_spec(), heads=()), linear_dataset(linear_spec()))
    assert metric(judged, "reward_r2", "tracked").why == "the model has no reward head"
    assert metric(judged, "terminated_auroc", "tracked").why == "the model has no terminated head"
    assert metric(judged, "return_bias", "open_loop").why == "the model has no reward head"


def test_data_without_ends_say_so():
    spec = linear_spec(ends=False)
    judged = judge_linear(LinearModel(spec, heads=("reward",)), linear_dataset(spec))
    assert "no episode" in metric(judged, "terminated_auroc", "tracked").why


def test_horizons_that_no_episode_reaches_are_missing_with_a_reason():
    judged = judge_linear(LinearModel(linear_spec()), linear_dataset(linear_spec(), length=18), horizons=(1, 50))
    assert metric(judged, "skill", "state@1").value == pytest.approx(1, abs=1e-6)
    assert "long enough for 50 steps" in metric(judged, "skill", "state@50").why
    assert "long enough" in metric(judged, "psnr", "image@50").why
    assert any("long enough for 50 steps" in note for note in judged.card.provenance["notes"])


def test_episodes_shorter_than_the_context_are_refused_with_the_fix():
    with pytest.raises(UserError, match=r"--context 16 or less"):
        judge_linear(LinearModel(linear_spec()), linear_dataset(linear_spec(), length=18), context=30)


def test_a_planted_miscalibration_is_found():
    class Anxious(LinearModel):
        def decode(self, state: Any, key: str) -> Any:
            found = super().decode(state, key)
            return found * 0 + 0.3 if key == "terminated" else found

    data = linear_dataset(linear_spec(), 20)
    judged = judge_linear(Anxious(linear_spec()), data)
    rows = np.concatenate([data.segment(e).terminated[0].numpy() for e in range(8, 20)])
    assert metric(judged, "terminated_ece", "tracked").value == pytest.approx(0.3 - rows.mean(), abs=1e-6)
    assert metric(judged, "terminated_auroc", "tracked").value == 0.5


def test_end_calibration_ahead_is_that_of_all_rows_though_only_some_are_sampled():
    class Anxious(LinearModel):
        def decode(self, state: Any, key: str) -> Any:
            found = super().decode(state, key)
            return found * 0 + 0.3 if key == "terminated" else found

    data = linear_dataset(linear_spec(), 20)
    judged = judge_linear(Anxious(linear_spec()), data, horizons=(5,), num_windows=30)
    ahead = [data.segment(e).terminated[0, 4 - 1 + 5 :].numpy() for e in range(8, 20)]
    assert metric(judged, "terminated_ece", "open_loop@5").value == pytest.approx(
        0.3 - np.concatenate(ahead).mean(), abs=0.01
    )
