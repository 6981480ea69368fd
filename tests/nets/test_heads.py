import pytest
import torch

from worldloom.nets.heads import BernoulliHead, TwoHotHead


@pytest.mark.parametrize("value", [0.0, 0.37, -12.5, 4000.0])
def test_two_hot_learns_values_of_any_scale(value: float) -> None:
    torch.manual_seed(0)
    head = TwoHotHead(2, units=16, layers=1)
    head.zero_output()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    features, target = torch.ones(4, 2), torch.full((4,), value)
    for _ in range(150):
        optimizer.zero_grad()
        head(features).nll(target).mean().backward()
        optimizer.step()
    torch.testing.assert_close(head(features).mean, target, rtol=0.02, atol=0.02)


def test_untrained_two_hot_spreads_over_all_bins_evenly() -> None:
    head = TwoHotHead(2, units=4, layers=1)
    head.zero_output()
    torch.testing.assert_close(head(torch.ones(1, 2)).nll(torch.tensor([3.3])), torch.tensor([255.0]).log())


def test_two_hot_bins_are_symmetric_and_increase() -> None:
    bins = TwoHotHead(2, units=4, layers=1).bins
    assert (bins.diff() > 0).all()
    torch.testing.assert_close(bins, -bins.flip(0))
    assert bins[127] == 0


def test_bernoulli_gives_probabilities_for_any_leading_shape() -> None:
    head = BernoulliHead(3, units=4, layers=1)
    probability = head(torch.randn(2, 5, 3)).mean
    assert probability.shape == (2, 5)
    assert ((probability > 0) & (probability < 1)).all()
    yes = head(torch.zeros(1, 3))
    torch.testing.assert_close(yes.nll(torch.tensor([True])), -yes.mean.log())
