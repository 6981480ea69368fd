"""The objective: masks, weights, and the same number on one process and on several."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.toy import ToyConfig, ToyModel, toy_segment, toy_spec
from worldloom.errors import UserError
from worldloom.training.objective import check_terms, weigh, weigh_windows

MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_padding_counts_for_nothing_even_when_it_is_not_a_number() -> None:
    term = torch.tensor([[1.0, 2.0, float("nan")], [6.0, float("inf"), 9.0]])
    objective = weigh({"a": term}, MASK, {"a": 2.0})
    assert objective.terms["a"].item() == 3.0
    assert objective.total.item() == 6.0


def test_scalar_terms_are_weighed_as_they_are() -> None:
    objective = weigh({"a": torch.ones(2, 3), "b": torch.tensor(5.0)}, MASK, {"a": 1.0, "b": 0.5})
    assert objective.total.item() == 3.5


def test_terms_are_summed_in_float32() -> None:
    objective = weigh({"a": torch.ones(2, 3, dtype=torch.bfloat16)}, MASK, {"a": 1.0})
    assert objective.total.dtype == torch.float32


def test_processes_with_different_amounts_of_padding_average_to_the_mean_of_the_global_batch() -> None:
    term = torch.arange(6.0).reshape(2, 3)
    whole = weigh({"a": term}, MASK, {"a": 1.0}).total
    rows = MASK.sum() / 2
    parts = [weigh({"a": term[i : i + 1]}, MASK[i : i + 1], {"a": 1.0}, rows).total for i in range(2)]
    assert torch.stack(parts).mean() == whole


def test_a_term_of_a_wrong_shape_is_named() -> None:
    with pytest.raises(UserError, match="'a' has shape"):
        weigh({"a": torch.zeros(3, 2)}, MASK, {"a": 1.0})


def test_windows_are_averaged_one_by_one() -> None:
    losses = weigh_windows({"a": torch.tensor([[1.0, 3.0, 9.0], [4.0, 9.0, 9.0]]), "b": torch.tensor(1.0)}, MASK)
    assert losses["a"].tolist() == [2.0, 4.0]
    assert "b" not in losses


def test_a_term_without_a_weight_is_an_error() -> None:
    model, terms = _model_and_terms()
    with pytest.raises(UserError, match="'surprise'"):
        check_terms(model, {**terms, "surprise": torch.zeros(())})


def test_a_weight_without_its_term_is_an_error() -> None:
    model, terms = _model_and_terms()
    del terms["reward"]
    with pytest.raises(UserError, match="'reward'"):
        check_terms(model, terms)


def test_a_weight_for_a_signal_the_data_lacks_is_fine() -> None:
    model, terms = _model_and_terms()
    del terms["reward"]
    spec: Any = SimpleNamespace(has_reward=False, has_end=True)
    model.spec = spec
    check_terms(model, terms)


def _model_and_terms() -> tuple[ToyModel, dict[str, torch.Tensor]]:
    model = ToyModel(toy_spec(), ToyConfig(hidden=4))
    return model, model(toy_segment(2, 4))
