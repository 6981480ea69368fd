"""Metric 3: how alike the expected picture and the real one are built."""

from functools import partial

from worldloom.evaluation.metric import Evidence, Metric, masked_mean
from worldloom.stats.bootstrap import Figure


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for key in evidence.keys(predictor):
        if key in evidence.spec.image_keys:
            similar = evidence.errors.ssim[predictor, key]
            mean = partial(masked_mean, similar)
            figures |= evidence.curve("ssim", predictor, key, mean, similar, evidence.errors.horizons)
    return figures


SSIM = Metric("SSIM", "11 x 11 Gaussian, sigma 1.5. 1 is identical.", compute, 3)
