"""The walls of the house: who may import whom. Read off the source, so that lazy imports count too."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from worldloom.cli import COMMANDS
from worldloom.models import FAMILIES

PACKAGE = Path(__file__).parents[1] / "worldloom"
CONSUMERS = ("augment", "evaluation", "training", "planners", "agents", "learning", "safety", "play")


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """(file, imported module) of every import below a folder of the package."""
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield str(path.relative_to(PACKAGE)), node.module
            elif isinstance(node, ast.Import):
                yield from ((str(path.relative_to(PACKAGE)), alias.name) for alias in node.names)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_families_never_meet_consumers(consumer: str) -> None:
    families = {entry.split(":")[0] for entry in FAMILIES.entries.values()}
    assert [(file, module) for file, module in imports(consumer) if module in families] == []


@pytest.mark.parametrize("folder", ["models", "nets", "data", "envs"])
def test_what_is_used_never_imports_its_users(folder: str) -> None:
    forbidden = tuple(f"worldloom.{name}" for name in CONSUMERS)
    assert [(file, module) for file, module in imports(folder) if module.startswith(forbidden)] == []


@pytest.mark.parametrize("module", ["torchvision", "lightning", "cv2", "lerobot", "pickle"])
def test_nothing_imports_what_the_core_must_not_need(module: str) -> None:
    assert [file for file, name in imports(".") if name.split(".")[0] == module] == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}; from worldloom.cli import main; main(); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'tyro')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_options(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worldloom", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"worldloom {command}" in done.stdout


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("inspct", "inspect")])
def test_a_mistyped_command_offers_the_nearest(typed: str, meant: str) -> None:
    done = subprocess.run([sys.executable, "-m", "worldloom", typed], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"Did you mean '{meant}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_the_system_is_one_line(tmp_path: Path) -> None:
    too_long = str(tmp_path / ("x" * 300))
    arguments = [sys.executable, "-m", "worldloom", "record", "gym:CartPole-v1", too_long, "--episodes", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "too long" in done.stderr
    assert "Traceback" not in done.stderr
