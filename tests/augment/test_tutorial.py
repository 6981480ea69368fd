"""The tutorial does what it says: its commands and its Python run as written, for a moment."""

import re
import shlex
from pathlib import Path

import pytest

from worldloom.cli import run
from worldloom.data.source import open_dataset

PAGE = Path(__file__).parents[2] / "docs" / "augment.md"


def test_the_tutorial_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDLOOM_CACHE", str(tmp_path / "cache"))
    page = PAGE.read_text().replace("--steps 500", "--steps 5").replace("updates=2000", "updates=3")
    for line in "".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL)).splitlines():
        _, command, *arguments = shlex.split(line)
        run(command, arguments)
    assert "of the rows are imagined by a model" in capsys.readouterr().out
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert names["share"] == pytest.approx(0.3, abs=0.01)
    assert len(names["real"]) == len(open_dataset("data/point").episodes)  # type: ignore[arg-type]
    assert len(names["agents"]) == 2  # type: ignore[arg-type]
