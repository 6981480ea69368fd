"""Names lead to objects: known ones, those of installed packages, and those that the user typed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import train_toy
from tests.outside import install
from tests.toy import toy_spec, write_toy_dataset
from worldloom import registry
from worldloom.commands.learn import with_methods
from worldloom.data.source import FORMATS, open_dataset
from worldloom.envs import make_env
from worldloom.errors import NotAllowed, UserError
from worldloom.evaluation.metrics import METRICS
from worldloom.learning.methods import METHODS
from worldloom.models import FAMILIES, build
from worldloom.planners import OBJECTIVES, PLANNERS
from worldloom.registry import Registry
from worldloom.runs import checkpoint

GOOD = """
from tests.toy import ToyModel
class Good(ToyModel):
    pass
"""
BROKEN = "raise RuntimeError('out of cheese')\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages: nothing is allowed, and modules are forgotten afterwards."""
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(registry, "_allowed", set())
    before = set(sys.modules)
    yield tmp_path / "site"
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("good", "broken", "twin", "homemade"):
            del sys.modules[name]


def test_an_installed_package_adds_a_family_by_name(site: Path) -> None:
    install(site, "good", GOOD, {"worldloom.families": {"good": "good:Good"}})
    assert "good" in FAMILIES
    assert list(FAMILIES)[-1] == "good"
    assert "good" not in sys.modules, "listing imports nothing"
    assert build("good", toy_spec(), "debug").family == "good"


def test_a_run_of_an_installed_family_needs_no_flag(site: Path, tmp_path: Path) -> None:
    install(site, "good", GOOD, {"worldloom.families": {"good": "good:Good"}})
    data = write_toy_dataset(tmp_path / "data", episodes=4, length=10)
    for name in ("good", "good:Good"):
        run = tmp_path / name.replace(":", "-")
        train_toy(run, data, name, size="debug", steps=1, length=4)
        model, found = checkpoint.load(run)
        assert (type(model).__name__, found.family) == ("Good", name)


def test_help_lists_installed_names_without_importing_them(site: Path) -> None:
    points = {"worldloom.families": {"shiny": "broken:F"}, "worldloom.formats": {"clever": "broken:P"}}
    install(site, "broken", BROKEN, points)
    for command, name in (("train", "shiny"), ("import", "clever")):
        done = helped(command, site)
        assert name in done.stdout
        assert done.stderr == ""


def helped(command: str, site: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from worldloom.cli import run; run({command!r}, ['--help'])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["train", "learn"])
def test_the_help_of_training_does_not_wait_for_torch(command: str) -> None:
    code = (
        "import sys\nfrom worldloom.cli import run\n"
        f"try:\n    run({command!r}, ['--help'])\nexcept SystemExit:\n    sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_package_that_cannot_be_imported_is_named_with_its_error_and_the_rest_works(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = ("families", "planners", "formats", "learning", "metrics", "objectives")
    install(site, "broken", BROKEN, {f"worldloom.{group}": {"cheese": "broken:Thing"} for group in groups})
    for each in (FAMILIES, PLANNERS, FORMATS, METHODS, METRICS, OBJECTIVES):
        with pytest.raises(UserError, match=r"'cheese' of the package broken 1\.0 .*RuntimeError: out of cheese"):
            each["cheese"]
    assert build("mlp", toy_spec().with_obs({"state": toy_spec().obs["state"]})).family == "mlp"
    with_methods(["dreamer"])
    assert "WARNING: learning method 'cheese' of the package broken 1.0" in capsys.readouterr().err
    with pytest.raises(UserError, match="out of cheese"):
        with_methods(["cheese"])


def test_a_broken_format_does_not_keep_others_from_being_opened(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "broken", BROKEN, {"worldloom.formats": {"cheese": "broken:Thing"}})
    open_dataset(write_toy_dataset(tmp_path / "data", episodes=1, length=4))
    assert "cheese" not in capsys.readouterr().err
    (tmp_path / "data.txt").write_text("?")
    with pytest.raises(UserError, match=r"not a dataset of a known format .*cheese"):
        open_dataset(tmp_path / "data.txt")
    assert "out of cheese" in capsys.readouterr().err


def test_two_packages_with_one_name_are_both_named(site: Path) -> None:
    for package in ("good", "twin"):
        install(site, package, GOOD, {"worldloom.families": {"ours": f"{package}:Good"}})
    with pytest.raises(UserError, match=r"good 1\.0 \(good:Good\) and twin 1\.0 \(twin:Good\): uninstall one"):
        FAMILIES["ours"]
    assert FAMILIES["twin:Good"].__module__ == "twin", "each is still there under its reference"


def test_a_package_cannot_take_a_name_of_ours(site: Path) -> None:
    install(site, "broken", BROKEN, {"worldloom.families": {"mlp": "broken:Thing"}})
    assert FAMILIES["mlp"].__module__ == "worldloom.models.mlp"
    assert list(FAMILIES).count("mlp") == 1


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (
            None,
            "homemade:Good",
            "unknown model family 'homemade'.* Nor is there a module 'homemade' here for 'homemade:Good'",
        ),
        (GOOD, "homemade:Goof", "unknown model family of module 'homemade' 'Goof'. Did you mean 'Good'"),
        (
            "Good = 3",
            "homemade:Good",
            r"'homemade:Good' is a int, but it must be a subclass of worldloom\.model\.WorldModel",
        ),
        ("class Good: pass", "homemade:Good", r"is the class Good, but it must be a subclass of worldloom\.model"),
        (
            "from worldloom import WorldModel\nclass Good(WorldModel): pass",
            "homemade:Good",
            "does not define decode, decodes, loss, observe, predict, start, which",
        ),
        (
            GOOD.replace("ToyModel\nclass", "ToyModel\ndel ToyModel.sizes\nclass"),
            "homemade:Good",
            "has no `sizes`: see docs/your-own-family",
        ),
        (
            BROKEN,
            "homemade:Good",
            r"importing 'homemade' failed: RuntimeError: out of cheese \(.*homemade\.py, line 1\)",
        ),
        ("import nothing_of_that_name", "homemade:Good", "importing 'homemade' failed: ModuleNotFoundError"),
        ("def (", "homemade:Good", "importing 'homemade' failed: SyntaxError"),
    ],
)
def test_a_reference_that_leads_nowhere_says_what_is_wrong(
    site: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, name: str, words: str
) -> None:
    from tests.toy import ToyModel

    monkeypatch.setattr(ToyModel, "sizes", ToyModel.sizes)  # put back whatever the module does to it
    if text is not None:
        (site / "homemade.py").write_text(text)
    with pytest.raises(UserError, match=words):
        FAMILIES.typed(name)


def test_an_object_of_the_wrong_kind_is_refused(site: Path) -> None:
    (site / "homemade.py").write_text("from worldloom.planners.objectives import Return\nboth, three = Return(), 3\n")
    assert OBJECTIVES.typed("homemade:both").discount == 0.99
    with pytest.raises(
        UserError, match=r"'homemade:Return' is the class Return, but it must be an object of .*Objective"
    ):
        OBJECTIVES.typed("homemade:Return")
    with pytest.raises(UserError, match=r"'homemade:both' is a Return, but it must be a subclass of .*Planner"):
        PLANNERS.typed("homemade:both")
    with pytest.raises(UserError, match="environment 'homemade:three' is a int, but it must be callable"):
        make_env("homemade:three")


def test_a_reference_needs_to_have_been_typed(site: Path) -> None:
    (site / "homemade.py").write_text(GOOD)
    with pytest.raises(NotAllowed, match=r"--allow homemade:Good \(in Python: worldloom\.allow\('homemade:Good'\)\)"):
        FAMILIES["homemade:Good"]
    assert FAMILIES.typed("homemade:Good").family == "homemade:Good"
    assert FAMILIES["homemade:Good"].family == "homemade:Good"


def test_an_unknown_name_offers_the_nearest_installed_one(site: Path) -> None:
    install(site, "good", GOOD, {"worldloom.families": {"goodness": "good:Good"}})
    with pytest.raises(UserError, match="Did you mean 'goodness'"):
        FAMILIES["godness"]


def test_the_newer_of_two_installations_of_a_package_does_not_count_twice(site: Path, tmp_path: Path) -> None:
    install(site, "good", GOOD, {"worldloom.families": {"good": "good:Good"}})
    install(tmp_path / "older", "good", GOOD, {"worldloom.families": {"good": "good:Old"}})
    found = registry.installed("worldloom.families", (str(site), str(tmp_path / "older")), "/")
    assert [plugin.value for plugin in found] == ["good:Good"]


def test_a_registry_lists_its_names() -> None:
    names = Registry("letter", {"b": "string:digits", "a": "string:ascii_letters"})
    assert (list(names), len(names), "a" in names, "c" in names) == (["b", "a"], 2, True, False)
    assert names["b"] == "0123456789"
