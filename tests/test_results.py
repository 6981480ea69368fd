"""The figures on the pages are those of results/, and every result says how it came to be."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted(path for path in (ROOT / "results").glob("*.json") if path.stem != "must_show")
SCRIPTS = [ROOT / "docs" / "make_results.py", *sorted((ROOT / "docs" / "measured").glob("*.py"))]


@pytest.fixture(autouse=True)
def _docs_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")


def read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def make_results(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "docs" / "make_results.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A copy of everything that the pages are made of."""
    for name in ("docs", "results"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("images", "__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    for row in json.loads((ROOT / "results" / "must_show.json").read_text()):
        if row["file"].startswith("tests/"):
            test = tmp_path / row["file"].split("::")[0]
            test.parent.mkdir(parents=True, exist_ok=True)
            test.touch()  # only that it exists matters
    return tmp_path


def test_the_pages_are_what_the_results_say() -> None:
    done = make_results(ROOT, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("page", ["docs/results.md", "README.md"])
def test_a_number_changed_by_hand_is_found_and_named_and_put_right(pages: Path, page: str) -> None:
    written = (pages / page).read_text()
    (pages / page).write_text(written.replace("861 [860, 861]", "999 [860, 861]"))
    done = make_results(pages, "--check")
    assert done.returncode == 1
    assert done.stdout.startswith(page)
    assert (pages / page).read_text() != written  # --check writes nothing
    assert make_results(pages).returncode == 0
    assert (pages / page).read_text() == written


def test_a_result_measured_again_changes_the_page(pages: Path) -> None:
    path = pages / "results" / "startup.json"
    path.write_text(path.read_text().replace("29.924223001216887", "54321"))
    assert make_results(pages, "--check").returncode == 1
    make_results(pages)
    assert "54,321" in (pages / "docs" / "results.md").read_text()


def test_every_result_has_a_section() -> None:
    from measured import CHAPTERS

    assert sorted(name for sections in CHAPTERS.values() for name in sections) == [path.stem for path in RESULTS]


def keys(content: Any) -> Iterator[str]:
    """Every key of a JSON file, and the texts by which its rows are found."""
    if isinstance(content, dict):
        yield from content
        yield from (value for key, value in content.items() if key == "name" and isinstance(value, str))
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from keys(value)


def constants(path: Path) -> Iterator[Any]:
    """The texts and numbers of a script, without its docstrings."""
    code = re.sub(r'""".*?"""', '""', path.read_text(), flags=re.DOTALL)
    yield from (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_no_number_is_typed_by_hand(path: Path) -> None:
    """Texts hold names, and keys under which results are found; numbers are places, digits and units' factors."""
    known = {key for result in RESULTS for key in keys(json.loads(result.read_text()))}
    texts = [c for c in constants(path) if isinstance(c, str) and re.search(r"(?<![\w@.-])\d[\d.,]*(?![\w-])", c)]
    assert [text for text in texts if not any(text in key for key in known)] == []
    assert [c for c in constants(path) if isinstance(c, int | float) and not 0 <= c <= 100] == []


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_says_on_what_machine_and_by_which_command_it_was_made(path: Path) -> None:
    from measured.page import commands, made

    result = json.loads(path.read_text())
    assert commands(result)
    assert re.search(r"^Hardware: \S", made(result, path.name), re.MULTILINE)


def row(**changes: Any) -> dict[str, Any]:
    return {
        "issue_title": "An issue",
        "name": "an update, CPU-ms",
        "value": 12.5,
        "low": 12.0,
        "high": 13.0,
        "target": "at most 14",
        "reached": True,
        "command": "python benchmarks/rssm_update.py",
        "file": "rssm_update.json",
        **changes,
    }


def test_the_figures_that_issues_ask_for_are_complete() -> None:
    from measured.acceptance import check

    check(json.loads((ROOT / "results" / "must_show.json").read_text()), ROOT)


@pytest.mark.parametrize(
    "good",
    [
        row(),
        row(low=None, high=None, target=14),
        row(file="results/startup.json"),
        row(file="tests/test_structure.py::test_no_files_import_each_other_in_a_circle"),
    ],
)
def test_a_complete_figure_is_shown(good: dict[str, Any]) -> None:
    from measured.acceptance import acceptance, check

    check([good], ROOT)
    table = acceptance([good])
    assert "An issue" in table
    assert "12.5" in table
    assert "| yes |" in table


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ({}, "needs exactly the keys"),
        (row(note="more"), "needs exactly the keys"),
        (row(name=""), "name is ''; write a text"),
        (row(value=None), "value is None; write a number"),
        (row(low="1"), "low is '1'; write a number"),
        (row(target=None), "target is None; write a number"),
        (row(reached="yes"), "reached is 'yes'; write true or false"),
        (row(file="missing.json"), "file 'missing.json' does not exist"),
        (row(file="worldloom/model.py"), "file 'worldloom/model.py' does not exist"),
    ],
)
def test_an_incomplete_figure_is_refused_by_row_and_key(bad: dict[str, Any], fault: str) -> None:
    from measured.acceptance import check

    with pytest.raises(ValueError, match=re.escape(f"must_show.json, row 1: {fault}")) as refused:
        check([row(), bad], ROOT)
    assert "\n" not in str(refused.value)


def test_the_demos_policy_beats_random_play() -> None:
    policy = read("doom_demo")["metrics"]["policy"]
    assert policy["reality"]["low"] > policy["random"]["high"]


def test_final_policies_are_evaluated_on_a_hundred_episodes() -> None:
    finals = [run["final"] for name in ("dreamer_dmc", "explore") for run in read(name)["runs"]]
    assert {len(final["returns"]) for final in finals} == {100}


def lost(trial: dict[str, Any]) -> str:
    """The share of the return that keeping the rules costs, as the tutorial writes it."""
    share = round(100 * trial["return_lost"], 1)
    return "none" if share <= 0 else f"{share:g} %"


@pytest.mark.parametrize("robot", ["point", "arm"])
def test_the_shields_tutorial_says_what_was_measured(robot: str) -> None:
    page = (ROOT / "docs" / "shield.md").read_text()
    for world, agents in read(f"shield_{robot}")["worlds"].items():
        shielded = [agents[name] for name in ("shielded", "tolerant", "tolerant_not_adaptive")]
        cells = [str(agents["bare"]["violations"]), *(f"{a['violations']} ({lost(a)})" for a in shielded)]
        name = robot if world == "plain" else f"{robot}, {world}"
        assert f"| {name} | {' | '.join(cells)} |" in page


def test_the_page_on_play_says_how_many_promises_of_the_trust_meter_were_kept() -> None:
    page = (ROOT / "docs" / "play.md").read_text().replace("\n", " ").replace("*", "")
    first, second, short = read("trust")["runs"]
    for run in (first, second):
        *kept, last = (f"{promise['kept']:.2f}" for promise in run["promises"].values())
        assert f"{', '.join(kept)} and {last}" in page
    assert f"only {short['promises']['0.8']['kept']:.2f} of them" in page
    assert f"a Doom model with {first['held_out_episodes']} held-out episodes" in page
    silent = [
        " and ".join(f"{100 * run['promises'][level]['splits without a promise']:.0f}" for run in (first, second))
        for level in ("0.95", "0.9")
    ]
    assert f"none in {silent[0]} % of the splits, of 0.9 none in {silent[1]} %" in page


def test_the_page_on_dreams_says_what_was_measured() -> None:
    page = (ROOT / "docs" / "dream.md").read_text().replace("\n", " ")
    walker = max((run for run in read("dreamer_dmc")["tried"] if run["task"] == "walker-walk"), key=curve_length)
    best, last = max(point["mean"] for point in walker["curve"]), walker["curve"][-1]["mean"]
    final = next(run["final"]["mean"] for run in read("dreamer_dmc")["runs"] if run["task"] == "walker-walk")
    assert f"rose to {best:.0f} and fell to {last:.0f}" in page
    assert f"with two steps it reaches {final:.0f}" in page
    first = [run["first arrival, decisions"] for run in read("explore")["runs"] if run["arm"] == "exploring"]
    assert "{:,}, {:,} and {:,} decisions".format(*first) in page
    doom = read("doom_dream")
    before = doom["before_window_fix"]["one_tic_a_step"]["actor_critic"]
    tics = [run["reality"]["mean"] for run in (doom["actor_critic"], doom["second_seed"], before)]
    assert "survives {:,.0f} tics ({:,.0f} with another seed) instead of {:.0f}".format(*tics) in page


def curve_length(run: dict[str, Any]) -> int:
    return len(run["curve"])
