"""The recipe from end to end in seconds; what it is for takes an hour, and its figures are in results/."""

from pathlib import Path

from tests.recipes.running import figures


def test_the_recipe_learns_both_ways_continues_and_writes_its_curves(tmp_path: Path) -> None:
    words = ["--seeds", "0", "--out", str(tmp_path / "runs")]
    found = figures("explore", *words, folder=tmp_path, times=2)  # the second time everything is there and only read
    exploring, alone = found["runs"]
    assert [exploring["arm"], alone["arm"]] == ["exploring", "alone"]
    for run in (exploring, alone):
        assert run["first arrival, decisions"] is None  # nobody climbs in twenty steps
        assert run["curve"][-1]["decisions"] == 60
        assert len(run["final"]["returns"]) == 2
