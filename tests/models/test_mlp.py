import pytest
import torch

from tests.models.conformance import FamilyConformance
from tests.models.segments import SPECS, random_segment
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.models import build


class TestMLP(FamilyConformance):
    def make(self, data: str) -> WorldModel:
        if SPECS[data].image_keys:
            pytest.skip("family mlp is for vectors")
        return build("mlp", SPECS[data], "debug")


def test_pictures_are_refused() -> None:
    with pytest.raises(UserError, match="use rssm for pictures"):
        build("mlp", SPECS["image"])


@pytest.mark.parametrize("values", [{"units": 0}, {"layers": 0}, {"bins": 10}])
def test_values_no_model_can_be_made_of_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(UserError, match="hyperparameter"):
        build("mlp", SPECS["vector"], **values)


def test_a_linear_world_is_learned_to_the_digit() -> None:
    torch.manual_seed(0)
    segment = random_segment(SPECS["vector"], batch=64, time=4)
    turn, push = 0.9 * torch.eye(5), torch.randn(3, 5)
    for t in range(1, 4):
        segment.obs["state"][:, t] = segment.obs["state"][:, t - 1] @ turn + 0.2 * segment.action[:, t - 1] @ push
    model = build("mlp", SPECS["vector"], "debug")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(segment)["state"].mean().backward()
        optimizer.step()
    first = model.start({"state": segment.obs["state"][:, 0]})
    foreseen = model.decode(model.imagine(first, segment.action[:, :3]), "state")
    assert (foreseen - segment.obs["state"][:, 1:]).abs().mean() < 0.05


def test_an_untrained_model_expects_no_reward_and_not_one_of_thousands() -> None:
    model = build("mlp", SPECS["vector"], "debug")
    belief = model.start({key: torch.randn(8, *of.shape) for key, of in SPECS["vector"].obs.items()})
    assert model.decode(model.predict(belief, torch.rand(8, SPECS["vector"].action.size)), "reward").abs().max() < 1e-3
