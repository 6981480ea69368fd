"""The page on a family from outside does what it says: its files are written out, and its commands and code are run."""

import asyncio
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tyro

from tests.play.playing import player, said
from worldloom import cli, registry
from worldloom.commands.play import PlaySettings, open_context
from worldloom.errors import NotAllowed
from worldloom.play.context import ServerContext

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-family.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [
    line.split(maxsplit=1)[1]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
SNIPPETS = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if block not in FILES.values()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's files, in the current folder, and what its commands made there."""
    made = tmp_path_factory.mktemp("outside")
    for name, text in FILES.items():
        (made / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.syspath_prepend(made)
        for command in COMMANDS:
            run(command, patch)
        yield made
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def run(command: str, patch: pytest.MonkeyPatch) -> None:
    """A command as in a process of its own, in which nothing is allowed yet; `play` would go on for ever."""
    patch.setattr(registry, "_allowed", set())
    name, *arguments = shlex.split(command)
    if name != "play":
        cli.run(name, arguments)


def test_the_family_has_sixty_lines_and_every_command_does_its_part(folder: Path) -> None:
    lines = [line for line in FILES["drift.py"].splitlines() if line.strip()]
    assert len(lines) <= 60
    assert all(len(line) <= 120 for text in FILES.values() for line in text.splitlines())
    assert (folder / "runs" / "drift" / "report.html").exists()
    assert (folder / "runs" / "drift" / "plan" / "point-mppi" / "score.json").exists()


def test_the_metric_stands_on_the_card_and_in_the_report(folder: Path) -> None:
    card = (folder / "runs" / "drift" / "card.json").read_text()
    report = (folder / "runs" / "drift" / "report.html").read_text()
    assert '"judging:worst"' in card
    assert "Worst error" in report


def test_its_python_runs_as_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_allowed", set())
    names: dict[str, object] = {}
    for block in SNIPPETS:
        exec(block, names)
    assert type(names["model"]).__name__ == "Drift"


def test_it_is_played(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_allowed", set())
    (line,) = [command for command in COMMANDS if command.startswith("play")]
    settings = tyro.cli(PlaySettings, args=shlex.split(line)[1:])
    with pytest.raises(NotAllowed, match="--allow drift:Drift"):
        open_context(replace(settings, trust=False))
    registry.allow(*settings.allow)
    asyncio.run(step(open_context(replace(settings, trust=False))))


async def step(context: ServerContext) -> None:
    async with player(context) as me:
        (answer,) = await said(me, "step", action=[1.0, 0.0])
        assert np.isfinite(answer["moment"]["vectors"]["state"]).all()
