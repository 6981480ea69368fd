"""The moving average of a model: of weights and floating buffers, not of counts, and never of frozen parts."""

import torch

from tests.latent import LatentModel, Tokenizer
from tests.toy import toy_segment, toy_spec
from worldloom.models import build
from worldloom.training.ema import ema_copy, move_ema


def changed_model(**parts: Tokenizer) -> tuple[LatentModel, LatentModel]:
    """A model all of whose tensors moved by 2 since it was copied, and the copy."""
    model = build("latent", toy_spec(), "debug", parts)
    assert isinstance(model, LatentModel)
    ema = ema_copy(model)
    assert isinstance(ema, LatentModel)
    with torch.no_grad():
        for tensor in model.own_state().values():
            tensor.add_(2)
    return ema, model


def test_weights_and_floating_buffers_follow_slowly_and_counts_at_once() -> None:
    ema, model = changed_model()
    move_ema(ema, model, decay=0.75)
    torch.testing.assert_close(ema.dynamics.weight, model.dynamics.weight - 1.5)
    torch.testing.assert_close(ema.tokenizer.running, model.tokenizer.running - 1.5)
    assert ema.tokenizer.calls == model.tokenizer.calls == 2


def test_a_frozen_part_is_shared_and_stays_as_it_is() -> None:
    part = Tokenizer(toy_spec(), 8)
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    ema, model = changed_model(tokenizer=part)
    move_ema(ema, model, decay=0.75)
    assert ema.tokenizer is model.tokenizer is part
    assert all(torch.equal(before[name], tensor) for name, tensor in part.state_dict().items())
    torch.testing.assert_close(ema.dynamics.weight, model.dynamics.weight - 1.5)


def test_the_copy_learns_nothing_itself_and_stays_in_eval_mode() -> None:
    ema, model = changed_model()
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert not ema.training
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    ema.loss(toy_segment(2, 4))
    assert ema.tokenizer.calls == 0
