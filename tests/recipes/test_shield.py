"""The shield's recipes from end to end in seconds; what they are for takes longer, and its figures are in results/."""

from pathlib import Path

import pytest

from tests.recipes.running import figures


@pytest.mark.parametrize("name", ["shield_point", "shield_arm"])
def test_a_recipe_records_trains_calibrates_and_counts(name: str, tmp_path: Path) -> None:
    if name == "shield_arm":
        pytest.importorskip("dm_control", reason="the extra 'dmc' is not installed")
    found = figures(name, "--out", str(tmp_path / "run"), folder=tmp_path)
    assert set(found["promise"]["missed_by_horizon"]) <= {i / 8 for i in range(9)}
    for world in found["worlds"].values():
        assert set(world) == {"bare", "shielded", "tolerant", "tolerant_not_adaptive"}
        assert sum(world["shielded"]["verdicts"].values()) == pytest.approx(1)
        assert world["shielded"]["decisions"] == 2 * 6
    assert (tmp_path / "run" / "calibration.json").exists()


def test_a_learned_cost_is_on_the_card_and_guards_the_drives(tmp_path: Path) -> None:
    found = figures("shield_cost", "--out", str(tmp_path / "run"), folder=tmp_path)
    assert {key.partition("@")[0] for key in found["card"]["signal_auroc"]} == {"cost"}
    cost = found["card"]["signal_auroc"]["cost"]  # so few updates learn nothing: only the interval is checked
    assert 0 <= cost["low"] <= cost["value"] <= cost["high"] <= 1
    assert cost["low"] < cost["high"]
    assert set(found["drives"]) == {"bare", "shielded"}
    assert sum(found["drives"]["shielded"]["verdicts"].values()) == pytest.approx(1)
