import torch

from worldloom.nets.latent import Categorical, Gaussian


def test_draws_are_one_hot_and_follow_the_probabilities() -> None:
    torch.manual_seed(0)
    latent = Categorical(variables=1, classes=3, unimix=0.0)
    params = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    samples = latent.sample(params)
    assert (samples.sum(-1) == 1).all()
    torch.testing.assert_close(samples.mean(0), torch.tensor([0.5, 0.3, 0.2]), atol=0.02, rtol=0)


def test_draws_stay_one_hot_when_a_class_is_certain() -> None:
    latent = Categorical(variables=4, classes=5, unimix=0.0)
    params = torch.full((1000, 5, 4), -1e4)
    params[:, -1] = 1e4
    samples = latent.sample(params.flatten(-2)).unflatten(-1, (5, 4))
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
    (latent.sample(params) * weight).sum().backward()
    through_sample = params.grad.clone()
    params.grad = None
    (latent.probs(params).flatten(-2) * weight).sum().backward()
    torch.testing.assert_close(through_sample, params.grad)


def _categorical(params: torch.Tensor) -> torch.distributions.Categorical:
    return torch.distributions.Categorical(logits=params.unflatten(-1, (4, 3)).transpose(-1, -2))
