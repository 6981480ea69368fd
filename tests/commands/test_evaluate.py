"""`worldloom evaluate` from a run folder to the card and the page, and what it says when something is wrong."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.toy import write_toy_dataset
from worldloom.commands.evaluate import EvaluateSettings, evaluate
from worldloom.errors import UserError
from worldloom.evaluation.windows import held_out_episodes
from worldloom.runs import checkpoint
from worldloom.runs.sources import open_sources

QUICK = {"windows": 16, "horizons": (1, 5), "context": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def judged_run(toy_run: Path) -> Path:
    evaluate(EvaluateSettings(run=toy_run, **QUICK))
    return toy_run


def test_the_card_stands_beside_the_run_with_everything_needed_to_make_it_again(judged_run: Path):
    card = json.loads((judged_run / "card.json").read_text())
    model, run = checkpoint.load(judged_run)
    facts = card["provenance"]
    assert facts["checkpoint"] == {"step": run.step, "sha256": run.checkpoint_hash}
    assert facts["datasets"][0]["fingerprint"] == run.datasets[0].fingerprint
    assert facts["datasets"][0]["held_out_episodes"] == run.datasets[0].held_out
    assert facts["episodes_judged"] == [str(e) for e in run.datasets[0].held_out]
    assert {"seed", "command", "hardware", "versions", "date", "seconds", "threads", "dtype"} <= set(facts)
    cost = card["metrics"]["cost"]
    assert cost["parameters"]["value"] == sum(p.numel() for p in model.parameters())
    assert cost["training_rows"]["value"] > 0
    assert set(card["baselines"]) == {"persistence", "mean", "linear"}


class Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag == "img":
            self.images.append(found)
        self.links += [v for k, v in attributes if k in ("src", "href") and v]
        if tag not in ("img", "meta", "line", "circle", "path", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag, f"</{tag}> closes something else"


def test_the_report_is_whole_small_and_needs_no_network(judged_run: Path):
    text = (judged_run / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert not page.open
    assert len(text) < 10_000_000
    assert page.images
    assert all(link.startswith("data:") for link in page.links)
    words = re.sub(r"base64,[^\"]+", "", text)  # in which any letters may stand side by side
    assert not re.search(r"https?://|@import|url\(|<script|nan\b|inf\b", words, re.IGNORECASE)
    assert all(image.get("alt") for image in page.images)
    assert text.count('role="img" aria-label="') == text.count("<svg")
    assert "prefers-color-scheme:dark" in text
    assert "width=device-width" in text


def test_latent_skill_stands_in_the_table_and_not_in_the_headline(judged_run: Path):
    text = (judged_run / "report.html").read_text()
    headline, table = text.split("<h2>Every figure</h2>")
    assert "latent" not in re.sub(r"base64,[^\"]+", "", headline)
    assert table.count("<th scope=row>latent</th>") == 1


def test_nothing_half_written_is_left(judged_run: Path):
    assert not [p for p in judged_run.iterdir() if p.name.endswith(".tmp")]


def test_a_moved_dataset_is_found_with_data_and_split_as_before(judged_run: Path, tmp_path: Path, capsys):
    _, run = checkpoint.load(judged_run)
    moved = shutil.copytree(run.datasets[0].path, tmp_path / "moved")
    gone = replace(run, datasets=[replace(run.datasets[0], path=str(tmp_path / "gone"))])
    with pytest.raises(UserError, match=r"gone.*--data FOLDER"):
        open_sources(gone, None)
    assert open_sources(gone, moved)[0].held_out == run.datasets[0].held_out


def test_a_moved_dataset_is_told_from_another_one_of_equal_length(judged_run: Path, tmp_path: Path, capsys):
    _, run = checkpoint.load(judged_run)
    own = run.datasets[0]
    other = replace(own, path=str(tmp_path / "other"), fingerprint="0" * 64, train=own.held_out, held_out=own.train)
    moved = tmp_path / "moved"
    moved.symlink_to(own.path)
    several = replace(run, datasets=[other, replace(own, path=str(tmp_path / "gone"))])
    assert open_sources(several, moved)[0].held_out == own.held_out


def test_changed_data_are_judged_with_a_loud_warning(judged_run: Path, capsys):
    _, run = checkpoint.load(judged_run)
    changed = replace(run, datasets=[replace(run.datasets[0], fingerprint="0" * 64, identity="")])  # an older run
    sources = open_sources(changed, None)
    assert "CHANGED since training" in capsys.readouterr().err
    assert "CHANGED" in sources[0].note


def test_other_data_than_the_split_describes_are_refused(judged_run: Path):
    _, run = checkpoint.load(judged_run)
    use = replace(run.datasets[0], held_out=[400])
    with pytest.raises(UserError, match="401"):
        open_sources(replace(run, datasets=[use]), None)


def test_data_never_trained_on_count_as_held_out_entirely(judged_run: Path, tmp_path: Path, capsys):
    _, run = checkpoint.load(judged_run)
    fresh = write_toy_dataset(tmp_path / "fresh", episodes=3, length=20, seed=9)
    source = open_sources(run, fresh)[0]
    assert (source.train, source.held_out) == ([], [0, 1, 2])
    assert "was not trained on" in capsys.readouterr().err


def test_a_limit_on_episodes_spreads_them_over_the_list(judged_run: Path):
    _, run = checkpoint.load(judged_run)
    sources = open_sources(run, None)
    held = run.datasets[0].held_out
    assert [h.episode for h in held_out_episodes(sources, 2)] == [held[0], held[-1]]


def test_an_unknown_or_empty_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere"):
        evaluate(EvaluateSettings(run=tmp_path / "nowhere"))


def test_a_cut_checkpoint_is_refused_and_no_card_is_written(judged_run: Path, tmp_path: Path):
    broken = shutil.copytree(judged_run, tmp_path / "broken")
    (broken / "card.json").unlink()
    weights = next(broken.glob("checkpoints/*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        evaluate(EvaluateSettings(run=broken, **QUICK))
    assert not (broken / "card.json").exists()


@pytest.mark.parametrize(
    ("flag", "value"),
    [("context", 0), ("samples", 0), ("horizons", (0, 5)), ("horizons", ()), ("device", "tpu"), ("seed", -1)],
)
def test_senseless_flags_are_refused(toy_run: Path, flag: str, value: object):
    with pytest.raises(UserError, match=f"--{flag}"):
        evaluate(EvaluateSettings(run=toy_run, **{flag: value}))


@pytest.mark.parametrize("flag", ["context", "samples", "windows", "threads", "seed"])
def test_a_number_too_large_to_be_meant_is_named_with_its_flag(judged_run: Path, flag: str):
    with pytest.raises(UserError, match=f"--{flag.replace('_', '-')} is {10**30}, but must be at most"):
        evaluate(EvaluateSettings(run=judged_run, **{flag: 10**30}))
    with pytest.raises(UserError, match="--horizons"):
        evaluate(EvaluateSettings(run=judged_run, horizons=(1, 10**30)))


def test_a_copy_is_known_again_and_changed_data_must_be_named(judged_run: Path, tmp_path: Path, capsys):
    _, run = checkpoint.load(judged_run)
    own = run.datasets[0]
    copied = shutil.copytree(own.path, tmp_path / "copy")
    source = open_sources(run, copied)[0]
    assert (source.train, source.held_out, source.other) == (own.train, own.held_out, False)
    here = replace(run, datasets=[replace(own, path=str(copied), fingerprint="0" * 64)])
    assert not open_sources(here, None)[0].note, "touched files are the same data"
    changed = replace(here, datasets=[replace(here.datasets[0], identity="0" * 64)])
    with pytest.raises(UserError, match=f"not what .* was trained on.*--data {copied}"):
        open_sources(changed, None)
    assert "CHANGED" in open_sources(changed, copied)[0].note


def test_another_dataset_of_as_many_episodes_is_not_taken_for_the_moved_one(judged_run: Path, tmp_path: Path):
    _, run = checkpoint.load(judged_run)
    own = run.datasets[0]
    count = len(own.train) + len(own.held_out)
    fresh = write_toy_dataset(tmp_path / "fresh", episodes=count, length=20, seed=9)
    assert open_sources(run, fresh)[0].other


def test_the_card_of_other_data_leaves_the_runs_own_alone(judged_run: Path, tmp_path: Path):
    run = shutil.copytree(judged_run, tmp_path / "run")
    own = (run / "card.json").read_bytes()
    fresh = write_toy_dataset(tmp_path / "fresh", episodes=3, length=20, seed=9)
    evaluate(EvaluateSettings(run=run, data=fresh, **QUICK))
    assert (run / "card.json").read_bytes() == own
    (folder,) = (run / "evaluations").iterdir()
    assert folder.name.startswith("fresh-")
    card = json.loads((folder / "card.json").read_text())
    assert {"linear", "mean"} <= set(card["baselines"]), "they are fitted on the training data"
    assert (folder / "report.html").exists()
