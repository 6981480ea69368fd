"""Random numbers as an argument: torch's, one generator a row, or tensors that were recorded."""

import pytest
import torch

from tests.models.segments import SPECS, random_segment
from worldloom.models import build
from worldloom.noise import NOISE, Noise, RecordedNoise, RowNoise, TorchNoise, seeded_generators

LIKE = torch.zeros(3, 5)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_by_default_torchs_own_generator_draws(kind: str) -> None:
    own = {"uniform": torch.rand, "normal": torch.randn}[kind]
    torch.manual_seed(3)
    drawn = getattr(NOISE, kind)((3, 5), LIKE)
    torch.manual_seed(3)
    assert torch.equal(drawn, own(3, 5))
    assert torch.equal(getattr(TorchNoise.seeded(3), kind)((3, 5), LIKE), drawn)


@pytest.mark.parametrize(
    "noise", [TorchNoise.seeded(0), RowNoise([0, 1, 2]), RecordedNoise(source=TorchNoise.seeded(0))]
)
def test_a_noise_that_is_given_leaves_torchs_generator_alone(noise: Noise) -> None:
    before = torch.get_rng_state()
    for kind in (noise.uniform, noise.normal):
        assert kind((3, 5), LIKE.double()).dtype == torch.float64
    assert torch.equal(before, torch.get_rng_state())


def test_a_row_draws_the_same_alone_and_beside_others() -> None:
    noise = RowNoise([1, 2, 1])
    once, again = noise.uniform((3, 5), LIKE), noise.normal((3, 5), LIKE)
    assert torch.equal(once[0], once[2])
    assert not torch.equal(once[0], once[1])
    alone = RowNoise([2])
    assert torch.equal(alone.uniform((1, 5), LIKE), once[1:2])
    assert torch.equal(alone.normal((1, 5), LIKE), again[1:2])


def test_what_would_tie_rows_to_each_other_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"\(2, 5\) drawn for 3 rows"):
        RowNoise([0, 1, 2]).normal((2, 5), LIKE)


def test_recorded_draws_come_again_and_nothing_else_does() -> None:
    noise = RecordedNoise(source=TorchNoise.seeded(0, temperature=0.5))
    drawn = [noise.uniform((3, 5), LIKE), noise.normal((2,), LIKE)]
    noise.rewind()
    assert all(
        torch.equal(a, b) for a, b in zip(drawn, [noise.uniform((3, 5), LIKE), noise.normal((2,), LIKE)], strict=True)
    )
    assert noise.temperature == 0.5
    given = RecordedNoise(drawn)
    with pytest.raises(AssertionError, match=r"\(3, 5\) was given, but \(2,\) is drawn"):
        given.normal((2,), LIKE)
    given.uniform((3, 5), LIKE)
    given.normal((2,), LIKE)
    with pytest.raises(AssertionError, match="only 2 tensors of noise were given"):
        given.normal((2,), LIKE)


def test_code_that_takes_no_noise_can_be_seeded_without_a_trace() -> None:
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded_generators(5, torch.device("cpu")):
            drawn.append(torch.rand(4))
    assert torch.equal(*drawn)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("family", ["rssm", "vae_rnn"])
def test_an_exported_graph_takes_its_noise_as_an_input(family: str) -> None:
    torch.manual_seed(0)
    model, segment = build(family, SPECS["vector"], "debug").eval(), random_segment(SPECS["vector"])
    recorded = RecordedNoise(source=TorchNoise.seeded(0))
    with torch.no_grad():
        belief = model.track(segment.obs, segment.action)[:, 0]
        expected = model.predict(belief, segment.action[:, 0], recorded)

    class Predict(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, belief: object, action: torch.Tensor, draws: list[torch.Tensor]) -> object:
            return self.model.predict(belief, action, RecordedNoise(draws))

    exported = torch.export.export(Predict(), (belief, segment.action[:, 0], recorded.draws)).module()
    assert torch.equal(exported(belief, segment.action[:, 0], recorded.draws).features, expected.features)
    others = [torch.rand_like(x) for x in recorded.draws]
    assert not torch.equal(exported(belief, segment.action[:, 0], others).features, expected.features)
