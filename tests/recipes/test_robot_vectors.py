"""The recipe of the robot of two arms from end to end in seconds; what it is for takes an hour."""

from pathlib import Path

from tests.recipes.running import figures


def test_every_arm_is_trained_judged_and_not_trained_twice(tmp_path: Path) -> None:
    words = ["--seeds", "0", "--out", str(tmp_path / "runs")]
    runs = figures("robot_vectors", *words, folder=tmp_path, times=2)["runs"]
    assert [run["arm"] for run in runs] == ["mlp", "rssm", "rssm-latent"]
    for run in runs:
        assert run["updates"] == 20
        assert run["skill"]["state@5"]["low"] <= run["skill"]["state@5"]["value"] <= run["skill"]["state@5"]["high"]
    assert len({run["linear"]["state@5"]["value"] for run in runs}) == 1, "one baseline for all"
    assert runs[1]["skill"]["state@1"]["value"] > runs[2]["skill"]["state@1"]["value"]
