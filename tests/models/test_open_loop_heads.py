"""Heads that also learn in open loop, in the families that sample their latents."""

import pytest
import torch

from tests.models.segments import SPECS, random_segment
from worldloom.errors import UserError
from worldloom.models import build
from worldloom.models.rssm import RSSM
from worldloom.nets.latent import Categorical
from worldloom.noise import NOISE


@pytest.mark.parametrize(
    ("family", "unforeseen", "further"),
    [("rssm", 0, {}), ("rssm", 0, {"open_loop_steps": 4}), ("vae_rnn", 1, {"open_loop_steps": 4})],
)
def test_open_loop_heads_learn_from_what_is_foreseen_and_leave_the_rest_as_it_is(
    family: str, unforeseen: int, further: dict[str, int]
) -> None:
    def terms(weight: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = build(family, SPECS["image"], "debug", open_loop_head_weight=weight, **further)
        torch.manual_seed(1)
        return model.loss(random_segment(SPECS["image"]))

    without, half, whole = (terms(weight) for weight in (0.0, 0.5, 1.0))
    assert set(without) == set(whole)
    for key in without:
        if key in ("reward", "terminated"):
            torch.testing.assert_close(whole[key] - without[key], 2 * (half[key] - without[key]))
            assert (whole[key] > without[key])[:, unforeseen:].all(), key
            torch.testing.assert_close(whole[key][:, :unforeseen], without[key][:, :unforeseen])
        else:
            torch.testing.assert_close(whole[key], without[key])


def test_heads_learn_from_the_rollout_that_predict_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Categorical.sample
    monkeypatch.setattr(Categorical, "sample", lambda self, latent, noise, _=1.0: sample(self, latent, noise, 0.0))
    model = build("rssm", SPECS["image"], "debug", open_loop_head_weight=1.0, open_loop_steps=3)
    assert isinstance(model, RSSM)
    segment = random_segment(SPECS["image"], time=7)
    with torch.no_grad():
        belief = model.track(segment.obs, segment.action)
        foreseen = model._foreseen(belief.deter, segment.action, NOISE)
        for look in (2, 5):  # observed are the rows before 0, 3 and 6
            dreamt = belief[:, look]
            for row in range(look + 1, min(look + 4, 7)):
                dreamt = model.predict(dreamt, segment.action[:, row - 1])
                torch.testing.assert_close(foreseen[:, row], dreamt.features)


def test_an_open_loop_rollout_has_a_step_at_least() -> None:
    with pytest.raises(UserError, match=r"hyperparameter open_loop_steps of family .* is 0, but must be at least 1"):
        build("rssm", SPECS["image"], "debug", open_loop_steps=0)


def test_hyperparameters_of_an_earlier_version_keep_their_meaning() -> None:
    old = {"blind_heads": 0.5, "blind_steps": 3, "code": 8, "memory": 16, "tolerance": 0.25}
    made = build("vae_rnn", SPECS["image"], "debug", **old)
    assert (made.config.open_loop_head_weight, made.config.open_loop_steps) == (0.5, 3)
    assert (made.config.latent, made.config.hidden, made.config.free_nats) == (8, 16, 0.25)
