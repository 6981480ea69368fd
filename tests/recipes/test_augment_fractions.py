"""The recipe of imagined fractions from end to end in seconds; what it is for takes minutes."""

from pathlib import Path

from tests.recipes.running import figures


def test_the_recipe_records_augments_learns_and_plays_every_fraction(tmp_path: Path) -> None:
    found = figures("augment_fractions", "--out", str(tmp_path / "run"), folder=tmp_path)
    assert list(found["real_return"]) == ["0%", "20%", "40%", "60%", "80%", "ten times the real data"]
    assert [len(scores) for scores in found["by_seed"]] == [6]
    assert found["imagined"][0]["begun"] == 0
    assert found["imagined"][4]["begun"] > 0
    assert (tmp_path / "figures.svg").read_text().count("<circle") == 5
