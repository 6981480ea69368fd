import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.fakes import ACTION, FakeSource, fake_episode
from tests.data.foreign import moving_square, save_video
from tests.data.recorded import LEAN, record
from worldloom.commands.inspect import InspectSettings, inspect
from worldloom.data.card.contact_sheet import CELL, GAP, contact_sheet
from worldloom.data.card.figures import BINS, data_card, looking_size
from worldloom.data.card.page import card_page
from worldloom.data.episode import Episode, EpisodeInfo
from worldloom.data.formats import videos
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import UserError


class ListSource(FakeSource):
    """A source of given episodes."""

    def __init__(self, episodes: list[Episode], spec: DataSpec):
        super().__init__([len(e) for e in episodes])
        self.given, self.spec = episodes, spec

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        return self.given[index]


def acting(actions: list[list[float]], spec: ActionSpec) -> ListSource:
    """One vector-only episode with these actions and a last, padded row."""
    action = np.array([*actions, [0] * spec.size], np.float32)
    rows = len(action)
    never, none = np.zeros(rows, bool), np.zeros(rows, np.float32)
    episode = Episode({"state": np.zeros((rows, 1), np.float32)}, action, none, never, never)
    return ListSource([episode], DataSpec({"state": KeySpec("vector", (1,))}, spec, 10.0))


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A small LeRobot dataset on disk: a camera, a state, a reward and two tasks."""
    folder = tmp_path / "recorded"
    spec = FakeSource([1]).spec
    with LeRobotWriter(folder, spec, about={"license": "MIT", "origin": "a test", "synthetic": False}) as writer:
        for index, rows in enumerate([12, 9, 20]):
            info = EpisodeInfo(rows, ["lift", "push"][index % 2])
            writer.add(fake_episode(index, info, ACTION, (8, 8), extra=False))
    return folder


def test_the_card_counts_what_there_is() -> None:
    card = data_card(FakeSource([5, 7, 4], tasks=["lift", "push"], extra=True))
    assert (card.episodes, card.readable, card.rows) == (3, 3, 16)
    assert card.hours == pytest.approx(16 / 10 / 3600)
    assert (card.lengths["min"], card.lengths["median"], card.lengths["max"]) == (4, 5, 7)
    assert sum(card.lengths["histogram"]["counts"]) == 3
    assert card.ends == {"terminated": 3, "truncated": 0, "neither": 0}
    assert card.tasks == [{"task": "lift", "episodes": 2, "rows": 9}, {"task": "push", "episodes": 1, "rows": 7}]
    assert card.signals["success"]["episodes"] == 2
    assert card.reward is not None
    assert card.reward["return"] == {"min": 6, "mean": pytest.approx((10 + 21 + 6) / 3), "max": 21}
    json.dumps(card.to_json(), allow_nan=False)


def test_key_figures_are_those_of_all_rows() -> None:
    card = data_card(FakeSource([5, 7]))
    state, image = card.keys["state"], card.keys["image"]
    rows = np.array([*range(5), *range(7)])
    assert (state.low, state.high) == ([0, 0, 5], [1, 6, 5])
    assert state.mean[1] == pytest.approx(rows.mean())
    assert state.std[1] == pytest.approx(rows.std())
    assert state.constant == [2]
    assert state.jumps == [0, 1, 0]
    assert image.mean == pytest.approx([7 / 12, rows.mean(), 7])
    assert image.std == pytest.approx([np.sqrt(7 / 12 * 5 / 12), rows.std(), 0])
    assert image.constant == [2]
    assert "never changing: five" in " ".join(card.notes)


def test_discrete_entropy_and_coverage() -> None:
    spec = ActionSpec("discrete", 4, names=("a", "b", "c", "d"))
    action = data_card(acting([[1, 0, 0, 0], [0, 1, 0, 0]] * 6, spec)).action
    assert action.entropy == [pytest.approx(1.0)]
    assert action.evenness == [pytest.approx(0.5)]
    assert action.coverage == [0.5]
    assert action.counts == [[6, 6, 0, 0]]
    assert action.held == 0


def test_continuous_entropy_coverage_held_and_zero_shares() -> None:
    spec = ActionSpec("continuous", 2, low=(-1, -1), high=(1, 1))
    middle = (np.arange(BINS) + 0.5) / BINS * 2 - 1
    action = data_card(acting([[float(x), 0.5] for x in middle], spec)).action
    assert action.entropy == [pytest.approx(np.log2(BINS)), 0]
    assert action.coverage == [1, 1 / BINS]
    assert action.constant == [1]
    still = data_card(acting([[0.0, 0.0]] * 3 + [[1.0, 1.0]] * 2, spec)).action
    assert still.held == pytest.approx(3 / 4)
    assert still.zero == pytest.approx(3 / 5)


def test_the_padding_of_the_last_row_is_no_action() -> None:
    action = data_card(acting([[3.0], [4.0]], ActionSpec("continuous", 1))).action
    assert (action.seen_low, action.seen_high, action.declared) == ([3], [4], False)


def test_data_without_actions_or_cameras_have_a_card() -> None:
    source = acting([[], [], []], ActionSpec("continuous", 0))
    card = data_card(source)
    assert card.action.size == 0
    assert "nothing can be controlled" in " ".join(card.notes)
    assert contact_sheet(source, [0]) is None
    assert "<h2>Contact sheet" not in card_page(card, None)


def test_broken_episodes_are_listed_and_count_only_if_not_skipped() -> None:
    source = FakeSource([5, 7, 4], broken=[1])
    card = data_card(source)
    assert card.broken == [{"episode": 1, "problem": "fake.mp4, row 3: the video of episode 1 is cut."}]
    assert (card.episodes, card.readable, card.rows) == (3, 2, 16)
    assert "1 of 3 episodes cannot be read" in card.notes[0]
    skipping = data_card(source, skip_broken=True)
    assert (skipping.episodes, skipping.rows) == (2, 9)
    assert skipping.broken == card.broken


def test_identical_and_nearly_identical_episodes_are_found() -> None:
    rng = np.random.default_rng(0)
    source = FakeSource([12])

    def walk() -> Episode:
        episode = fake_episode(0, EpisodeInfo(12), ACTION, (32, 32), extra=False)
        episode.obs["image"] = rng.integers(0, 255, (12, 3, 32, 32), dtype=np.uint8).repeat(1, 0)
        episode.obs["state"] = rng.normal(size=(12, 3)).cumsum(0).astype(np.float32)
        return episode

    def noisy(episode: Episode) -> Episode:
        image = np.clip(episode.obs["image"] + rng.normal(0, 3, (12, 3, 32, 32)), 0, 255).astype(np.uint8)
        return replace(episode, obs={"image": image, "state": episode.obs["state"] + np.float32(1e-3)})

    one, two, three = walk(), walk(), walk()
    spec = source.spec.with_obs({**source.spec.obs, "image": KeySpec("image", (3, 32, 32))})
    found = data_card(ListSource([one, two, one, noisy(two), three], spec)).duplicates
    assert found == [{"episodes": [0, 2], "identical": True}, {"episodes": [1, 3], "identical": False}]


def test_a_moved_sprite_is_no_duplicate() -> None:
    def sprite(place: int) -> Episode:
        image = np.zeros((6, 3, 64, 64), np.uint8)
        image[:, :, 30:34, place : place + 4] = 255
        none, never = np.zeros(6, np.float32), np.zeros(6, bool)
        return Episode({"image": image}, np.zeros((6, 2), np.float32), none, never, never)

    spec = DataSpec({"image": KeySpec("image", (3, 64, 64))}, ACTION, 10.0)
    assert data_card(ListSource([sprite(10), sprite(18), sprite(40)], spec)).duplicates == []


def test_a_wrapping_angle_is_pointed_out() -> None:
    angle = (np.linspace(0, 12, 40) + np.pi) % (2 * np.pi) - np.pi
    source = acting([[0.0]] * 39, ActionSpec("continuous", 1))
    source.given[0].obs["state"] = angle[:, None].astype(np.float32)
    assert "whole turn" in " ".join(data_card(source).notes)
    source.given[0].obs["state"] = np.unwrap(angle)[:, None].astype(np.float32)
    assert "whole turn" not in " ".join(data_card(source).notes)


def test_a_frozen_camera_is_pointed_out() -> None:
    source = FakeSource([10])
    episode = fake_episode(0, EpisodeInfo(10), ACTION, (8, 8), extra=False)
    episode.obs["image"][3:] = episode.obs["image"][3]
    card = data_card(ListSource([episode], source.spec))
    assert card.keys["image"].held == pytest.approx(6 / 9)
    assert "frozen" in " ".join(card.notes)


def test_the_contact_sheet_shows_the_frames() -> None:
    source = FakeSource([30, 40, 50])
    sheet = contact_sheet(source, [0, 2])
    assert sheet is not None
    colours = {str(colour) for _, colour in sheet.getcolors(1 << 20) or []}
    assert {"(0, 0, 7)", "(0, 29, 7)", "(2, 0, 7)", "(2, 49, 7)"} <= colours
    assert "(1, 0, 7)" not in colours


def test_the_text_is_plain_when_piped(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(InspectSettings(data=recorded))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert not re.search("[─━│╭]", out)
    for words in (
        "license",
        "MIT",
        "a test",
        "episodes",
        "state.row",
        "action: continuous",
        "lift",
        "push",
        "41 at 10",
    ):
        assert words in out


def test_json_page_and_picture_are_written(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, picture = tmp_path / "card.html", tmp_path / "sheet.png"
    inspect(InspectSettings(data=recorded, json=True, html=page, picture=picture))
    card = json.loads(capsys.readouterr().out)
    assert (card["episodes"], card["rows"], card["about"]["license"]) == (3, 41, "MIT")
    text = page.read_text()
    assert "data:image/jpeg;base64," in text
    assert not re.search(r"https?://|<script|<link|@import", text)
    assert 'name="viewport"' in text
    with Image.open(picture) as sheet:
        assert sheet.format == "PNG"
    assert not list(tmp_path.glob("*.tmp"))


def test_large_pictures_are_looked_at_small_and_their_own_size_is_stated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of videos would not fit into memory at its own size, which is no reason not to look at it."""
    save_video(tmp_path / "one.mp4", moving_square(9, 144, 256))
    monkeypatch.setattr(videos, "MOST_MEMORY", 9 * 3 * 72 * 128)
    inspect(InspectSettings(data=tmp_path, json=True, picture=tmp_path / "sheet.png"))
    card = json.loads(capsys.readouterr().out)
    assert card["keys"]["image"]["shape"] == [3, 144, 256]
    assert card["looked_at"] == [72, 128]
    inspect(InspectSettings(data=tmp_path, image_size=64))
    out = capsys.readouterr().out
    assert "3x144x256" in out
    assert "36 x 64 pixels" in out
    with pytest.raises(UserError, match="--image-size"):
        inspect(InspectSettings(data=tmp_path, image_size=0))


def test_small_pictures_are_looked_at_as_they_are(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(InspectSettings(data=recorded, json=True))
    assert json.loads(capsys.readouterr().out)["looked_at"] is None


def test_the_sheet_keeps_the_proportions_of_every_camera() -> None:
    obs = {"wide": KeySpec("image", (3, 100, 200)), "square": KeySpec("image", (3, 160, 160))}
    spec = DataSpec(obs, ActionSpec("continuous", 0), 10.0)
    assert looking_size(spec, 100) == (50, 100)
    frames = {key: np.zeros((6, 3, 50, 100), np.uint8) for key in obs}
    none, never = np.zeros(6, np.float32), np.zeros(6, bool)
    source = ListSource([Episode(frames, np.zeros((6, 0), np.float32), none, never, never)], spec)
    sheet = contact_sheet(source, [0], (50, 100))
    assert sheet is not None
    alone = contact_sheet(ListSource(source.given, spec.with_obs({"wide": obs["wide"]})), [0], (50, 100))
    assert alone is not None
    assert sheet.height - alone.height == CELL + GAP


def test_names_in_the_data_cannot_break_the_page() -> None:
    card = data_card(FakeSource([5], tasks=["<script>alert(1)</script>"]))
    assert "<script" not in card_page(card, None)


def test_a_broken_row_on_disk_is_listed_with_exit_code_0(recorded: Path) -> None:
    file = next(recorded.glob("data/**/*.parquet"))
    table = pq.read_table(file)
    states = table["observation.state"].to_pylist()
    states[14] = [float("nan")] * 3
    column = table.schema.get_field_index("observation.state")
    field = table.schema.field(column)
    spoiled = table.set_column(column, field, pa.array(states, field.type))
    pq.write_table(spoiled, file)
    ran = worldloom("inspect", str(recorded))
    assert ran.returncode == 0
    assert re.search(r"1\s+.*parquet.*row.*nan", ran.stdout)
    assert "1 of 3 episodes cannot be read" in ran.stdout


def test_nothing_readable_is_exit_code_2(recorded: Path) -> None:
    next(recorded.glob("data/**/*.parquet")).write_bytes(b"not a parquet file")
    ran = worldloom("inspect", str(recorded))
    assert ran.returncode == 2
    assert "parquet" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_output_places_that_cannot_be_written_are_refused(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its folder does not exist"):
        inspect(InspectSettings(data=recorded, html=tmp_path / "nowhere" / "card.html"))
    with pytest.raises(UserError, match="is a folder"):
        inspect(InspectSettings(data=recorded, picture=tmp_path))


def test_the_real_robot_sample_has_a_card() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "franka_sample"
    if not folder.exists():
        pytest.skip("the Franka sample dataset is not beside this repository")
    source = open_dataset(folder)
    source.episodes = source.episodes[:2]
    card = data_card(source, image_size=(24, 40))
    assert (card.episodes, card.rows, card.fps) == (2, 181, 4)
    cameras = {key: figures.shape for key, figures in card.keys.items() if figures.kind == "image"}
    assert cameras == dict.fromkeys(("left", "right", "wrist"), (3, 192, 320))
    assert card.broken == []
    assert card.signals["success"]["episodes"] == 2
    assert "state: rx: an angle" in " ".join(card.notes)


def worldloom(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from worldloom.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("option", ["html", "picture"])
def test_a_file_of_the_dataset_is_never_written_over(tmp_path: Path, option: str) -> None:
    record(tmp_path / "data", LEAN)
    info = tmp_path / "data/meta/info.json"
    before = info.read_bytes()
    with pytest.raises(UserError, match="a file of it"):
        inspect(InspectSettings(data=tmp_path / "data", **{option: info}))
    assert info.read_bytes() == before
