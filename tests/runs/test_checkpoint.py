"""Checkpoints are whole or absent, are checked name by name, and never run anything."""

import contextlib
import errno
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import ENTRY, ToyConfig, ToyModel, toy_segment, toy_spec
from worldloom.data import durable
from worldloom.errors import UserError
from worldloom.models import FAMILIES
from worldloom.runs import folders
from worldloom.runs.checkpoint import Checkpoint, load, prune, steps_saved
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training

Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> Path:
    """A run with checkpoints of steps 2 and 4. Read it only; `run` is a copy to break."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES.entries, "toy", ENTRY)
        run_training(
            TrainSettings(
                "toy",
                (toy_data,),
                folder,
                size="debug",
                steps=4,
                batch_size=4,
                length=8,
                image_size=16,
                precision="fp32",
                checkpoint_every=2,
                preview_every=0,
            )
        )
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_load_gives_back_the_model_and_its_origin(trained: Path) -> None:
    model, run = load(trained)
    segment = toy_segment()
    assert (run.step, run.family, run.image_size) == (4, "toy", (16, 16))
    assert run.spec == model.spec
    assert run.train_seconds > 0
    assert not model.training
    assert {*run.datasets[0].train}.isdisjoint(run.datasets[0].held_out)
    again, _ = load(trained, step=4)
    for name, term in model(segment).items():
        assert torch.equal(term, again(segment)[name])


def test_an_earlier_step_can_be_loaded(trained: Path) -> None:
    early, run = load(trained, step=2)
    late, _ = load(trained)
    assert run.step == 2
    assert any(not torch.equal(a, b) for a, b in zip(early.parameters(), late.parameters(), strict=True))


def test_nothing_in_a_run_is_a_pickle(trained: Path) -> None:
    names = {path.suffix for path in trained.rglob("*") if path.is_file()}
    assert names <= {".safetensors", ".json", ".jsonl", ".png"}


def test_a_missing_step_names_those_there_are(trained: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint of step 3; it has 2, 4"):
        load(trained, step=3)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run"):
        load(tmp_path)


class Bomb:
    """Unpickling this leaves a file behind: proof that somebody ran it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def weights(run: Path) -> Path:
    return run / "checkpoints" / "step-00000004" / "model.safetensors"


def state(run: Path) -> Path:
    return weights(run).with_name("state.json")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("pickler", [lambda x: pickle.dumps(x, protocol=4), lambda x: pickle.dumps(x, protocol=0)])
def test_a_pickle_in_disguise_is_refused_and_never_run(run: Path, pickler: Callable[[object], bytes]) -> None:
    weights(run).write_bytes(pickler(Bomb(run / "exploded")))
    with pytest.raises(UserError) as error:
        load(run)
    assert "model.safetensors" in str(error.value)
    assert not (run / "exploded").exists()


def test_a_torch_file_in_disguise_is_refused(run: Path) -> None:
    torch.save({"a": torch.zeros(2)}, weights(run))
    with pytest.raises(UserError, match="zip archive"):
        load(run)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.5, 0.999])
def test_a_file_cut_short_names_the_file_and_where_to_go_on(run: Path, part: float) -> None:
    data = weights(run).read_bytes()
    weights(run).write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UserError, match=r"model\.safetensors is cut or damaged.*goes on from step 2"):
        load(run)
    assert load(run, step=2)[1].step == 2


def test_one_changed_bit_is_noticed(run: Path) -> None:
    data = bytearray(weights(run).read_bytes())
    data[-1] ^= 1
    weights(run).write_bytes(data)
    with pytest.raises(UserError, match="sha256"):
        load(run)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: weights(run).unlink(), "model.safetensors cannot be read"),
        (lambda run: state(run).unlink(), "state.json"),
        (lambda run: state(run).write_text('{"format": 1, "st'), "state.json is damaged"),
        (lambda run: state(run).write_text("[]"), "state.json is damaged"),
        (lambda run: state(run).write_text("{}"), "state.json is damaged"),
        (lambda run: edit(state(run), format=2), "format 2"),
        (lambda run: edit(state(run), family="rssm"), "'rssm'"),
        (lambda run: edit(state(run), config={"hidden": 99, "noise": 0.0}), "hidden = 99"),
        (lambda run: (run / "run.json").unlink(), "run.json"),
        (lambda run: (run / "run.json").write_text("{"), "run.json is damaged"),
        (lambda run: edit(run / "run.json", family="tay"), "Did you mean 'toy'"),
        (lambda run: edit(run / "run.json", spec={}), "run.json is damaged"),
        (lambda run: edit(run / "run.json", datasets=[{"path": 1}]), "run.json is damaged"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "no checkpoint yet"),
    ],
)
def test_what_is_missing_or_damaged_is_named_in_one_line(run: Path, damage: Break, words: str) -> None:
    damage(run)
    with pytest.raises(UserError) as error:
        load(run)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_hyperparameter_names_the_nearest(run: Path) -> None:
    config = {"hiden": 16, "noise": 0.0, "ignore_actions": False}
    edit(run / "run.json", config=config)
    edit(state(run), config=config)
    with pytest.raises(UserError, match="Did you mean 'hidden'"):
        load(run)


def test_a_run_goes_on_under_a_version_that_knows_more_hyperparameters(run: Path) -> None:
    edit(run / "run.json", config={"hidden": 16, "noise": 0.0})
    assert load(run)[1].family == "toy"
    edit(run / "run.json", config={"hidden": 16, "noise": 0.5})
    with pytest.raises(UserError, match=r"noise = 0.0, but .* says 0.5: it belongs to another run"):
        load(run)


@pytest.mark.parametrize("hidden", [8, 32])
def test_weights_of_another_configuration_are_refused(run: Path, hidden: int) -> None:
    config = {"hidden": hidden, "noise": 0.0, "ignore_actions": False}
    edit(run / "run.json", config=config)
    edit(state(run), config=config)
    with pytest.raises(UserError, match=r"tensor .* belongs to another configuration"):
        load(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("transition.weight_ih"),
        lambda tensors: tensors.update(extra=torch.zeros(1)),
        lambda tensors: tensors.update({"transition.weight_ih": tensors["transition.weight_ih"].half()}),
    ],
)
def test_tensors_are_checked_by_name_and_type(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    whole = Checkpoint.read(run)
    tensors = dict(whole.model)
    change(tensors)
    Checkpoint(5, whole.family, whole.config, tensors, whole.trainer, whole.progress, whole.spec).save(run)
    with pytest.raises(UserError, match="another configuration"):
        load(run)


def test_an_edited_action_range_is_refused(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["spec"]["action"]["high"] = [9.0, 9.0]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="'action' differs"):
        load(run)


class Killed(BaseException):
    """Stands for kill -9: nothing that handles errors sees it."""


class FaultyDisk:
    """Counts operations on the disk and makes one of them fail; a write that fails has written half of its data."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, fault: BaseException):
        self.count, self.at, self.fault = 0, at, fault
        self.write = Path.write_bytes
        places = ((durable, "sync"), (durable, "rename"), (Path, "write_bytes"), (Path, "mkdir"), (shutil, "rmtree"))
        for owner, name in places:
            patch.setattr(owner, name, self.failing(getattr(owner, name)))

    def failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **named: Any) -> Any:
            self.count += 1
            if self.count - 1 != self.at:
                return real(*args, **named)
            if real is self.write:
                real(args[0], args[1][: len(args[1]) // 2])
            raise self.fault

        return operation


def one_more(run: Path) -> Checkpoint:
    """A checkpoint of step 6 with weights of its own."""
    whole = Checkpoint.read(run)
    model = ToyModel(toy_spec(), ToyConfig(**whole.config))
    progress = {**whole.progress, "held_out_loss": 1e9}
    return Checkpoint(6, whole.family, whole.config, model.state_dict(), whole.trainer, progress, whole.spec)


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), Killed()], ids=["full", "killed"])
def test_a_kill_or_a_full_disk_at_any_operation_leaves_whole_checkpoints(run: Path, fault: BaseException) -> None:
    new, old = one_more(run), Checkpoint.read(run)
    for at in range(100):
        shutil.rmtree(run / "checkpoints" / "step-00000006", ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch:
            disk = FaultyDisk(patch, at, fault)
            with contextlib.suppress(UserError, Killed):
                new.save(run)
        last = Checkpoint.read(run)
        expected = {4: old, 6: new}[last.step]
        assert all(torch.equal(last.model[name], tensor) for name, tensor in expected.model.items())
        assert load(run)[1].step == last.step
        if disk.count <= at:
            break
    assert at > 8
    assert last.step == 6
    folders.remove_partial(run / "checkpoints")
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [f"step-0000000{s}" for s in (2, 4, 6)]


def test_a_kill_while_old_checkpoints_are_removed_never_shows_half_of_one(run: Path) -> None:
    for at in range(100):
        for step in (6, 8, 10):
            Checkpoint(**{**vars(one_more(run)), "step": step}).save(run)
        with pytest.MonkeyPatch.context() as patch:
            disk = FaultyDisk(patch, at, Killed())
            with contextlib.suppress(Killed):
                prune(run)
        assert all(Checkpoint.read(run, step) for step in steps_saved(run))
        if disk.count <= at:
            break
    assert at > 2


def test_the_last_two_and_the_best_are_kept(run: Path) -> None:
    losses = {6: 0.1, 8: 3.0, 10: 2.0, 12: 4.0}
    for step, loss in losses.items():
        new = one_more(run)
        Checkpoint(**{**vars(new), "step": step, "progress": {**new.progress, "held_out_loss": loss}}).save(run)
        prune(run)
    assert steps_saved(run) == [6, 10, 12]


def test_saving_a_step_again_replaces_it(run: Path) -> None:
    new = one_more(run)
    for _ in range(2):
        new.save(run)
    assert steps_saved(run) == [2, 4, 6]


def test_tied_weights_can_be_saved(run: Path) -> None:
    new = one_more(run)
    tied = torch.zeros(3)
    Checkpoint(**{**vars(new), "trainer": {"a": tied, "b": tied}}).save(run)
    assert {*Checkpoint.read(run).trainer} == {"a", "b"}


@pytest.mark.parametrize(("name", "value"), [("hidden", ""), ("hidden", -3), ("hidden", None)])
def test_a_hyperparameter_that_no_model_can_have_is_damage(run: Path, name: str, value: Any) -> None:
    content = json.loads((run / "run.json").read_text())
    content["config"][name] = value
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        load(run)


@pytest.mark.parametrize("value", ["4", [None], 2, None])
def test_a_state_of_another_step_is_damage(run: Path, value: Any) -> None:
    path = run / "checkpoints/step-00000004/state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": value}))
    with pytest.raises(UserError, match=r"state\.json is damaged .*its step is"):
        load(run)
