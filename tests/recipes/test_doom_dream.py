"""The recipe from end to end in seconds; what it is for takes hours, and its figures are in results/."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "doom_dream.py"


def test_the_recipe_learns_in_dreams_both_ways_continues_and_plays(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom", reason="the extra 'doom' is not installed")
    pytest.importorskip("cma", reason="the extra 'cma' is not installed")
    table = tmp_path / "figures.json"
    command = [sys.executable, str(RECIPE), "--debug", "--temperatures", "0.1", "1.0", "--out", str(tmp_path / "runs")]
    for _ in range(2):  # the second time everything is there and only judged
        done = subprocess.run([*command, "--json", str(table)], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(table.read_text())
    assert set(figures["vae_rnn_cma"]) == {"0.1", "1.0"}
    for found in (figures["actor_critic"], *figures["vae_rnn_cma"].values()):
        assert len(found["reality"]["returns"]) == len(found["dream"]["returns"]) == 2
    assert 0 <= figures["actor_critic"]["survival"]["dream@10"]["value"] <= 1
    assert figures["vae_rnn_cma"]["1.0"]["paper"]["reality"] == [868, 511]
