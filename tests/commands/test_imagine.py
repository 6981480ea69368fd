"""`worldloom imagine`: the video, the synthetic dataset, and what it says when something is wrong."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from tests.toy import toy_spec
from worldloom.commands.imagine import ImagineSettings, imagine
from worldloom.data.cache import cache_dataset
from worldloom.data.source import open_dataset
from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError
from worldloom.evaluation.actions import random_actions, read_actions
from worldloom.runs import checkpoint
from worldloom.runs.start_row import parse_start

CONTINUOUS = toy_spec().action
DISCRETE = toy_spec(discrete=True).action


def size_of(path: Path) -> tuple[int, int, int]:
    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return len(frames), frames[0].shape[0], frames[0].shape[1]


def lengths(run: Path) -> np.ndarray:
    _, found = checkpoint.load(run)
    return cache_dataset(found.datasets[0].path, found.image_size).lengths


def test_a_video_shows_context_and_every_dreamed_step_at_a_readable_size(toy_run: Path, tmp_path: Path):
    imagine(ImagineSettings(run=toy_run, start="0:4", out=tmp_path / "dream.mp4", context=4, steps=6, actions="random"))
    frames, height, width = size_of(tmp_path / "dream.mp4")
    assert frames == 4 + 6
    assert width >= 640
    assert height >= 320
    assert not list(tmp_path.glob("*.tmp"))


def test_recorded_actions_lead_to_the_end_of_the_episode(toy_run: Path, tmp_path: Path):
    longest = int(lengths(toy_run).argmax())
    rows = int(lengths(toy_run)[longest])
    imagine(ImagineSettings(run=toy_run, start=f"{longest}:3", out=tmp_path / "dream.mp4", context=2))
    assert size_of(tmp_path / "dream.mp4")[0] == 2 + rows - 1 - 3


def test_a_folder_becomes_a_dataset_that_says_it_is_synthetic(toy_run: Path, tmp_path: Path):
    imagine(
        ImagineSettings(run=toy_run, start="0:4", out=tmp_path / "dream", steps=6, actions="random", samples=3, seed=5)
    )
    _, run = checkpoint.load(toy_run)
    source = open_dataset(tmp_path / "dream")
    assert source.about["synthetic"] is True
    assert source.about["checkpoint"] == run.checkpoint_hash
    moment = source.about["imagined_from"][0]
    assert (moment["episode"], moment["frame"], moment["seed"], moment["actions"]) == (0, 4, 5, "random")
    assert len(source.episodes) == 3
    episode = source.read(0)
    assert episode.obs["image"].shape[1:] == (3, 16, 16)
    assert np.abs(episode.action).max() <= 2
    assert not episode.action[-1].any()


def test_a_dream_with_recorded_actions_stores_them_in_their_own_units(toy_run: Path, tmp_path: Path):
    _, run = checkpoint.load(toy_run)
    real = open_dataset(run.datasets[0].path).read(0)
    imagine(ImagineSettings(run=toy_run, start="0:2", out=tmp_path / "dream", steps=3))
    made = open_dataset(tmp_path / "dream").read(0)
    rows = len(made) - 1
    assert made.action[:rows] == pytest.approx(real.action[2 : 2 + rows], abs=1e-5)


def test_the_same_seed_dreams_the_same_and_another_does_not(toy_run: Path, tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        imagine(ImagineSettings(run=toy_run, start="0:2", out=tmp_path / name, steps=3, actions="random", seed=seed))
    actions = [open_dataset(tmp_path / name).read(0).action for name in "abc"]
    assert np.array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0][:1], actions[2][:1])


def test_dreams_are_never_mixed_into_a_recording_or_into_other_dreams(toy_run: Path, tmp_path: Path):
    _, run = checkpoint.load(toy_run)
    recorded = Path(run.datasets[0].path)
    before = json.loads((recorded / "meta" / "info.json").read_text())
    with pytest.raises(UserError, match="recorded dataset"):
        imagine(ImagineSettings(run=toy_run, start="0:2", out=recorded, steps=3))
    assert json.loads((recorded / "meta" / "info.json").read_text()) == before
    imagine(ImagineSettings(run=toy_run, start="0:2", out=tmp_path / "dream", steps=3))
    with pytest.raises(UserError, match="dreams of another"):
        imagine(ImagineSettings(run=toy_run, start="0:3", out=tmp_path / "dream", steps=3))
    with pytest.raises(UserError, match="dreams of another"):
        imagine(ImagineSettings(run=toy_run, start="0:2", out=tmp_path / "dream", steps=2))


def test_the_same_command_again_writes_nothing_twice_and_more_samples_are_added(toy_run: Path, tmp_path: Path):
    for samples, held in ((1, 1), (1, 1), (3, 3)):
        imagine(ImagineSettings(run=toy_run, start="0:2", out=tmp_path / "dream", steps=3, samples=samples))
        assert len(open_dataset(tmp_path / "dream").episodes) == held


def test_a_moment_outside_the_data_is_refused_with_the_range(toy_run: Path, tmp_path: Path):
    rows = lengths(toy_run)
    with pytest.raises(UserError, match=f"episodes 0 to {len(rows) - 1}"):
        imagine(ImagineSettings(run=toy_run, start="99:0", out=tmp_path / "dream.mp4"))
    with pytest.raises(UserError, match=f"frames 0 to {rows[0] - 1}"):
        imagine(ImagineSettings(run=toy_run, start="0:999", out=tmp_path / "dream.mp4"))
    with pytest.raises(UserError, match="no action to follow"):
        imagine(ImagineSettings(run=toy_run, start=f"0:{rows[0] - 1}", out=tmp_path / "dream.mp4"))
    with pytest.raises(UserError, match=r"--steps 500: .* has only"):
        imagine(ImagineSettings(run=toy_run, start="0:3", out=tmp_path / "dream.mp4", steps=500))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", ["12", "a:3", "3:", "-1:4", "1:2:3"])
def test_a_malformed_moment_is_refused(start: str):
    with pytest.raises(UserError, match="EPISODE:FRAME"):
        parse_start(start)


def test_actions_from_a_file_drive_the_dream(toy_run: Path, tmp_path: Path):
    path = tmp_path / "actions.csv"
    path.write_text("x,y\n2,0\n-2,1.5\n")
    imagine(ImagineSettings(run=toy_run, start="0:2", out=tmp_path / "dream", actions=str(path)))
    made = open_dataset(tmp_path / "dream").read(0)
    assert made.action[0] == pytest.approx([2, 0])


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".json", ".jsonl"])
def test_every_kind_of_file_gives_the_same_actions(tmp_path: Path, suffix: str):
    rows = [[2.0, -2.0], [0.0, 1.0]]
    path = tmp_path / f"actions{suffix}"
    if suffix == ".npy":
        np.save(path, np.array(rows))
    elif suffix == ".csv":
        path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("\n".join(json.dumps({"action": row}) for row in rows))
    assert read_actions(path, CONTINUOUS).tolist() == [[1, -1], [0, 0.5]]


@pytest.mark.parametrize("content", ["[1, 3]", '["right", "down"]', "[[0,1,0,0],[0,0,0,1]]", "[[1],[3]]"])
def test_discrete_actions_are_indices_names_or_one_hot(tmp_path: Path, content: str):
    path = tmp_path / "actions.json"
    path.write_text(content)
    assert read_actions(path, DISCRETE).argmax(1).tolist() == [1, 3]
    assert read_actions(path, DISCRETE).sum(1).tolist() == [1, 1]


def test_words_in_a_csv_are_discrete_actions_and_not_a_header(tmp_path: Path):
    path = tmp_path / "actions.csv"
    path.write_text("right\ndown\n")
    assert read_actions(path, DISCRETE).argmax(1).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("spec", "content", "says"),
    [
        (CONTINUOUS, "[[0, 0], [0, 2.5]]", r"row 1: number 1 is 2.5, outside -2 to 2"),
        (CONTINUOUS, "[[0, 0, 0]]", r"row 0: has 3 numbers, an action has 2"),
        (CONTINUOUS, "[[0, NaN]]", r"row 0: .* not finite"),
        (CONTINUOUS, '[["a", 0]]', r"row 0: .* not 2 numbers"),
        (CONTINUOUS, "[]", r"holds no actions"),
        (CONTINUOUS, '{"a": 1}', r"want a list"),
        (CONTINUOUS, "[[0, 0", r"cannot be read"),
        (DISCRETE, "[0, 4]", r"row 1: 4 is no index from 0 to 3 \(left"),
        (DISCRETE, "[0.5]", r"row 0: 0.5 is no index"),
        (DISCRETE, '["rihgt"]', r"Did you mean 'right'"),
        (DISCRETE, "[[1, 1, 0, 0]]", r"row 0: .* not one-hot"),
        (DISCRETE, "[[1, 0]]", r"row 0: has 2 entries"),
    ],
)
def test_a_wrong_action_is_named_with_its_row(tmp_path: Path, spec: ActionSpec, content: str, says: str):
    path = tmp_path / "actions.json"
    path.write_text(content)
    with pytest.raises(UserError, match=says):
        read_actions(path, spec)


def test_pickled_arrays_and_unknown_files_are_refused(tmp_path: Path):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read"):
        read_actions(tmp_path / "evil.npy", CONTINUOUS)
    with pytest.raises(UserError, match=r"unknown kind of action file '\.txt'"):
        read_actions(tmp_path / "actions.txt", CONTINUOUS)
    with pytest.raises(UserError, match="no such file"):
        read_actions(tmp_path / "actions.csv", CONTINUOUS)


def test_random_actions_stay_in_the_action_space():
    rng = np.random.default_rng(0)
    pushes = random_actions(CONTINUOUS, 100, rng)
    assert pushes.min() >= -1
    assert pushes.max() <= 1
    assert pushes.std() > 0.4
    moves = random_actions(DISCRETE, 100, rng)
    assert moves.sum(1).tolist() == [1] * 100
    assert len(set(moves.argmax(1))) == 4


@pytest.mark.parametrize("start", ["\u00b2:3", "9" * 5000 + ":0", "1.5:2", "-1:0", ":"])
def test_a_start_that_is_no_two_whole_numbers_is_refused(start: str):
    with pytest.raises(UserError, match="EPISODE:FRAME"):
        parse_start(start)


@pytest.mark.parametrize("flag", ["steps", "samples", "context", "threads", "seed"])
def test_a_number_too_large_to_be_meant_is_named_with_its_flag(toy_run: Path, tmp_path: Path, flag: str):
    with pytest.raises(UserError, match=f"--{flag} is {10**30}, but must be at most"):
        imagine(ImagineSettings(run=toy_run, start="0:4", out=tmp_path / "dream", actions="random", **{flag: 10**30}))


@pytest.mark.parametrize("name", ["dream", "dream.mp4"])
def test_a_place_that_cannot_be_written_is_one_line(toy_run: Path, tmp_path: Path, name: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written") as error:
        imagine(ImagineSettings(run=toy_run, start="0:4", out=tmp_path / "file" / name, actions="random", steps=2))
    assert "\n" not in str(error.value)
