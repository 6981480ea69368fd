"""The recipe from end to end in seconds; what it is for takes hours, and its figures are in results/."""

from pathlib import Path

import pytest

from tests.recipes.running import figures


def test_the_recipe_learns_in_dreams_both_ways_continues_and_plays(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom", reason="the extra 'doom' is not installed")
    pytest.importorskip("cma", reason="the extra 'cma' is not installed")
    words = ["--temperatures", "0.1", "1.0", "--out", str(tmp_path / "runs")]
    found = figures("doom_dream", *words, folder=tmp_path, times=2)  # the second time all is there and only judged
    assert set(found["vae_rnn_cma"]) == {"0.1", "1.0"}
    for policy in (found["actor_critic"], *found["vae_rnn_cma"].values()):
        assert len(policy["reality"]["returns"]) == len(policy["dream"]["returns"]) == 2
    assert 0 <= found["actor_critic"]["survival"]["dream@10"]["value"] <= 1
    assert found["vae_rnn_cma"]["1.0"]["paper"]["reality"] == [868, 511]
