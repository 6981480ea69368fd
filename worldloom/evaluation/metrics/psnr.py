"""Metric 3: how close the expected picture is, in decibels."""

from functools import partial

from worldloom.evaluation.metric import Evidence, Metric, masked_mean
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for key in evidence.keys(predictor):
        if key in evidence.spec.image_keys:
            decibel = scores.psnr(evidence.mse(predictor, key))
            figures |= evidence.curve("psnr", predictor, key, partial(masked_mean, decibel), decibel)
    return figures


PSNR = Metric("PSNR, dB", "Of the expected picture. Higher is better.", compute)
