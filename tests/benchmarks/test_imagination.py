"""What the benchmark of imagination claims of itself: every family, honest counts, and absent worlds told as such."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType

import pytest

from worldloom.errors import MissingExtra
from worldloom.models import FAMILIES


@pytest.fixture
def imagination(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("imagination")


def test_the_debug_preset_measures_dreams_and_a_real_world(
    imagination: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    imagination.main(["--debug", "--json", "--families", "rssm", "mlp", "tdmpc", "--envs", "gym:CartPole-v1"])
    found = json.loads(capsys.readouterr().out)
    assert {"command", "hardware", "date"} <= set(found)
    rows = {(row["name"], row["unit"]): row for row in found["rows"]}
    for name in (
        "rssm nano, picture 64x64, batch 2, decoded",
        "mlp nano, vector of 24, batch 1",
    ):
        assert rows[name, "steps/s"]["value"] > 0
        assert rows[name, "steps/CPU-s"]["value"] > 0
    assert rows["gym:CartPole-v1 pixels=true", "steps/s"]["source"] == "real environment"
    assert not [name for name, _ in rows if name.startswith("tdmpc") and "decoded" in name]


def test_every_registered_family_is_measured_where_it_can_hold_the_data(imagination: ModuleType) -> None:
    there = {
        data: {name.split()[0] for name, _ in imagination.models(data, list(FAMILIES))} for data in imagination.DATA
    }
    assert there["image"] == set(FAMILIES) - {"mlp", "tabular"}
    assert there["vector"] == set(FAMILIES) - {"tabular"}
    sizes = [name for name, _ in imagination.models("vector", ["rssm"])]
    assert sizes == ["rssm debug", "rssm size1m", "rssm nano"]


def test_a_rate_is_steps_over_the_median_and_the_first_repetition_does_not_count(
    imagination: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent, clock = iter([100.0, 1.0, 2.0, 30.0]), [0.0]

    def work() -> None:
        clock[0] += next(spent)

    monkeypatch.setattr(imagination.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(imagination, "processor_seconds", lambda: clock[0] / 4)
    wall, processor = imagination.per_second("work", work, 10, 3, "fp32", "worldloom")
    assert (wall.value, wall.unit) == (5.0, "steps/s")
    assert (processor.value, processor.unit) == (20.0, "steps/CPU-s")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only /proc tells")
def test_the_time_of_a_process_that_was_started_counts(imagination: ModuleType) -> None:
    line = "x = 0\nfor i in range(3_000_000): x += i\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        assert started.pid in imagination.children()
        assert imagination.seconds_of(started.pid) > 0
        assert imagination.processor_seconds() > time.process_time()
        started.communicate(b"\n")


def test_a_world_that_is_not_installed_is_a_row_without_a_value_that_says_what_to_type(
    imagination: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, **_: object) -> None:
        raise MissingExtra(f"{name} needs a package. Type: pip install it")

    monkeypatch.setattr(imagination, "make_env", absent)
    rows = imagination.reality("doom", imagination.Asked())
    assert [row.value for row in rows] == [None, None]
    assert "Type: pip install it" in rows[0].source


@pytest.mark.parametrize("words", [["--batches", "0"], ["--repetitions", "0"], ["--families", "oracle"]])
def test_what_cannot_be_measured_is_refused(imagination: ModuleType, words: list[str]) -> None:
    with pytest.raises(SystemExit):
        imagination.main(words)
