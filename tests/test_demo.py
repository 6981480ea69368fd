"""The demo, small: the commands of `make demo` and of the README, one after the other, on a few seconds of Doom."""

import contextlib
import io
import json
from pathlib import Path

import pytest

from worldloom import cli

pytest.importorskip("vizdoom", reason="the extra 'doom' is not installed")

SMALL = ["--size", "debug", "--steps", "30", "--length", "16", "--batch-size", "4", "--held-out", "0.4"]


def worldloom(folder: Path, command: str, *arguments: str) -> str:
    """What a command prints when it is typed in `folder`."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        cli.run(command, list(arguments))
    return printed.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has run."""
    folder = tmp_path_factory.mktemp("demo")
    worldloom(folder, "record", "doom", "data/doom", "--episodes", "5", "--num-envs", "2", "--max-episode-steps", "60")
    worldloom(folder, "train", "rssm", "data/doom", "--out", "runs/doom", *SMALL)
    worldloom(folder, "evaluate", "runs/doom", "--windows", "16", "--samples", "2", "--horizons", "1", "5")
    return folder


def test_the_demo_ends_with_a_card_and_a_page(folder: Path) -> None:
    card = json.loads((folder / "runs/doom/card.json").read_text())
    for metric in ("skill", "psnr", "ssim", "controllability", "skill_minus_linear"):
        figure = card["metrics"][metric]["image@5"]
        assert figure["low"] <= figure["value"] <= figure["high"], metric
    assert set(card["baselines"]) >= {"persistence", "mean", "linear"}
    page = (folder / "runs/doom/report.html").read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="http' not in page


def test_the_recording_can_be_inspected(folder: Path) -> None:
    figures = json.loads(worldloom(folder, "inspect", "data/doom", "--json"))
    assert json.dumps(figures).count("doom") > 0


def test_the_model_can_be_left_to_dream(folder: Path) -> None:
    worldloom(
        folder, "imagine", "runs/doom", "--from", "0:10", "--actions", "random", "--out", "dream.mp4", "--steps", "8"
    )
    assert (folder / "dream.mp4").stat().st_size > 1000
    worldloom(
        folder, "imagine", "runs/doom", "--from", "0:10", "--actions", "recorded", "--out", "dream", "--steps", "8"
    )
    about = json.loads((folder / "dream/meta/info.json").read_text())["worldloom"]["about"]
    assert "synthetic" in about
