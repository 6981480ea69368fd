import pytest
import torch

from tests.models.conformance import FamilyConformance
from tests.models.segments import SPECS, random_segment
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.models import build
from worldloom.models.vae_rnn import VAERNN, Mixture
from worldloom.noise import NOISE


class TestVAERNN(FamilyConformance):
    def make(self, data: str) -> WorldModel:
        return build("vae_rnn", SPECS[data], "debug")


def mixture(leading: tuple[int, ...] = ()) -> Mixture:
    torch.manual_seed(0)
    return Mixture(torch.randn(*leading, 4, 3), 3 * torch.randn(*leading, 4, 3), torch.randn(*leading, 4, 3) - 1)


def test_the_cost_of_a_code_is_what_torchs_mixture_says() -> None:
    mine, code = mixture((5,)), torch.randn(5, 3)
    logits, mean, std = (x.transpose(-1, -2) for x in (mine.logits, mine.mean, mine.log_std.exp()))
    theirs = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits), torch.distributions.Normal(mean, std)
    )
    torch.testing.assert_close(mine.nll(code), -theirs.log_prob(code).sum(-1))


def test_draws_have_the_moments_of_the_mixture() -> None:
    mine = mixture()
    code, _, _ = Mixture(*(x.expand(200_000, 4, 3) for x in (mine.logits, mine.mean, mine.log_std))).sample(NOISE)
    weights = mine.logits.softmax(-2)
    mean = (weights * mine.mean).sum(-2)
    square = (weights * (mine.mean.square() + (2 * mine.log_std).exp())).sum(-2)
    torch.testing.assert_close(code.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(code.var(0), square - mean.square(), atol=0, rtol=0.03)


def test_a_cold_dream_is_always_the_likeliest_one_and_a_hot_one_strays_further() -> None:
    mine = mixture((1000,))
    same = Mixture(*(x[:1].expand(1000, 4, 3) for x in (mine.logits, mine.mean, mine.log_std)))
    cold, mean, _ = same.sample(NOISE, 0.0)
    torch.testing.assert_close(cold, mean)
    assert cold.std(0).eq(0).all()
    assert (same.sample(NOISE, 2.0)[0].std(0) > same.sample(NOISE, 0.5)[0].std(0)).all()


def test_the_memory_does_not_move_the_vision() -> None:
    model = build("vae_rnn", SPECS["image"], "debug")
    model.loss(random_segment(SPECS["image"]))["memory"].mean().backward()
    assert isinstance(model, VAERNN)
    assert all(p.grad is None for part in (model.encoder, model.moments) for p in part.parameters())
    assert all(p.grad is not None for part in (model.cell, model.mixture) for p in part.parameters())


def test_open_loop_heads_teach_the_memory_what_ends_but_not_which_codes_to_foresee() -> None:
    model = build("vae_rnn", SPECS["image"], "debug", open_loop_head_weight=1.0)
    model.loss(random_segment(SPECS["image"]))["terminated"].mean().backward()
    assert isinstance(model, VAERNN)
    assert all(p.grad is None for p in model.mixture.parameters())
    assert all(p.grad is not None for p in model.cell.parameters())


@pytest.mark.parametrize(
    "values", [{"code": 0}, {"mixtures": 0}, {"bins": 10}, {"tolerance": -1.0}, {"open_loop_head_weight": -1.0}]
)
def test_values_no_model_can_be_made_of_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match="hyperparameter"):
        build("vae_rnn", SPECS["vector"], **values)
