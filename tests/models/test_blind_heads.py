"""Heads that also learn with eyes closed, in the families that draw what they foresee."""

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
    [("rssm", 0, {}), ("rssm", 0, {"blind_steps": 4}), ("vae_rnn", 1, {"blind_steps": 4})],
)
def test_blind_heads_learn_from_what_is_foreseen_and_leave_the_rest_as_it_is(
    family: str, unforeseen: int, further: dict[str, int]
) -> None:
    def terms(weight: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = build(family, SPECS["image"], "debug", blind_heads=weight, **further)
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


def test_what_closed_eyes_learn_from_is_what_a_dream_of_the_same_actions_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Categorical.sample
    monkeypatch.setattr(Categorical, "sample", lambda self, latent, noise, _=1.0: sample(self, latent, noise, 0.0))
    model = build("rssm", SPECS["image"], "debug", blind_heads=1.0, blind_steps=3)
    assert isinstance(model, RSSM)
    segment = random_segment(SPECS["image"], time=7)
    with torch.no_grad():
        belief = model.track(segment.obs, segment.action)
        foreseen = model._foreseen(belief.deter, segment.action, NOISE)
        for look in (2, 5):  # eyes are open in the rows before 0, 3 and 6
            dreamt = belief[:, look]
            for row in range(look + 1, min(look + 4, 7)):
                dreamt = model.predict(dreamt, segment.action[:, row - 1])
                torch.testing.assert_close(foreseen[:, row], dreamt.features)


def test_eyes_are_closed_for_a_step_at_least() -> None:
    with pytest.raises(UserError, match=r"hyperparameter blind_steps of family .* is 0, but must be at least 1"):
        build("rssm", SPECS["image"], "debug", blind_steps=0)
