"""The walls of the house: who may import whom. Read off the source, so that lazy imports count too."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from worldloom import cli
from worldloom.cli import COMMANDS
from worldloom.models import FAMILIES

PACKAGE = Path(__file__).parents[1] / "worldloom"
# From the ground up: a floor imports from itself and from those below it, never from one above.
FLOORS = (
    "errors registry flags console limits interrupts",
    "stats render",
    "data",
    "schedule noise model",
    "nets",
    "models",
    "conformance",
    "runs",
    "envs",
    "planners",
    "agents",
    "training",
    "evaluation",
    "learning",
    "safety augment",
    "play",
    "commands",
    "cli __main__",
)
LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor.split()}
CONSUMERS = tuple(name for floor in FLOORS[8:] for name in floor.split() if (PACKAGE / name).is_dir())
FILES = sorted(path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """(file, imported module) of every import below a folder of the package."""
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for module in imported_by(path):
            yield str(path.relative_to(PACKAGE)), module


def imported_by(path: Path) -> Iterator[str]:
    """Every module that a file names, inside functions and behind TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (full if (full := f"{node.module}.{n.name}") in MODULES else node.module for n in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def level(module: str) -> int | None:
    """The floor of a module of worldloom; None for the package itself, which only says its version."""
    parts = module.split(".")
    return LEVEL[parts[1]] if parts[0] == "worldloom" and len(parts) > 1 and parts[1] in LEVEL else None


def test_every_folder_and_file_has_its_floor() -> None:
    assert {path.stem for path in PACKAGE.iterdir() if path.stem not in ("__init__", "__pycache__", "py")} == set(LEVEL)


def test_nothing_imports_from_a_floor_above_its_own() -> None:
    upwards = []
    for module, path in MODULES.items():
        for imported in imported_by(PACKAGE.parent / path):
            here, there = level(module), level(imported)
            if here is not None and there is not None and there > here:
                upwards.append(f"{module} imports {imported}")
    assert upwards == []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {name: {m for m in imported_by(PACKAGE.parent / path) if m in MODULES} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_families_never_meet_consumers(consumer: str) -> None:
    families = {entry.split(":")[0] for entry in FAMILIES.entries.values()}
    assert [(file, module) for file, module in imports(consumer) if module in families] == []


@pytest.mark.parametrize("module", ["torchvision", "lightning", "cv2", "lerobot", "pickle"])
def test_nothing_imports_what_the_core_must_not_need(module: str) -> None:
    assert [file for file, name in imports(".") if name.split(".")[0] == module] == []


def test_one_class_name_is_one_thing() -> None:
    homes: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse((PACKAGE.parent / path).read_text()).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, set()).add(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


# Beliefs have methods (`worldloom.model.State`); only who makes them, and what is no belief, is taken apart.
PYTREES = {
    "model.py",
    "models/ensemble.py",  # what `torch.func.vmap` returns
    "learning/stable_baselines.py",  # the replay batches of another library
}


def test_nobody_outside_a_family_takes_beliefs_apart() -> None:
    assert {file for file, module in imports(".") if module.startswith("torch.utils")} <= PYTREES


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}; from worldloom.cli import main; main(); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'tyro')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(command, ["--help"])
    assert not ended.value.code
    assert f"worldloom {command}" in capsys.readouterr().out


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
