"""The package as it is installed: pins, extras, and what a bare machine will meet."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
APART = {"pusht"}
NEEDS_CUDA_TORCH = ("torchvision", "torchaudio", "lpips", "torch-fidelity", "timm", "lightning", "torchcodec", "triton")


def installed_extras() -> list[str]:
    """The extras that `make setup` installs, which is where this suite runs."""
    found = re.search(r"^EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    return found.group(1).split(",")


def closure(requirements: list[str]) -> Iterator[tuple[str, Requirement]]:
    """Every requirement, direct or not, of installed packages: (who asks, what is asked)."""
    waiting, seen = [("worldloom", Requirement(text), "") for text in requirements], set()
    while waiting:
        asker, wanted, extra = waiting.pop()
        if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
            continue
        yield asker, wanted
        for wanted_extra in ("", *wanted.extras):
            if (wanted.name, wanted_extra) not in seen:
                seen.add((wanted.name, wanted_extra))
                inner = metadata.requires(wanted.name) or []
                waiting += [(wanted.name, Requirement(text), wanted_extra) for text in inner]


def test_torch_is_the_pinned_one_with_every_extra_installed() -> None:
    import torch

    assert Version(torch.__version__).public == PINS["torch"]


@pytest.mark.parametrize("extra", installed_extras())
def test_an_extra_asks_for_nothing_that_would_replace_torch(extra: str) -> None:
    for asker, wanted in closure(EXTRAS[extra]):
        assert canonicalize_name(wanted.name) not in NEEDS_CUDA_TORCH, f"{asker} asks for {wanted}"
        if wanted.name == "torch":
            assert wanted.specifier.contains(PINS["torch"]), f"{asker} asks for {wanted}"


def test_make_setup_installs_every_extra_but_those_that_clash() -> None:
    assert set(installed_extras()) == set(EXTRAS) - APART


def test_the_pins_satisfy_what_the_project_asks_for() -> None:
    asked = [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    for text in asked:
        wanted = Requirement(text)
        assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)]), f"{text} is not what is pinned"


def test_everything_that_is_installed_is_pinned() -> None:
    asked = [*PROJECT["dependencies"], *(text for extra in installed_extras() for text in EXTRAS[extra])]
    for asker, wanted in closure(asked):
        name = canonicalize_name(wanted.name)
        assert name in PINS, f"{wanted.name}, which {asker} asks for, is not in constraints.txt"
        assert Version(metadata.version(wanted.name)).public == PINS[name], f"{wanted.name} is not the pinned version"


def test_every_missing_package_names_an_extra_that_exists() -> None:
    calls = [
        (path.name, extra)
        for path in (ROOT / "worldloom").rglob("*.py")
        for extra in re.findall(r"require\(\s*\"[\w.]+\",\s*\"(\w+)\"", path.read_text())
    ]
    assert len(calls) >= 6
    assert not [call for call in calls if call[1] not in EXTRAS]


@pytest.mark.parametrize("module", ["worldloom.cli", "worldloom.envs.pool", "tests.envs.fakes"])
def test_what_must_start_quickly_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_licence_is_apache_2() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
