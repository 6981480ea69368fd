"""A part of another run in a training: frozen and referred to by hash, or as the weights to begin with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSettings, train_toy
from tests.latent import LatentModel
from tests.toy import toy_spec
from worldloom.errors import UserError
from worldloom.models import build
from worldloom.runs.checkpoint import Checkpoint, load, steps_saved
from worldloom.training.session import run_training

SHORT: dict[str, Any] = {
    "size": "debug", "length": 8, "lr": 3e-3, "warmup": 2, "held_out": 0.2, "precision": "fp32", "threads": 1,
    "checkpoint_every": 2, "log_every": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> Path:
    """A folder with the runs `first`, of both phases, and `second`, of the dynamics with the tokenizer of `first`."""
    folder = tmp_path_factory.mktemp("parts")
    train_toy(folder / "first", toy_data, "latent", steps=6, **SHORT)
    train_toy(folder / "second", toy_data, "latent", steps=4, part=(f"tokenizer={folder / 'first'}",), **SHORT)
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy of both runs to break."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def tokenizer(run: Path, step: int | None = None) -> dict[str, torch.Tensor]:
    model, _ = load(run, step=step)
    assert isinstance(model, LatentModel)
    return model.tokenizer.state_dict()


def test_run_json_refers_to_the_part_by_hash(trained: Path) -> None:
    _, first = load(trained / "first")
    parts = json.loads((trained / "second" / "run.json").read_text())["parts"]
    assert parts == {"tokenizer": {"run": "../first", "step": 6, "hash": first.checkpoint_hash, "frozen": True}}


def test_no_checkpoint_holds_a_tensor_of_a_frozen_part(trained: Path, toy_settings: MakeSettings) -> None:
    settings = toy_settings(family="latent", average=0.9, part=(f"tokenizer={trained / 'first'}",))
    run_training(settings)
    for run in (trained / "second", settings.out):
        saved = Checkpoint.read(run)
        assert "dynamics.weight" in saved.model
        assert [name for name in (*saved.model, *saved.trainer) if "tokenizer" in name] == []


def test_a_frozen_part_stays_bit_for_bit_what_it_was(trained: Path) -> None:
    first, second = tokenizer(trained / "first"), tokenizer(trained / "second")
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())  # its running mean and count too


def test_training_mode_leaves_a_frozen_part_in_eval_mode(trained: Path) -> None:
    model, _ = load(trained / "second")
    assert isinstance(model, LatentModel)
    model.train()
    assert model.dynamics.training
    assert not any(module.training for module in model.tokenizer.modules())
    assert not any(parameter.requires_grad for parameter in model.tokenizer.parameters())


def test_runs_that_lie_side_by_side_can_be_moved_together(runs: Path) -> None:
    before = tokenizer(runs / "second")
    moved = runs.rename(runs.with_name("elsewhere"))
    after = tokenizer(moved / "second")
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_a_part_that_is_gone_names_both_runs_and_can_be_named_where_it_is(runs: Path) -> None:
    (runs / "first").rename(runs / "attic")
    with pytest.raises(UserError) as error:
        load(runs / "second")
    assert f"part 'tokenizer' of {runs / 'second'} is gone" in str(error.value)
    assert str(runs / "first") in str(error.value)
    model, _ = load(runs / "second", parts={"tokenizer": runs / "attic"})
    assert model.frozen == ("tokenizer",)


def test_a_part_that_changed_names_both_hashes(runs: Path, toy_data: Path) -> None:
    wanted = json.loads((runs / "second" / "run.json").read_text())["parts"]["tokenizer"]["hash"]
    shutil.rmtree(runs / "first")
    train_toy(runs / "first", toy_data, "latent", steps=6, seed=1, **SHORT)
    with pytest.raises(UserError) as error:
        load(runs / "second")
    assert wanted in str(error.value)
    assert load(runs / "first")[1].checkpoint_hash in str(error.value)


@pytest.mark.parametrize("change", [{"step": "six"}, {"run": None}, {"hash": "0" * 64}])
def test_an_edited_reference_is_refused_in_one_line(runs: Path, change: dict[str, Any]) -> None:
    path = runs / "second" / "run.json"
    record = json.loads(path.read_text())
    record["parts"]["tokenizer"] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(UserError) as error:
        load(runs / "second")
    assert "\n" not in str(error.value)


def test_a_part_that_moved_is_remembered_by_the_run_that_goes_on_with_it(
    runs: Path, toy_data: Path, tmp_path: Path
) -> None:
    (runs / "first").rename(tmp_path / "attic")
    again = {"steps": 6, "resume": True, **SHORT}
    with pytest.raises(UserError, match="is gone"):
        train_toy(runs / "second", toy_data, "latent", **again)
    train_toy(runs / "second", toy_data, "latent", part=(f"tokenizer={tmp_path / 'attic'}",), **again)
    assert load(runs / "second")[1].step == 6


def test_a_run_cannot_go_on_with_another_part(runs: Path, toy_data: Path) -> None:
    train_toy(runs / "third", toy_data, "latent", steps=2, seed=1, **SHORT)
    with pytest.raises(UserError, match=r"part 'tokenizer' of .*second is (gone|has changed)"):
        train_toy(runs / "second", toy_data, "latent", steps=6, resume=True,
                  part=(f"tokenizer={runs / 'third'}",), **SHORT)  # fmt: skip
    with pytest.raises(UserError, match="unknown frozen part of this run 'decoder'"):
        train_toy(runs / "second", toy_data, "latent", steps=6, resume=True,
                  part=(f"decoder={runs / 'third'}",), **SHORT)  # fmt: skip
    assert steps_saved(runs / "second") == [2, 4]


def test_a_part_of_a_part_is_found_through_both(runs: Path, toy_data: Path) -> None:
    train_toy(runs / "third", toy_data, "latent", steps=2, part=(f"tokenizer={runs / 'second'}",), **SHORT)
    assert tokenizer(runs / "third").keys() == tokenizer(runs / "first").keys()
    shutil.rmtree(runs / "first")
    with pytest.raises(UserError, match=r"part 'tokenizer' of .*second is gone"):
        load(runs / "third")


def test_a_part_that_is_not_frozen_begins_with_the_weights_and_is_saved(runs: Path, toy_settings: MakeSettings) -> None:
    given, wanted = (f"tokenizer={runs / 'first'}@4",), tokenizer(runs / "first", 4)
    settings = toy_settings(family="latent", steps=1, phase_steps=("tokenizer=1",), lr=0.0, init_part=given)
    run_training(settings)
    shutil.rmtree(runs / "first")  # not needed any more
    found = tokenizer(settings.out)
    weights = [name for name in wanted if name.startswith(("encoders", "decoders"))]
    assert weights
    assert all(torch.equal(found[name], wanted[name]) for name in weights)
    kept = json.loads((settings.out / "run.json").read_text())["parts"]["tokenizer"]
    assert (kept["step"], kept["frozen"]) == (4, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"part": ("tokenizer",)}, "write it as NAME=RUN"),
        ({"part": ("tokenizer=FIRST", "tokenizer=FIRST")}, "given twice"),
        ({"part": ("tokenizer=FIRST",), "init_part": ("tokenizer=FIRST",)}, "drop one"),
        ({"part": ("tokeniser=FIRST",)}, "part of family 'latent' 'tokeniser'. Did you mean 'tokenizer'"),
        ({"part": ("tokenizer=FIRST@5",)}, "has no checkpoint of step 5; it has 4, 6"),
        ({"part": ("tokenizer=nowhere",)}, "nowhere is not a run"),
        ({"part": ("tokenizer=TOY",)}, "is a ToyModel, but must be a Tokenizer"),
        ({"family": "toy", "part": ("tokenizer=FIRST",)}, "family 'toy' has no parts: leave 'tokenizer' away"),
        ({"family": "toy", "init_part": ("tokenizer=FIRST",)}, "unknown part of family 'toy'"),
        ({"init_part": ("tokenizer=FIRST",), "overrides": ("latent=4",)}, "belongs to another configuration"),
        ({"part": ("tokenizer=FIRST",), "image_size": 8}, "trained on 'image', image (3, 16, 16), but the data have"),
    ],
)
def test_a_part_that_does_not_fit_is_refused_before_anything_is_written(
    trained: Path, toy_run: Path, toy_settings: MakeSettings, change: dict[str, Any], words: str
) -> None:
    def placed(value: Any) -> Any:
        if not isinstance(value, tuple):
            return value
        return tuple(v.replace("FIRST", str(trained / "first")).replace("TOY", str(toy_run)) for v in value)

    settings = toy_settings(**{"family": "latent", **{name: placed(value) for name, value in change.items()}})
    with pytest.raises(UserError) as error:
        run_training(settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not settings.out.exists()


def test_a_family_says_what_it_does_with_a_part_it_was_given() -> None:
    part = build("latent", toy_spec(), "debug").get_submodule("tokenizer")
    model = build("latent", toy_spec(), "debug", {"tokenizer": part})
    assert model.get_submodule("tokenizer") is part
    assert [name for name in model.own_state() if name.startswith("tokenizer")] == []
    assert len(model.own_state()) == 4
