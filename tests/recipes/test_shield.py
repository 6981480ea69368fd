"""The shield's recipes from end to end in seconds; what they are for takes longer, and its figures are in results/."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", ["shield_point", "shield_arm"])
def test_a_recipe_records_trains_calibrates_and_counts(name: str, tmp_path: Path) -> None:
    if name == "shield_arm":
        pytest.importorskip("dm_control", reason="the extra 'dmc' is not installed")
    table = tmp_path / "figures.json"
    command = [sys.executable, str(RECIPES / f"{name}.py"), "--debug", "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, "--json", str(table)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(table.read_text())
    assert set(figures["promise"]["missed_by_horizon"]) <= {i / 8 for i in range(9)}
    for world in figures["worlds"].values():
        assert set(world) == {"bare", "shielded", "tolerant", "tolerant_not_adaptive"}
        assert sum(world["shielded"]["verdicts"].values()) == pytest.approx(1)
        assert world["shielded"]["decisions"] == 4 * {"shield_point": 14, "shield_arm": 12}[name]
    assert (tmp_path / "run" / "calibration.json").exists()


def test_a_learned_cost_is_on_the_card_and_guards_the_drives(tmp_path: Path) -> None:
    table = tmp_path / "figures.json"
    command = [sys.executable, str(RECIPES / "shield_cost.py"), "--debug", "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, "--json", str(table)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(table.read_text())
    assert {key.partition("@")[0] for key in figures["card"]["signal_auroc"]} == {"cost"}
    cost = figures["card"]["signal_auroc"]["cost"]  # so few updates learn nothing: only the interval is checked
    assert 0 <= cost["low"] <= cost["value"] <= cost["high"] <= 1
    assert cost["low"] < cost["high"]
    assert set(figures["drives"]) == {"bare", "shielded"}
    assert sum(figures["drives"]["shielded"]["verdicts"].values()) == pytest.approx(1)
