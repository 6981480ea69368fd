"""The pages: what they link to exists, the README is short, and the environment tutorial does what it says."""

import re
from pathlib import Path

import pytest

from worldloom.commands.record import RecordSettings, record
from worldloom.data.source import open_dataset
from worldloom.envs import check_env, make_env

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE = ROOT / "docs" / "your-own-env.md"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a browser of the repository makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", page.read_text())
    for link in (markdown or html for markdown, html in links):
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_is_three_screens_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert [page.name for page in PAGES[2:] if f"(docs/{page.name})" not in text] == []


@pytest.mark.parametrize("target", ["demo", "test", "setup", "lint", "bench"])
def test_the_readme_names_commands_that_exist(target: str) -> None:
    assert f"make {target}" in (ROOT / "README.md").read_text()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_map_of_the_readme_is_the_package() -> None:
    """Every folder and top-level file of the package stands in the tree, and nothing else does."""
    tree = (ROOT / "README.md").read_text().split("\nworldloom/\n")[1].split("\nrecipes/")[0]
    named = set(re.findall(r"^  (\w+/|\w+\.py)", tree, re.M)) | set(re.findall(r"^  \w+/ (\w+/)", tree, re.M))
    named |= set(re.findall(r"; (\w+\.py):", tree))
    package = {f"{p.name}/" if p.is_dir() else p.name for p in (ROOT / "worldloom").iterdir()}
    assert named - {"dream.py"} == package - {"__pycache__/", "__init__.py", "__main__.py", "py.typed"}


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
