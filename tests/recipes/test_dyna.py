"""The mazes' recipe from end to end in seconds; what it is for takes minutes, and its figures are in results/."""

from pathlib import Path

from tests.recipes.running import figures


def test_the_recipe_walks_and_imagines_in_all_three_mazes(tmp_path: Path) -> None:
    found = figures("dyna_maze", folder=tmp_path)
    assert [len(each["steps_by_episode"]) for each in found["dyna_maze"].values()] == [8, 8, 8]
    for layout in ("blocking", "shortcut"):
        assert set(found[layout]) == {"dyna_q", "dyna_q_plus"}
        assert all(len(curve) == 3 for curve in found[layout].values())
