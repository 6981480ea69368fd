"""The recipe from end to end in seconds; what it is for takes an hour, and its figures are in results/."""

import json
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "recipes" / "explore.py"


def test_the_recipe_learns_both_ways_continues_and_writes_its_curves(tmp_path: Path) -> None:
    table = tmp_path / "curves.json"
    command = [sys.executable, str(RECIPE), "--debug", "--seeds", "0", "--out", str(tmp_path / "runs")]
    for _ in range(2):  # the second time everything is there and only read
        subprocess.run([*command, "--json", str(table)], check=True, capture_output=True, text=True)
    exploring, alone = json.loads(table.read_text())["runs"]
    assert [exploring["arm"], alone["arm"]] == ["exploring", "alone"]
    for run in (exploring, alone):
        assert run["first arrival, decisions"] is None  # nobody climbs in twenty steps
        assert run["curve"][-1]["decisions"] == 60
        assert len(run["final"]["returns"]) == 2
