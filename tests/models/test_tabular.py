"""A table keeps the contract, learns by gradient, and can be told."""

import pytest
import torch

from worldloom.conformance import check_world_model
from worldloom.data.segment import Segment, outcome
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import UserError
from worldloom.models import build
from worldloom.models.tabular import Tabular

PLACES, ACTIONS = 6, 3
SPEC = DataSpec(
    {"state": KeySpec("vector", (PLACES,)), **signal_keys(reward=True, terminated=True)},
    ActionSpec("discrete", ACTIONS),
    10.0,
)


def table() -> Tabular:
    made = build("tabular", SPEC)
    assert isinstance(made, Tabular)
    return made


def walk(batch: int = 3, time: int = 8) -> Segment:
    """A ring on which action a moves a places on; arriving at 0 is rewarded."""
    generator = torch.Generator().manual_seed(0)
    moves = torch.randint(0, ACTIONS, (batch, time), generator=generator)
    places = (torch.arange(batch)[:, None] + torch.cat([torch.zeros(batch, 1), moves[:, :-1].cumsum(1)], 1)) % PLACES
    false = torch.zeros(batch, time, dtype=torch.bool)
    obs = {"state": torch.eye(PLACES)[places.long()]}
    return Segment(obs, torch.eye(ACTIONS)[moves], outcome((places == 0).float(), false, false), ~false)


def test_the_table_keeps_the_contract() -> None:
    torch.manual_seed(0)
    check_world_model(table(), walk(), overfit_steps=200)


def test_an_action_never_tried_leads_nowhere_and_has_no_reward() -> None:
    model = table()
    after = model.predict(model.start({"state": torch.eye(PLACES)}), torch.eye(ACTIONS)[[0] * PLACES])
    torch.testing.assert_close(after.probs, torch.eye(PLACES), atol=2e-3, rtol=0)
    assert model.decode(after, "reward").abs().max() == 0
    assert model.decode(after, "terminated").max() < 2e-3


def test_what_was_remembered_is_foreseen_and_the_latest_counts() -> None:
    model = table()
    model.remember(2, 1, 0.5, 4, False)
    model.remember(2, 1, 2.0, 5, True)
    after = model.predict(model.start({"state": torch.eye(PLACES)[[2]]}), torch.eye(ACTIONS)[[1]])
    assert after.probs.argmax().item() == 5
    assert model.decode(after, "reward").item() == pytest.approx(2.0, abs=1e-4)
    assert model.decode(after, "terminated").item() > 0.99


def test_doubt_about_a_place_is_doubt_about_what_follows() -> None:
    model = table()
    model.remember(0, 0, 1.0, 1, False)
    model.remember(3, 0, 0.0, 2, False)
    doubt = torch.zeros(1, PLACES)
    doubt[0, [0, 3]] = 0.5
    after = model.predict(model.start({"state": doubt}), torch.eye(ACTIONS)[[0]])
    assert after.probs[0, [1, 2]].tolist() == pytest.approx([0.5, 0.5], abs=2e-3)
    assert model.decode(after, "reward").item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (DataSpec({"image": KeySpec("image", (3, 8, 8))}, SPEC.action, 10.0), "one key that is one-hot"),
        (DataSpec(SPEC.obs, ActionSpec("continuous", 1), 10.0), "wants discrete actions"),
        (DataSpec({"state": KeySpec("vector", (5000,))}, SPEC.action, 10.0), "at most 2048 states"),
    ],
)
def test_worlds_that_fit_no_table_are_refused(spec: DataSpec, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build("tabular", spec)
