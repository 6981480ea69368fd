"""What can be done with a belief: every method, also where a belief holds beliefs, tuples and dicts."""

import pytest
import torch
from torch import Tensor

from worldloom.model import State, state


@state
class Inner(State):
    place: Tensor

    @property
    def features(self) -> Tensor:
        return self.place

    def repeat(self, n: int) -> "Inner":
        return Inner(-self.place.repeat_interleave(n, 0))  # to see that it is asked


@state
class Outer(State):
    inner: Inner
    seed: Tensor
    layers: tuple[Tensor, ...]
    named: dict[str, Inner]

    @property
    def features(self) -> Tensor:
        return self.inner.features


def outer(batch: int = 3, start: float = 0.0) -> Outer:
    place = start + torch.arange(batch * 2.0).view(batch, 2)
    return Outer(Inner(place), torch.arange(batch), (place, place[:, None]), {"a": Inner(place)})


def leaves(belief: Outer) -> list[Tensor]:
    return [belief.inner.place, belief.seed, *belief.layers, belief.named["a"].place]


def same(one: Outer, other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(leaves(one), other, strict=True))


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_indexing_reaches_every_field(index: slice | Tensor) -> None:
    belief = outer()
    assert same(belief[index], [x[index] for x in leaves(belief)])


def test_a_belief_inside_is_asked_for_its_own_way() -> None:
    repeated = outer().repeat(2)
    assert torch.equal(repeated.seed, torch.tensor([0, 0, 1, 1, 2, 2]))
    for own in (repeated.inner, repeated.named["a"]):
        assert torch.equal(own.place, -outer().inner.place.repeat_interleave(2, 0))
    assert torch.equal(repeated.layers[0], outer().inner.place.repeat_interleave(2, 0))


def test_rows_of_beliefs_and_batches_of_them() -> None:
    one, other = outer(), outer(start=100.0)
    for kind in (State, Outer):
        pair = kind.stack([one, other])
        assert pair.shape == (3, 2)
        assert same(pair[:, 1], leaves(other))
        assert same(pair.flatten().unflatten(3)[:, 0], leaves(one))
        assert same(kind.cat([one, other])[3:], leaves(other))
        assert kind.cat([pair, pair[:, :1]], dim=1).shape == (3, 3)


def test_a_choice_between_two_beliefs_is_made_row_by_row() -> None:
    one, other, mask = outer(), outer(start=100.0), torch.tensor([True, False, True])
    chosen = one.where(mask, other)
    assert same(chosen[mask], leaves(one[mask]))
    assert same(chosen[~mask], leaves(other[~mask]))
    pairs = State.stack([one, one]).where(torch.tensor([[True, False]] * 3), State.stack([other, other]))
    assert same(pairs[:, 1], leaves(other))


def test_rows_that_are_not_finite_are_found_wherever_the_number_is() -> None:
    belief = outer()
    assert belief.isfinite().tolist() == [True] * 3
    belief.layers[1][1, 0, 1] = torch.nan
    belief.named["a"].place[2, 0] = torch.inf
    assert belief.isfinite().tolist() == [True, False, False]
    assert State.stack([outer(), belief]).isfinite().tolist() == [[True, True], [True, False], [True, False]]


def test_a_copy_shares_nothing_and_a_detached_belief_has_no_history() -> None:
    belief = outer()
    copied = belief[:1].clone()
    assert all(x.untyped_storage().nbytes() == x.nbytes for x in leaves(copied))
    assert copied.nbytes == sum(x.nbytes for x in leaves(copied))
    learning = Inner(torch.zeros(2, requires_grad=True) * 2)
    assert not learning.detach().place.requires_grad
    assert learning.clone().place.requires_grad
    assert belief.to("cpu").inner.place.device.type == "cpu"
