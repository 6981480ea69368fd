"""Peers are found, run and reported; the driver is replaced by a few lines, since tests have no peer."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from worldloom.errors import UserError


@pytest.fixture
def peers(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("peers")


@pytest.fixture
def driver(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("peer_driver")


def use_driver(peers: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, lines: str) -> None:
    """Point at this interpreter and an empty checkout, and run `lines` instead of the real driver."""
    (folder / "driver.py").write_text(f"import json, sys\n{lines}\n")
    monkeypatch.setattr(peers, "DRIVER", folder / "driver.py")
    monkeypatch.setenv("WORLDLOOM_PEER_DREAMERV3", f"{sys.executable}:{folder}")


def test_an_absent_peer_is_a_row_without_a_value_that_says_how_to_point_at_it(peers: ModuleType) -> None:
    (row,) = peers.measure("dreamerv3", "vector")
    assert row.value is None
    assert "not installed; set WORLDLOOM_PEER_DREAMERV3=PYTHON:CHECKOUT" in row.source


def test_a_peer_is_run_by_its_own_interpreter_and_its_last_line_counts(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = "{'cpu_ms': [9.0, 7.0, 8.0], 'parameters': 640867, 'library': ' '.join(sys.argv[1:])}"
    use_driver(peers, monkeypatch, tmp_path, f"print('noise')\nprint(json.dumps({result}))")
    middle, least, parameters = peers.measure("dreamerv3", "image", updates=3)
    assert (middle.value, least.value, parameters.value) == (8.0, 7.0, 640867)
    assert (middle.unit, middle.threads, middle.dtype) == ("CPU-ms", 1, "float32")
    assert middle.source == f"danijar/dreamerv3, dreamerv3 {tmp_path} image 3"


def test_a_peer_that_fails_leaves_a_row_and_its_last_words(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use_driver(peers, monkeypatch, tmp_path, "sys.exit('no module named jax')")
    (row,) = peers.measure("dreamerv3", "vector")
    assert row.value is None
    assert "failed" in row.source
    assert "no module named jax" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["python", "nowhere/python:nowhere", f"{sys.executable}:nowhere"])
def test_a_variable_that_points_nowhere_is_named_with_its_value(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("WORLDLOOM_PEER_R2DREAMER", setting)
    with pytest.raises(UserError, match=r"WORLDLOOM_PEER_R2DREAMER=.*does not point at a peer") as error:
        peers.measure("r2dreamer", "vector")
    assert repr(setting) in str(error.value)


def test_an_unknown_peer_gets_the_nearest_name(peers: ModuleType) -> None:
    with pytest.raises(UserError, match="Did you mean 'dreamerv3'"):
        peers.measure("dreamer3", "vector")


def test_the_warm_up_is_not_counted(driver: ModuleType) -> None:
    losses = itertools.count(1)
    assert len(driver.cpu_milliseconds(lambda: next(losses), updates=4)) == 4
    assert next(losses) == 1 + driver.WARM_UP + 4


def test_an_update_without_a_finite_loss_is_no_measurement(driver: ModuleType) -> None:
    with pytest.raises(AssertionError, match="loss is nan"):
        driver.cpu_milliseconds(lambda: float("nan"), updates=1)
