"""The log survives kills, the lines say what matters, previews show the right rows."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.toy import ToyConfig, ToyModel, toy_segment, toy_spec
from worldloom.errors import UserError
from worldloom.training.distributed import ProcessGroup
from worldloom.training.objective import WeightedLoss
from worldloom.training.preview import CONTEXT, film_strips, save_previews
from worldloom.training.progress import Display, Log, Meter, clock, reading

RECORD = {
    "step": 50, "loss": 1.5, "terms": {"image": 1.0, "state": 0.5}, "gradient_norm": 2.0,
    "steps_per_second": 10.0, "frames_per_second": 10_240.0, "seconds": 5.0,
}  # fmt: skip


def test_a_resumed_log_forgets_what_came_after_the_checkpoint_and_half_a_line(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 2, "lo')
    log = Log(tmp_path, step=2)
    log.write({"step": 3})
    log.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_a_log_that_cannot_be_written_names_its_file() -> None:
    log = Log(Path("/dev"), is_main=False)
    log.path = Path("/dev/full")
    log.file = log.path.open("ab", buffering=0)
    with pytest.raises(UserError, match=r"/dev/full could not be written \(No space left on device\)"):
        log.write({"step": 1})


def test_the_meter_gives_means_since_the_last_reading() -> None:
    meter = Meter()
    for loss in (1.0, 3.0):
        meter.start()
        meter.add(WeightedLoss(torch.tensor(loss), {"image": torch.tensor(2 * loss)}), torch.tensor(0.5), rows=100)
    first = meter.read(ProcessGroup())
    assert (first["loss"], first["terms"], first["gradient_norm"]) == (2.0, {"image": 4.0}, 0.5)
    assert first["frames_per_second"] == pytest.approx(100 * first["steps_per_second"])
    meter.start()
    meter.add(WeightedLoss(torch.tensor(9.0), {"image": torch.tensor(1.0)}), torch.tensor(0.5), rows=100)
    assert meter.read(ProcessGroup())["loss"] == 9.0


def test_a_reading_tells_terms_rates_and_the_time_left() -> None:
    losses, rates = reading(RECORD, progress=0.25)
    assert losses == "loss 1.5  (image 1  state 0.5)"
    assert rates == "10 steps/s  10,240 frames/s  0:15 left"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (61, "1:01"), (3725, "1:02:05"), (float("nan"), "?")])
def test_times_read_like_a_clock(seconds: float, words: str) -> None:
    assert clock(seconds) == words


def test_without_a_terminal_each_reading_is_one_plain_line() -> None:
    out = io.StringIO()
    with Display(200, Console(file=out, width=40)) as display:
        display.show(RECORD, 0.25)
        display.show({**RECORD, "step": 100}, 0.5)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("step 100/200  loss 1.5")
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_the_reading_is_drawn_and_then_cleared() -> None:
    out = io.StringIO()
    with Display(200, Console(file=out, width=80, force_terminal=True)) as display:
        display.say("a line that stays")
        display.show(RECORD, 0.25)
        display.live.refresh()
    assert "step 50/200" in out.getvalue()
    assert "image 1" in out.getvalue()
    assert "a line that stays" in out.getvalue()


def test_a_preview_sets_what_was_imagined_under_what_happened() -> None:
    model, segment = ToyModel(toy_spec(), ToyConfig(hidden=8)), toy_segment(1, 12, seed=3)
    with torch.no_grad():
        picture = film_strips(model, segment)["image"]
    pixels = np.asarray(picture)
    assert picture.width > 128 * (12 - CONTEXT)
    assert pixels[60:100, 10:100].std() > 0


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
def test_short_episodes_are_drawn_as_far_as_they_go(tmp_path: Path, rows: int) -> None:
    model = ToyModel(toy_spec(), ToyConfig(hidden=8))
    with torch.no_grad():
        paths = save_previews(film_strips(model, toy_segment(1, rows)), tmp_path / "previews", step=7)
    assert [path.name for path in paths] == (["step-00000007-image.png"] if rows > 1 else [])
