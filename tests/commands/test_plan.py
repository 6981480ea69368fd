import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tests.agents.fakes import TOY, make_toy, toy_model, write_run
from tests.toy import ToyModel, write_toy_dataset
from worldloom import registry
from worldloom.agents.planning import PlanningAgent
from worldloom.agents.saved import PlanningSettings, load_agent, save_agent
from worldloom.cli import run as run_command
from worldloom.commands.plan import PlanSettings, plan, planner_settings
from worldloom.data.cache import cache_dataset
from worldloom.envs.adapt import adapt
from worldloom.errors import UserError
from worldloom.evaluation.policies.world import check_rate
from worldloom.planners.cem import CEM
from worldloom.planners.objectives import Decoded, Goal, Return
from worldloom.runs import checkpoint

SMALL: dict[str, Any] = {"horizon": 3, "samples": 16, "iterations": 2}


@pytest.fixture(scope="session")
def _registered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of toy models: one that sees pictures, one of numbers alone, one of choices, one without a reward."""
    folder = tmp_path_factory.mktemp("runs")
    models = {
        "pixels": toy_model(),
        "vector": toy_model(pixels=False),
        "choices": toy_model(discrete=True),
        "without_reward": toy_model(reward=False),
    }
    return {name: write_run(folder / name, model) for name, model in models.items()}


@pytest.fixture
def runs(_registered: dict[str, Path]) -> dict[str, Path]:
    return _registered


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_trial_leaves_a_card_a_video_and_an_agent(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan(PlanSettings(run=runs["pixels"], env=TOY, **SMALL, seeds=(3, 1, 4), num_envs=2, profile=True, out=out))
    card = json.loads((out / "score.json").read_text())
    assert {path.name for path in out.iterdir()} == {"score.json", "imagined.mp4", "agent.json"}
    assert [episode["seed"] for episode in card["episodes"]] == [3, 1, 4]
    assert card["score"]["return"]["value"] == pytest.approx(np.mean([e["return"] for e in card["episodes"]]))
    assert card["score"]["return"]["low"] <= card["score"]["return"]["value"] <= card["score"]["return"]["high"]
    assert card["score"]["cost"]["value"] > 0
    assert card["score"]["success_rate"] is None
    assert set(card["floors"]) == {"random", "do_nothing"}
    assert [e["seed"] for e in card["floor_episodes"]["random"]] == [3, 1, 4]
    assert card["milliseconds"]["p50"] <= card["milliseconds"]["p95"]
    assert card["milliseconds"]["decisions"] == sum(e["length"] for e in card["episodes"])
    assert len(card["provenance"]["checkpoint"]["sha256"]) == 64
    assert card["agent"]["settings"]["samples"] == 16


def test_doing_nothing_is_one_and_the_same_action(runs: dict[str, Path], tmp_path: Path) -> None:
    played = []
    for name in ("one", "other"):
        out = tmp_path / name
        plan(
            PlanSettings(
                run=runs["vector"], env=TOY, **SMALL, seeds=(0, 5), video=False, options=("pixels=false",), out=out
            )
        )
        played.append(json.loads((out / "score.json").read_text())["floor_episodes"])
    still, moved = played[0]["do_nothing"], played[0]["random"]
    assert all(episode["length"] == 12 for episode in still)  # who does not move never reaches the border
    assert still == played[1]["do_nothing"]
    assert moved[0]["return"] != still[0]["return"]


def test_the_profile_adds_up_to_the_decision(runs: dict[str, Path], tmp_path: Path) -> None:
    plan(
        PlanSettings(
            run=runs["pixels"], env=TOY, **SMALL, episodes=2, profile=True, video=False, baselines=False, out=tmp_path
        )
    )
    profile = json.loads((tmp_path / "score.json").read_text())["profile"]
    parts = sum(row["mean"] for name, row in profile.items() if name != "decision")
    assert parts == pytest.approx(profile["decision"]["mean"])
    assert all(profile[name]["mean"] > 0 for name in ("observe", "sample", "imagine", "objective", "refit"))
    assert profile["other"]["mean"] > 0
    assert profile["constraints"]["mean"] == 0


@pytest.mark.parametrize(("run", "pixels"), [("pixels", True), ("vector", False), ("choices", True)])
def test_the_video_has_a_frame_for_each_decision(runs: dict[str, Path], tmp_path: Path, run: str, pixels: bool) -> None:
    options = (f"discrete={str(run == 'choices').lower()}", f"pixels={str(pixels).lower()}")
    plan(
        PlanSettings(
            run=runs[run], env=TOY, horizon=6, samples=16, episodes=1, baselines=False, options=options, out=tmp_path
        )
    )
    film = frames(tmp_path / "imagined.mp4")
    length = json.loads((tmp_path / "score.json").read_text())["episodes"][0]["length"]
    assert len(film) == length
    assert np.abs(film[-1].astype(int) - film[0]).max() > 60  # something moves


def test_a_long_episode_is_filmed_in_part(runs: dict[str, Path], tmp_path: Path) -> None:
    plan(PlanSettings(run=runs["pixels"], env=TOY, **SMALL, episodes=1, baselines=False, video_steps=4, out=tmp_path))
    assert len(frames(tmp_path / "imagined.mp4")) == 4


def test_a_card_can_be_had_twice(runs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("one", "other"):
        plan(
            PlanSettings(run=runs["pixels"], env=TOY, **SMALL, episodes=3, num_envs=2, video=False, out=tmp_path / name)
        )
    one, other = (json.loads((tmp_path / name / "score.json").read_text()) for name in ("one", "other"))
    for key in ("episodes", "floor_episodes", "score", "floors", "plans"):
        assert one[key] == other[key]


def test_repeating_an_action_makes_fewer_decisions(runs: dict[str, Path], tmp_path: Path) -> None:
    options = ("fps=20", "steps=8", "reach=3")
    plan(PlanSettings(run=runs["pixels"], env=TOY, **SMALL, episodes=2, action_repeat=2, options=options, out=tmp_path))
    card = json.loads((tmp_path / "score.json").read_text())
    lengths = [episode["length"] for episode in card["episodes"]]
    assert card["milliseconds"]["decisions"] == sum(-(-length // 2) for length in lengths)
    assert len(frames(tmp_path / "imagined.mp4")) == -(-lengths[0] // 2)


def test_by_default_the_results_lie_in_the_run_and_the_planner_suits_the_action(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", toy_model(discrete=True))
    plan(PlanSettings(run=run, env=TOY, **SMALL, episodes=1, video=False, baselines=False, options=("discrete=true",)))
    assert (run / "plan" / "tests.agents.fakes-make-toy-categorical" / "score.json").exists()


def test_nothing_is_overwritten_unless_it_is_a_plan_and_one_says_so(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick = PlanSettings(run=runs["pixels"], env=TOY, **SMALL, episodes=1, video=False, baselines=False, out=out)
    plan(quick)
    first = (out / "score.json").read_bytes()
    with pytest.raises(UserError, match="already holds a plan: choose another --out, or replace it with --overwrite"):
        plan(quick)
    assert (out / "score.json").read_bytes() == first
    plan(replace(quick, seeds=(7,), overwrite=True))
    assert json.loads((out / "score.json").read_text())["provenance"]["seeds"] == [7]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"mine already holds something else \(notes\): choose another --out"):
            plan(replace(quick, out=tmp_path / "mine", overwrite=overwrite))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]


def test_the_default_folder_is_numbered_where_there_is_a_plan_already(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", toy_model())
    quick = PlanSettings(run=run, env=TOY, **SMALL, episodes=1, video=False, baselines=False)
    for changes in ({}, {}, {"seeds": (7,), "overwrite": True}):
        plan(replace(quick, **changes))
    cards = {path.parent.name: json.loads(path.read_text()) for path in (run / "plan").glob("*/score.json")}
    seeds = {name: card["provenance"]["seeds"] for name, card in cards.items()}
    assert seeds == {"tests.agents.fakes-make-toy-mppi": [7], "tests.agents.fakes-make-toy-mppi-2": [0]}


def test_a_model_without_a_reward_plans_for_a_row_of_a_dataset(runs: dict[str, Path], tmp_path: Path) -> None:
    data = write_toy_dataset(tmp_path / "data", episodes=2, length=10)
    out = tmp_path / "out"
    plan(
        PlanSettings(
            run=runs["without_reward"],
            env=TOY,
            **SMALL,
            episodes=1,
            goal="1:4",
            goal_data=data,
            baselines=False,
            out=out,
        )
    )
    assert json.loads((out / "score.json").read_text())["agent"]["goal"] == "1:4"
    agent = load_agent(out)
    assert isinstance(agent, PlanningAgent)
    assert isinstance(agent.objective, Goal)
    segment = cache_dataset(data, (16, 16)).segment(1, 0, 5)
    with torch.no_grad():
        expected = agent.model.track(segment.obs, segment.action)[:, -1].features
    torch.testing.assert_close(agent.objective.belief.features, expected)
    for goal, words in (("2:0", "has episodes 0 to 1"), ("1:99", "has frames 0 to")):
        with pytest.raises(UserError, match=words):
            plan(
                PlanSettings(
                    run=runs["without_reward"],
                    env=TOY,
                    **SMALL,
                    episodes=1,
                    goal=goal,
                    goal_data=data,
                    out=tmp_path / "no",
                )
            )


@dataclass(frozen=True)
class Calm(CEM):
    """A planner from outside, which only says so."""


FAR = Decoded(lambda seen: seen["state"][..., 0], ("state",))


def test_a_planner_and_an_objective_of_yours_are_typed_by_name_and_kept_in_the_agent(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_allowed", set())
    own = {"planner": f"{__name__}:Calm", "objective": f"{__name__}:FAR"}
    numbers = {"seeds": (0,), "video": False, "options": ("pixels=false",), "out": tmp_path / "out"}
    plan(PlanSettings(run=runs["vector"], env=TOY, **SMALL, **numbers, **own))
    content = json.loads((tmp_path / "out" / "agent.json").read_text())
    assert {key: content[key] for key in own} == own
    agent = load_agent(tmp_path / "out")
    assert isinstance(agent, PlanningAgent)
    assert (type(agent.planner), agent.objective) == (Calm, FAR)


def test_an_agent_of_before_there_were_other_objectives_is_still_read(runs: dict[str, Path], tmp_path: Path) -> None:
    save_agent(tmp_path, PlanningSettings("cem", {"horizon": 2}), checkpoint.load(runs["vector"])[1])
    content = json.loads((tmp_path / "agent.json").read_text())
    del content["objective"]
    (tmp_path / "agent.json").write_text(json.dumps(content))
    assert isinstance(load_agent(tmp_path).objective, Return)  # type: ignore[attr-defined]


def test_an_objective_and_a_goal_are_not_given_together(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--objective a:b and --goal 0:1 are two aims"):
        plan(PlanSettings(run=runs["vector"], env=TOY, objective="a:b", goal="0:1", out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("run", "changes", "words"),
    [
        ("pixels", {"horizon": 0}, "horizon of MPPI is 0"),
        ("pixels", {"deadline": 0.0}, "deadline is 0.0 ms"),
        ("pixels", {"planner": "cme"}, "unknown planner 'cme'. Did you mean 'cem'"),
        ("pixels", {"planner": "categorical"}, "continuous"),
        ("pixels", {"seeds": ()}, "no seed to play"),
        ("pixels", {"episodes": 0}, "no seed to play"),
        ("pixels", {"num_envs": 0}, "num_envs is 0"),
        ("pixels", {"settings": ("elite=4",)}, "'elite'. Did you mean 'elites'"),
        ("pixels", {"replan_every": 9}, "cannot be followed for 9"),
        ("pixels", {"action_repeat": 0}, "the action repeat is .*, but it must be 1 or more"),
        ("pixels", {"options": ("discrete=true",)}, "takes 4 discrete actions"),
        ("pixels", {"options": ("pixels=false",)}, "observes 'image'"),
        ("pixels", {"options": ("fps=20",)}, "20 decisions a second, but the model's steps are 10.*--action-repeat 2"),
        ("pixels", {"discount": 1.5}, "discount is 1.5"),
        ("without_reward", {}, "predicts no reward.*--goal EPISODE:FRAME"),
        ("pixels", {"goal": "here"}, "want EPISODE:FRAME"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    runs: dict[str, Path], tmp_path: Path, run: str, changes: dict[str, Any], words: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match=words):
        plan(PlanSettings(run=runs[run], env=TOY, **{**SMALL, "episodes": 1, "out": out, **changes}))
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_refused_before_playing(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file: cannot be written"):
        plan(PlanSettings(run=runs["pixels"], env=TOY, **SMALL, episodes=10_000, out=tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_slower_world_cannot_be_mended_by_repeating() -> None:
    with pytest.raises(UserError, match="as it was when the data were recorded"):
        check_rate(adapt(make_toy(fps=5.0), "toy"), toy_model().spec, 1)


def test_shares_of_the_samples_keep_their_share() -> None:
    given = {"samples": 64, "horizon": None}
    assert planner_settings("mppi", given, ()) == {"samples": 64, "elites": 8, "policy_samples": 3}
    assert planner_settings("mppi", given, ("elites=5",))["elites"] == 5
    assert planner_settings("mppi", {"samples": None}, ()) == {}


def test_a_fallback_is_counted(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = ToyModel.decode
    monkeypatch.setattr(
        ToyModel, "decode", lambda self, s, key: decode(self, s, key) * (float("nan") if key == "reward" else 1.0)
    )
    plan(PlanSettings(run=runs["pixels"], env=TOY, **SMALL, episodes=1, baselines=False, out=tmp_path))
    card = json.loads((tmp_path / "score.json").read_text())
    assert card["plans"]["fallbacks"] == card["plans"]["plans"] == card["episodes"][0]["length"]


@pytest.mark.parametrize(("flag", "now"), [("--no-floors", "--no-baselines"), ("--floors", "--baselines")])
def test_the_old_name_of_baselines_is_accepted_with_a_notice(
    flag: str, now: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [f"--{key}={value}" for key, value in (SMALL | {"episodes": 1, "out": tmp_path / "out"}).items()]
    run_command("plan", [str(runs["pixels"]), TOY, *small, "--no-video", flag])
    assert f"{flag}: is called {now} now" in capsys.readouterr().err
    assert bool(json.loads((tmp_path / "out" / "score.json").read_text())["floors"]) is (flag == "--floors")
