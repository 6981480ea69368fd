import pytest
import torch

from tests.models.conformance import FamilyConformance
from tests.models.segments import SPECS, random_segment
from worldloom.conformance import check_world_model
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.models import FAMILIES, build, rebuild
from worldloom.models.rssm import RSSM

PEER_ACTOR, PEER_CRITIC = 50_316, 66_111  # the parts of DreamerV3's size1m that are not the world model


class TestCategoricalRSSM(FamilyConformance):
    def make(self, data: str) -> WorldModel:
        return build("rssm", SPECS[data], "debug")


class TestGaussianRSSM(FamilyConformance):
    def make(self, data: str) -> WorldModel:
        return build("rssm", SPECS[data], "debug", latent="gaussian")


@pytest.mark.parametrize(
    ("entry", "total"), [(KeySpec("vector", (24,)), 640_867), (KeySpec("image", (3, 64, 64)), 686_846)]
)
def test_size1m_has_the_parameter_count_of_dreamerv3_within_two_percent(entry: KeySpec, total: int) -> None:
    action = ActionSpec("continuous", 6, low=(-1.0,) * 6, high=(1.0,) * 6)
    model = build("rssm", DataSpec({"obs": entry, **signal_keys(reward=True, terminated=True)}, action, 20.0), "size1m")
    ours = sum(p.numel() for p in model.parameters()) + PEER_ACTOR + PEER_CRITIC
    assert abs(ours - total) / total < 0.02, ours


def test_sizes_grow() -> None:
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in build("rssm", SPECS["vector"], size).parameters())
            for size in ("debug", "nano", "small", "base")
        ]
    assert counts == sorted(counts)
    assert counts[-1] > 10 * counts[0]


def test_free_bits_bound_both_divergences() -> None:
    model = build("rssm", SPECS["vector"], "debug", free_nats=3.0)
    terms = model.loss(random_segment(SPECS["vector"]))
    assert terms["dynamics"].min() >= 3.0
    assert terms["representation"].min() >= 3.0


def test_dynamics_term_trains_the_prior_alone_and_representation_the_posterior_alone() -> None:
    model = build("rssm", SPECS["vector"], "debug", free_nats=0.0)
    first_row = random_segment(SPECS["vector"], time=1)  # later priors see the posterior through its samples
    model.loss(first_row)["dynamics"].sum().backward()
    assert model.prior[-1].bias.grad.abs().sum() > 0
    assert model.posterior[-1].bias.grad is None
    model.zero_grad()
    model.loss(first_row)["representation"].sum().backward()
    assert model.prior[-1].bias.grad is None
    assert model.posterior[-1].bias.grad.abs().sum() > 0


def test_first_predicted_reward_is_exactly_zero() -> None:
    model = build("rssm", SPECS["image"], "debug")
    segment = random_segment(SPECS["image"])
    assert (model.decode(model.track(segment.obs, segment.action), "reward") == 0).all()


def test_vectors_are_decoded_in_their_own_units() -> None:
    spec = DataSpec(
        {"state": KeySpec("vector", (2,), mean=(500.0, -7.0), std=(1e-3, 1e-3))}, ActionSpec("continuous", 0), 1.0
    )
    decoded = build("rssm", spec, "debug")
    state = decoded.start({"state": torch.tensor([[500.0, -7.0]])})
    torch.testing.assert_close(decoded.decode(state, "state"), torch.tensor([[500.0, -7.0]]), atol=0.1, rtol=0)


def test_unknown_names_offer_the_nearest_right_one() -> None:
    with pytest.raises(UserError, match="Did you mean 'rssm'"):
        build("rsmm", SPECS["vector"])
    with pytest.raises(UserError, match="Did you mean 'small'"):
        build("rssm", SPECS["vector"], "smal")
    with pytest.raises(UserError, match="Did you mean 'deter'"):
        build("rssm", SPECS["vector"], "nano", detr=3)
    with pytest.raises(UserError, match="hyperparameter"):
        rebuild(FAMILIES["rssm"], SPECS["vector"], {"depht": 3})
    model = build("rssm", SPECS["vector"], "debug")
    belief = model.start({"state": torch.zeros(1, 5)})
    with pytest.raises(UserError, match="can't decode 'cost'"):
        model.decode(belief, "cost")


def test_impossible_shapes_are_named() -> None:
    with pytest.raises(UserError, match="blocks=8"):
        build("rssm", SPECS["vector"], "debug", deter=60)
    with pytest.raises(UserError, match="classes of family 'rssm' is 1, but must be at least 2"):
        build("rssm", SPECS["vector"], "debug", classes=1)
    with pytest.raises(UserError, match="bins of family 'rssm' is 4, but must be odd"):
        build("rssm", SPECS["vector"], "debug", bins=4)
    with pytest.raises(UserError, match="lacks the key 'state'"):
        build("rssm", SPECS["vector"], "debug").start({"image": torch.zeros(1)})
    with pytest.raises(UserError, match="uint8"):
        build("rssm", SPECS["image"], "debug").start({"image": torch.zeros(1, 3, 32, 32)})


def test_open_loop_heads_teach_the_prior_nothing() -> None:
    torch.manual_seed(0)
    model = build("rssm", SPECS["image"], "debug", open_loop_head_weight=1.0)
    model.loss(random_segment(SPECS["image"]))["terminated"].mean().backward()
    assert isinstance(model, RSSM)
    assert all(parameter.grad is None for parameter in model.prior.parameters())


@pytest.mark.parametrize("data", ["vector", "every kind"])
def test_with_carried_vectors_it_keeps_the_contract(data: str) -> None:
    torch.manual_seed(0)
    model = build("rssm", SPECS[data], "debug", vectors="change")
    check_world_model(model, random_segment(SPECS[data]), overfit_steps=40)


def test_carried_vectors_are_exact_when_observed_and_unchanged_before_anything_is_learned() -> None:
    segment = random_segment(SPECS["vector"])
    model = build("rssm", SPECS["vector"], "debug", vectors="change").eval()
    (key,) = SPECS["vector"].vector_keys[:1]
    belief = model.track(segment.obs, segment.action)
    torch.testing.assert_close(model.decode(belief, key), segment.obs[key])
    ahead = model.imagine(belief[:, 0], segment.action[:, :3])
    torch.testing.assert_close(model.decode(ahead, key), segment.obs[key][:, :1].expand(-1, 3, -1))


def test_where_there_is_no_vector_nothing_is_carried() -> None:
    carried, plain = (build("rssm", SPECS["image"], "debug", vectors=how) for how in ("change", "latent"))
    assert carried.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("changes", [{"vectors": "both"}, {"vectors": "change", "open_loop_head_weight": 1.0}])
def test_what_vectors_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UserError, match="vectors="):
        build("rssm", SPECS["vector"], "debug", **changes)
