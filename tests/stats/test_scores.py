"""Every formula of the card against a hand calculation or a slow, obvious version of itself."""

import numpy as np
import pytest
import torch

from worldloom.stats import scores


def test_skill_is_one_for_no_error_zero_for_the_reference_and_negative_below_it():
    reference = np.array([[4.0, 1.0], [2.0, 3.0]])
    assert scores.skill(np.zeros((2, 2)), reference).tolist() == [1, 1]
    assert scores.skill(reference, reference).tolist() == [0, 0]
    assert scores.skill(reference * 3, reference) == pytest.approx([-2, -2])
    assert scores.skill([1.0, 0.0], [4.0, 0.0]) == pytest.approx(0.75)


def test_skill_is_missing_where_the_reference_never_errs():
    assert np.isnan(scores.skill(np.ones(3), np.zeros(3)))


def test_weights_count_a_sample_as_often_as_repeating_it():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=30).round(1), rng.normal(size=30).round(1)
    labels, repeats = rng.random(30) > 0.5, rng.integers(0, 4, 30)
    again = np.repeat(np.arange(30), repeats)
    probability = 1 / (1 + np.exp(-first))
    for score, a, b in (
        (scores.skill, first**2, second**2),
        (scores.r2, first, second),
        (scores.auroc, first, labels),
        (scores.ece, probability, labels),
        (scores.spearman, first, second),
    ):
        weighted, repeated = score(a, b, repeats.astype(float)), score(a[again], b[again])
        assert weighted == pytest.approx(repeated), score.__name__


def test_many_weights_at_once_give_what_each_gives_alone():
    rng = np.random.default_rng(1)
    first, labels = rng.normal(size=20), rng.random(20) > 0.5
    weights = rng.integers(0, 3, (5, 20)).astype(float)
    for score in (scores.auroc, scores.spearman, scores.r2):
        together = score(first, labels.astype(float) if score is not scores.auroc else labels, weights)
        alone = [score(first, labels.astype(float) if score is not scores.auroc else labels, w) for w in weights]
        assert together == pytest.approx(np.array(alone))


def test_useful_horizon_stops_at_the_first_step_without_skill():
    steps = [1, 2, 5, 10]
    assert scores.useful_horizon([0.9, 0.5, 0.1, 0.2], steps) == 10
    assert scores.useful_horizon([0.9, -0.1, 0.5, 0.5], steps) == 1
    assert scores.useful_horizon([0.0, 0.5, 0.5, 0.5], steps) == 0
    assert scores.useful_horizon([[0.9, 0.5, -1, 1], [-1, 1, 1, 1]], steps).tolist() == [2, 0]


def test_growth_is_the_rate_of_exponential_errors():
    steps = np.array([1, 2, 4, 9])
    assert scores.growth(np.exp(0.3 * steps) ** 2, steps) == pytest.approx(0.3)


def test_psnr_of_known_errors():
    assert scores.psnr([1.0, 0.01, 0.001]) == pytest.approx([0, 20, 30])
    assert scores.psnr(0.0) == scores.BEST_PSNR


def test_ssim_is_one_for_equal_pictures_and_known_for_flat_ones():
    picture = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    assert scores.ssim(picture, picture).tolist() == pytest.approx([1, 1], abs=1e-5)
    # Flat pictures have no variance, so only the luminance term is left: (2ab + c1) / (a^2 + b^2 + c1).
    dark, bright = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.7)
    assert scores.ssim(dark, bright).item() == pytest.approx((0.28 + 1e-4) / (0.53 + 1e-4), abs=1e-4)


def test_ssim_equals_a_slow_version_of_the_definition():
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(1, 1, 13, 14, generator=generator), torch.rand(1, 1, 13, 14, generator=generator)
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for i in range(3):
        for j in range(4):
            x, y = first[0, 0, i : i + 11, j : j + 11].numpy(), second[0, 0, i : i + 11, j : j + 11].numpy()
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            found.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    assert scores.ssim(first, second).item() == pytest.approx(np.mean(found), abs=1e-5)


def test_ssim_of_a_frame_smaller_than_its_window_still_exists():
    assert scores.ssim(torch.zeros(1, 3, 8, 6), torch.zeros(1, 3, 8, 6)).item() == pytest.approx(1)


def test_auroc_counts_pairs_and_ties_half():
    rng = np.random.default_rng(2)
    values, labels = rng.integers(0, 6, 60).astype(float), rng.random(60) > 0.7
    pairs = [(p > n) + 0.5 * (p == n) for p in values[labels] for n in values[~labels]]
    assert scores.auroc(values, labels) == pytest.approx(np.mean(pairs))
    assert scores.auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx(0.75)
    assert np.isnan(scores.auroc([0.1, 0.2], [True, True]))


def test_a_miscalibrated_head_gets_its_known_error():
    # Says 0.9 where half ends, and 0.1 where nothing does: 0.4 and 0.1 apart, on half of the rows each.
    probability = np.r_[np.full(100, 0.9), np.full(100, 0.1)]
    labels = np.r_[np.arange(100) < 50, np.zeros(100, bool)]
    assert scores.ece(probability, labels) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    calibrated = np.r_[np.full(100, 0.5), np.full(100, 0.0)]
    assert scores.ece(calibrated, labels) == pytest.approx(0)


def test_certainty_falls_into_the_last_bin():
    probability, frequency, share = scores.reliability([1.0, 0.0], [True, False])
    assert (probability[-1], frequency[-1], share[-1]) == (1, 1, 0.5)
    assert np.isnan(probability[7])


def test_r2_of_perfect_mean_and_constant():
    target = np.array([1.0, 2.0, 3.0, 6.0])
    assert scores.r2(target, target) == pytest.approx(1)
    assert scores.r2(target, np.full(4, 3.0)) == pytest.approx(0)
    assert np.isnan(scores.r2(np.full(4, 0.1), np.zeros(4)))


def test_spearman_is_pearson_of_mid_ranks():
    rng = np.random.default_rng(3)
    x = rng.integers(0, 8, 40)
    y = x + rng.integers(0, 5, 40)

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])

    assert scores.spearman(x, y) == pytest.approx(np.corrcoef(ranks(x), ranks(y))[0, 1])
    assert scores.spearman(x, np.exp(x)) == pytest.approx(1)
    assert np.isnan(scores.spearman(x, np.ones(40)))
