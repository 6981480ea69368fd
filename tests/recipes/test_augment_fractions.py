"""The recipe of imagined fractions from end to end in seconds; what it is for takes minutes."""

import json
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "recipes" / "augment_fractions.py"


def test_the_recipe_records_augments_learns_and_plays_every_fraction(tmp_path: Path) -> None:
    table = tmp_path / "figures.json"
    command = [sys.executable, str(RECIPE), "--debug", "--out", str(tmp_path / "run"), "--json", str(table)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(table.read_text())
    assert list(figures["real_return"]) == ["0%", "20%", "40%", "60%", "80%", "ten times the real data"]
    assert [len(scores) for scores in figures["by_seed"]] == [6]
    assert figures["imagined"][0]["begun"] == 0
    assert figures["imagined"][4]["begun"] > 0
    assert table.with_suffix(".svg").read_text().count("<circle") == 5
