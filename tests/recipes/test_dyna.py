"""The mazes' recipe from end to end in seconds; what it is for takes minutes, and its figures are in results/."""

import json
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "recipes" / "dyna_maze.py"


def test_the_recipe_walks_and_imagines_in_all_three_mazes(tmp_path: Path) -> None:
    table = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(RECIPE), "--debug", "--json", str(table)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(table.read_text())
    assert [len(each["steps_by_episode"]) for each in figures["dyna_maze"].values()] == [8, 8, 8]
    for layout in ("blocking", "shortcut"):
        assert set(figures[layout]) == {"dyna_q", "dyna_q_plus"}
        assert all(len(curve) == 3 for curve in figures[layout].values())
