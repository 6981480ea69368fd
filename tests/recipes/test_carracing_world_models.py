"""The recipe from end to end in seconds; what it is for takes hours."""

from pathlib import Path

import pytest

from tests.recipes.running import figures


def test_the_recipe_records_trains_evolves_plays_and_does_nothing_twice(tmp_path: Path) -> None:
    pytest.importorskip("Box2D", reason="the extra 'box2d' is not installed")
    pytest.importorskip("cma", reason="the extra 'cma' is not installed")
    # The second time everything is there and only judged.
    first, again = (
        figures("carracing_world_models", "--out", str(tmp_path / "runs"), folder=tmp_path) for _ in range(2)
    )
    assert first["frames"] >= 60
    assert set(first["minutes"]) == {"record", "train", "learn", "play"}
    assert all(again["minutes"][stage] == first["minutes"][stage] for stage in ("record", "train", "learn"))
    for who in ("controller", "dream", "random"):
        assert len(first[who]["returns"]) == 2
        assert first[who]["returns"] == again[who]["returns"]
        assert first[who]["low"] <= first[who]["mean"] <= first[who]["high"]
    assert first["paper"]["z and h"] == [906, 21]
