"""The metrics of the card, in its order. Adding one is a file and one line here."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from worldloom.registry import Registry

if TYPE_CHECKING:
    from worldloom.evaluation.metric import Metric

METRICS = Registry(
    "metric",
    {
        "skill": "worldloom.evaluation.metrics.skill:SKILL",
        "useful_horizon": "worldloom.evaluation.metrics.useful_horizon:USEFUL_HORIZON",
        "error_growth": "worldloom.evaluation.metrics.error_growth:ERROR_GROWTH",
        "psnr": "worldloom.evaluation.metrics.psnr:PSNR",
        "ssim": "worldloom.evaluation.metrics.ssim:SSIM",
        "skill_minus_linear": "worldloom.evaluation.metrics.skill_minus_linear:SKILL_MINUS_LINEAR",
        "controllability": "worldloom.evaluation.metrics.controllability:CONTROLLABILITY",
        "loss_ratio": "worldloom.evaluation.metrics.loss_ratio:LOSS_RATIO",
        "reward_r2": "worldloom.evaluation.metrics.reward_r2:REWARD_R2",
        "terminated_auroc": "worldloom.evaluation.metrics.terminated:TERMINATED_AUROC",
        "terminated_ece": "worldloom.evaluation.metrics.terminated:TERMINATED_ECE",
        "return_bias": "worldloom.evaluation.metrics.returns:RETURN_BIAS",
        "return_spearman": "worldloom.evaluation.metrics.returns:RETURN_SPEARMAN",
        "signal_auroc": "worldloom.evaluation.metrics.signals:SIGNAL_AUROC",
        "signal_ece": "worldloom.evaluation.metrics.signals:SIGNAL_ECE",
        "signal_r2": "worldloom.evaluation.metrics.signals:SIGNAL_R2",
        "policy": "worldloom.evaluation.metrics.policy:POLICY",
        "policy_survival": "worldloom.evaluation.metrics.policy:POLICY_SURVIVAL",
    },
    group="worldloom.metrics",
    kind="worldloom.evaluation.metric:Metric",
    instances=True,
)


def chosen(more: Iterable[str] = ()) -> "dict[str, Metric]":
    """Every metric of ours, and those that the user asked for by name: installed ones and `module:object`."""
    return {name: METRICS[name] for name in METRICS.entries} | {name: METRICS.typed(name) for name in more}
