"""What worldloom 0.1.0 wrote is read by every later version, and means what it meant. `make.py` says how it was made.

Names and places of modules may change: they are all in `looks.py`. The folder may not: it is what people have.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import worldloom
from tests.recorded import looks
from tests.recorded.looks import HERE, PLACE
from worldloom.data.spec import DataSpec

EXPECTED = HERE / "expected"
RUNS = sorted(path.parent.name for path in HERE.glob("runs/*/run.json"))
DATA = sorted(path.name for path in (HERE / "data").iterdir())
# Which run to ask for the description by which each of these was trained on.
TRAINED_ON = {"painted": "rssm", "point": "mlp", "maze": "tabular"}


def facts(name: str) -> dict[str, Any]:
    return json.loads((EXPECTED / f"{name}.json").read_text(encoding="utf-8"))


def tensors(name: str) -> dict[str, Tensor]:
    return load_file(EXPECTED / f"{name}.safetensors")


def window(name: str) -> worldloom.Segment:
    """The window that was looked at with a run."""
    return looks.window(EXPECTED / f"window-{Path(facts(name)['data']).name}.safetensors")


MODELS = [name for name in RUNS if "draws" in facts(name)]
AGENTS = [name for name in RUNS if "agent" in facts(name)]
DRAWN = [name for name in MODELS if facts(name)["draws"] > 1]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recorded folder, as it was where it was made, to be worked in and written to."""
    looks.settle(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDLOOM_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    return tmp_path


def test_every_family_of_that_version_is_recorded() -> None:
    families = {json.loads((HERE / "runs" / name / "run.json").read_text())["family"] for name in RUNS}
    assert families == {"ensemble", "mlp", "rssm", "tabular", "tdmpc", "vae_rnn"}


def test_what_is_recorded_is_small_and_names_no_machine() -> None:
    files = [path for path in HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 6e6
    named = [path for path in files if re.search(rb'"/\w', path.read_bytes()) and path.suffix in (".json", ".jsonl")]
    assert named == []


@pytest.mark.parametrize("name", DATA)
def test_a_recorded_dataset_has_the_rows_it_had(home: Path, name: str) -> None:
    source, wanted = worldloom.open_dataset(home / "data" / name), facts("rows")[name]
    found = looks.rows_of(source)
    assert [episode.task for episode in source.episodes] == wanted["tasks"]
    assert source.spec == DataSpec.from_json(wanted["spec"])
    assert says(source.about, wanted["about"])
    assert found.keys() == tensors(f"rows-{name}").keys()
    for key, value in tensors(f"rows-{name}").items():
        if name == "filmed" and key.endswith("image"):  # another build of FFmpeg rounds colours in another way
            assert (found[key].int() - value.int()).abs().max() <= 4, key
        else:
            assert torch.equal(found[key], value), key


def says(found: Any, wanted: Any) -> bool:
    """Whether everything that was said is still said; a later version may say more."""
    if isinstance(wanted, Mapping):
        return all(key in found and says(found[key], value) for key, value in wanted.items())
    return bool(found == wanted)


@pytest.mark.parametrize("name", TRAINED_ON)
def test_a_recorded_cache_is_found_and_gives_the_rows_it_gave(home: Path, name: str) -> None:
    before = sorted(home.glob("cache/*"))
    check_window(name)
    # A later version of the cache may decode anew; this line then goes, and the one above must still hold.
    assert sorted(home.glob("cache/*")) == before


@pytest.mark.parametrize("name", TRAINED_ON)
def test_a_cache_that_is_made_anew_gives_the_rows_the_recorded_one_gave(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLDLOOM_CACHE", str(home / "another"))
    check_window(name)


def check_window(name: str) -> None:
    """The held-out rows, through the run's own description: actions scaled, the task as a choice, the end masked."""
    found = looks.held_out(worldloom.load(f"runs/{TRAINED_ON[name]}")[1])
    wanted = tensors(f"window-{name}")
    assert found.keys() == wanted.keys()
    assert [key for key, value in wanted.items() if not torch.equal(found[key], value)] == []


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_run_computes_what_it_computed(home: Path, name: str) -> None:
    model, _ = worldloom.load(home / "runs" / name)
    check(looks.look(model, window(name), facts(name)["draws"]), tensors(name), facts(name)["reach"])


@pytest.mark.parametrize("name", DRAWN)
def test_a_recorded_belief_leads_where_it_led(home: Path, name: str) -> None:
    """As `look_from`, without a draw. No belief is on disk: where one comes to hold other tensors, tell these apart."""
    model, _ = worldloom.load(home / "runs" / name)
    recorded = tensors(f"belief-{name}")
    belief = [recorded[f"belief/{number}"] for number in range(sum(key.startswith("belief/") for key in recorded))]
    check(looks.look_from(model, window(name), belief), recorded, facts(name)["reach"])


@pytest.mark.parametrize("name", DRAWN)
def test_a_recorded_run_draws_from_a_seed_what_it_drew(home: Path, name: str) -> None:
    """The one test that falls when draws are made in another way. The file holds the noise, in the order of use."""
    model, _ = worldloom.load(home / "runs" / name)
    check(looks.look(model, window(name)), tensors(f"seed-{name}"), facts(name)["reach"])


def check(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], reach: int) -> None:
    """Everything that was recorded, within its deviation where it was drawn."""
    names = [key.removeprefix("mean/") for key in wanted if key.startswith("mean/")]
    assert names
    assert {name: off for name in names if (off := looks.excess(name, found[name], wanted, reach)) > 1} == {}


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_run_is_judged_as_it_was(home: Path, name: str) -> None:
    wanted = facts(name)
    looks.command(*wanted["judged"])
    card = json.loads((home / "runs" / name / "card.json").read_text(encoding="utf-8"))
    assert looks.differences(looks.figures(card), wanted) == []


def test_a_recorded_run_finds_data_that_have_moved(home: Path) -> None:
    record = home / "runs" / "mlp" / "run.json"
    record.write_text(record.read_text(encoding="utf-8").replace(str(home), PLACE), encoding="utf-8")
    (home / "data" / "point").rename(home / "elsewhere")
    looks.command(*facts("mlp")["judged"], "--data", "elsewhere")
    card = json.loads((home / "runs" / "mlp" / "card.json").read_text(encoding="utf-8"))
    assert looks.differences(looks.figures(card), facts("mlp")) == []


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_is_played(home: Path, name: str) -> None:
    stage = looks.stage_of(home / "runs" / name, home / facts(name)["data"])
    walk = stage.begin(next(iter(stage.starts.values())), seed=0)
    action = 1 if stage.spec.action.kind == "discrete" else [0.5] * stage.spec.action.size
    other = 2 if stage.spec.action.kind == "discrete" else [-0.5] * stage.spec.action.size
    begin, first, second = walk.here, walk.step(action), walk.step(action)
    assert walk.rewind(2).number == begin
    assert walk.step(action).number == first.number
    branch = walk.step(other)
    assert (branch.parent, branch.open_loop_steps) == (first.number, 2)
    assert branch.digest != second.digest
    signals = [value for node in walk.nodes for value in node.result.signals.values()]
    assert np.isfinite(signals).all()
    if (home / "runs" / name / "agent.json").exists():
        assert stage.agent_action(walk.now.result.belief).shape == (stage.spec.action.size,)


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_goes_on_from_where_it_stopped(home: Path, name: str) -> None:
    if name == "learned_cma":
        pytest.importorskip("cma", reason="the extra 'cma' is not installed")
    run, wanted = home / "runs" / name, facts(name)
    before, logged = worldloom.load(run)[1].step, looks.losses(run)
    looks.command(*looks.going_on(wanted["typed"], wanted["more_steps"]))
    assert worldloom.load(run)[1].step > before
    losses = looks.losses(run)
    assert losses[: len(logged)] == logged
    # An update shows more of how numbers were rounded than a look does.
    pairs = zip(losses[len(logged) :], wanted["went_on"], wanted["went_on_spread"], strict=True)
    assert [pair for pair in pairs if abs(pair[0] - pair[1]) > 0.01 * (1 + abs(pair[1])) + 8 * pair[2]] == []


@pytest.mark.parametrize("name", AGENTS)
def test_a_recorded_agent_acts_as_it_did(home: Path, name: str) -> None:
    found = looks.act(home / facts(name)["agent"], window(name), range(looks.CHOICES))
    check(found, tensors(f"agent-{name}"), facts(name)["reach"])


def test_a_recorded_walk_is_walked_again(home: Path) -> None:
    stage = looks.stage_of(home / "runs" / "mlp", home / "data" / "point")
    kept = facts("walk")
    again = looks.play_replay(stage.engine, kept, stage.model_hash)
    # Whether every bit of it is the same depends on the processor.
    assert again.done
    assert (len(again.session.nodes), again.session.here) == (len(kept["digests"]), kept["here"])
