import torch

from worldloom.nets.latent import Categorical, Gaussian
from worldloom.noise import NOISE


def test_draws_are_one_hot_and_follow_the_probabilities() -> None:
    torch.manual_seed(0)
    latent = Categorical(variables=1, classes=3, unimix=0.0)
    params = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    samples = latent.sample(params, NOISE)
    assert (samples.sum(-1) == 1).all()
    torch.testing.assert_close(samples.mean(0), torch.tensor([0.5, 0.3, 0.2]), atol=0.02, rtol=0)


def test_draws_stay_one_hot_when_a_class_is_certain() -> None:
    latent = Categorical(variables=4, classes=5, unimix=0.0)
    params = torch.full((1000, 5, 4), -1e4)
    params[:, -1] = 1e4
    samples = latent.sample(params.flatten(-2), NOISE).unflatten(-1, (5, 4))
    assert (samples[:, -1] == 1).all()
    assert samples.sum() == 4000


def test_unimix_keeps_every_class_possible() -> None:
    probs = Categorical(2, 4, unimix=0.01).probs(torch.tensor([[100.0, 100.0, 0, 0, 0, 0, 0, 0]]))
    torch.testing.assert_close(probs.min(), torch.tensor(0.01 / 4))
    torch.testing.assert_close(probs.sum(-2), torch.ones(1, 2))


def test_divergence_matches_torch_distributions() -> None:
    torch.manual_seed(0)
    p, q = torch.randn(7, 12), torch.randn(7, 12)
    latent = Categorical(variables=3, classes=4, unimix=0.0)
    expected = torch.distributions.kl_divergence(*(_categorical(x) for x in (p, q))).sum(-1)
    torch.testing.assert_close(latent.kl(p, q), expected)
    gaussian = Gaussian(6)
    normals = [torch.distributions.Normal(*gaussian._moments(x)) for x in (p, q)]
    torch.testing.assert_close(gaussian.kl(p, q), torch.distributions.kl_divergence(*normals).sum(-1))


def test_straight_through_gradient_is_that_of_the_probabilities() -> None:
    latent = Categorical(variables=2, classes=3)
    params = torch.randn(1, 6, requires_grad=True)
    weight = torch.randn(1, 6)
    (latent.sample(params, NOISE) * weight).sum().backward()
    through_sample = params.grad.clone()
    params.grad = None
    (latent.probs(params).flatten(-2) * weight).sum().backward()
    torch.testing.assert_close(through_sample, params.grad)


def _categorical(params: torch.Tensor) -> torch.distributions.Categorical:
    return torch.distributions.Categorical(logits=params.unflatten(-1, (4, 3)).transpose(-1, -2))


def test_temperature_sharpens_and_flattens_what_is_drawn() -> None:
    torch.manual_seed(0)
    params = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    for temperature in (0.5, 2.0):
        drawn = Categorical(1, 3, unimix=0.0).sample(params, NOISE, temperature).mean(0)
        weights = torch.tensor([0.5, 0.3, 0.2]) ** (1 / temperature)
        torch.testing.assert_close(drawn, weights / weights.sum(), atol=0.02, rtol=0)
    assert (Categorical(1, 3, unimix=0.0).sample(params, NOISE, 0.0)[:, 0] == 1).all()
    normal = torch.zeros(20_000, 2)
    assert (Gaussian(1).sample(normal, NOISE, 0.0) == 0).all()
    ratio = Gaussian(1).sample(normal, NOISE, 4.0).var() / Gaussian(1).sample(normal, NOISE).var()
    torch.testing.assert_close(ratio, torch.tensor(4.0), atol=0.2, rtol=0)


def test_samples_pass_gradients_inside_vmap_too() -> None:
    weight = torch.randn(3, 5, 8, requires_grad=True)
    torch.vmap(lambda x: Categorical(2, 4).sample(x, NOISE), randomness="same")(weight).square().mul(
        torch.arange(8)
    ).sum().backward()
    assert weight.grad.abs().sum() > 0
