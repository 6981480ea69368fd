"""The environment tutorial does what it says: its files are written out and its first commands are run."""

import re
from pathlib import Path

import pytest

from worldloom.commands.record import RecordSettings, record
from worldloom.data.source import open_dataset
from worldloom.envs import check_env, make_env

PAGE = Path(__file__).parents[1] / "docs" / "your-own-env.md"


def test_the_environment_of_the_tutorial_is_at_most_ten_lines_and_can_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert len([line for line in files["corridor.py"].splitlines() if line]) <= 10
    check_env(make_env("corridor:Corridor"))
    record(RecordSettings(env="corridor:Corridor", out=Path("data"), episodes=3, num_envs=1, policy="mine:to_the_wall"))
    source = open_dataset("data")
    assert source.spec.action.names == ("left", "right")
    assert source.spec.obs["state"].shape == (1,)
    assert source.read(0).terminated[-1]
