"""Metrics are objects: ours in the order of the card, yours beside them, and a wrong one is named."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.evaluation.worlds import LinearModel, judge_linear, linear_dataset, linear_spec
from worldloom.errors import UserError
from worldloom.evaluation.measure import measure
from worldloom.evaluation.metric import BASELINES, MODEL, Evidence, Metric
from worldloom.evaluation.metrics import METRICS, chosen
from worldloom.evaluation.rollout import RolloutSettings
from worldloom.evaluation.verdict import verdict
from worldloom.evaluation.wording import Findings, Sentence
from worldloom.stats.bootstrap import Figure


def count(evidence: Evidence, predictor: str) -> Mapping[str, Figure]:
    return {key: Figure(float(len(predictor))) for key in evidence.keys(predictor)}


COUNT = Metric("Count", "Letters of the predictor's name.", count, digits=0)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    model = LinearModel(linear_spec())
    judged = judge_linear(model, linear_dataset(linear_spec(), 12), num_windows=16)
    plan = RolloutSettings(4, judged.errors.horizons, judged.errors.grid, 1, 8, 0, "cpu")
    return Evidence(model, [], plan, judged.errors, judged.tracked, judged.ends, judged.baselines)


def test_a_metric_of_yours_is_computed_for_the_model_and_every_baseline(evidence: Evidence) -> None:
    measured = measure(evidence, {"mine:COUNT": COUNT})
    keys = evidence.keys(MODEL)
    assert measured.metrics["mine:COUNT"] == {key: Figure(5.0) for key in keys}
    assert {name: table["mine:COUNT"] for name, table in measured.baselines.items()} == {
        name: {key: Figure(float(len(name))) for key in keys} for name in BASELINES
    }


def fails(evidence: Evidence, predictor: str) -> Mapping[str, Figure]:
    raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (fails, r"metric 'mine:COUNT' failed on model: ZeroDivisionError: by nothing \(.*test_measure\.py, line"),
        (lambda evidence, predictor: {"x": 3.0}, r"metric 'mine:COUNT' returned \{'x': 3\.0\}, but it must be"),
        (lambda evidence, predictor: None, "returned None, but it must be {key: Figure}"),
    ],
)
def test_a_wrong_metric_is_named(evidence: Evidence, compute: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        measure(evidence, {"mine:COUNT": replace(COUNT, compute=compute)})


def test_the_card_lists_our_metrics_and_then_those_asked_for() -> None:
    assert list(chosen()) == list(METRICS.entries)
    assert list(chosen(["skill"])) == list(METRICS.entries), "one of ours is there already"
    assert all(metric.title and metric.meaning.endswith((".", "better")) for metric in chosen().values())


def test_a_sentence_is_told_of_each_key_or_of_the_model() -> None:
    def tell(findings: Findings, key: str) -> Any:
        yield Sentence("yes", f"told of {key or 'all'}")

    metrics = {"each": replace(COUNT, sentence=tell, each_key=True), "whole": replace(COUNT, sentence=tell)}
    told = [sentence.words for sentence in verdict({}, ["image", "state"], (1,), 10.0, metrics)]
    assert told == ["told of image", "told of state", "told of all"]
