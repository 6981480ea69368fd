import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.agents.fakes import make_toy, toy_model
from worldloom.agents.agent import Agent
from worldloom.agents.planning import PlanningAgent, PlanningMemory
from worldloom.agents.play import Decision, play
from worldloom.agents.repeat import Repeat, innermost
from worldloom.envs.adapt import AdaptedEnv, adapt
from worldloom.evaluation.dreams import DREAMING
from worldloom.evaluation.policies.charts import REAL, TO_COME, Chart, draw_chart
from worldloom.evaluation.policies.film import Film, picture_steps
from worldloom.evaluation.policies.video import Frames
from worldloom.planners.cem import CEM


def toy() -> AdaptedEnv:
    return adapt(make_toy(), "toy", 16)


def filmed(times: int = 1, most: int = 100, every: int = 1) -> tuple[Film, list[Decision]]:
    """The film of seed 2, which is played beside two others, and all that was to be seen of it."""
    model, seen = toy_model(), []
    agent: Agent = PlanningAgent(model, CEM(horizon=5, samples=8, elites=2, iterations=1), replan_every=every)
    film = Film(model, 2, most)

    def watch(decision: Decision) -> None:
        film.watch(decision)
        if decision.seed == 2:
            seen.append(decision)

    play(Repeat(agent, times) if times > 1 else agent, toy, [1, 2, 3], 3, on_decision=watch)
    return film, seen


def planned(decision: Decision) -> PlanningMemory:
    memory, _ = innermost(decision.memory)
    assert isinstance(memory, PlanningMemory)
    return memory


@pytest.mark.parametrize("every", [1, 3])
def test_what_is_shown_as_imagined_is_what_the_plan_in_force_held(every: int) -> None:
    film, seen = filmed(every=every)
    assert len(film.frames) == len(seen)
    for t, (frame, decision) in enumerate(zip(film.frames[:-1], seen[:-1], strict=True)):
        states = planned(decision).plan.states
        assert frame.made == t - t % every
        with torch.no_grad():
            for key in ("reward", "state"):
                torch.testing.assert_close(torch.from_numpy(frame.imagined[key]), film.model.decode(states, key)[0])
        assert frame.pictures["image"].shape == (len(picture_steps(5)), 3, 16, 16)


def test_what_is_shown_as_real_is_what_happened() -> None:
    film, seen = filmed()
    rewards = np.array([decision.reward for decision in seen])
    assert np.array_equal(film.real("reward", 0.9)[1:], rewards[1:])
    assert np.array_equal(film.real("state", 0.9), np.stack([decision.obs["state"] for decision in seen]))
    to_come = [sum(0.9**k * r for k, r in enumerate(rewards[t + 1 :])) for t in range(len(rewards))]
    np.testing.assert_allclose(film.real("value", 0.9), to_come)


def test_rewards_of_a_repeated_action_are_added_up() -> None:
    film, seen = filmed(times=4)
    assert [frame.step for frame in film.frames[:-1]] == [d.step for d in seen[:-1] if d.step % 4 == 0]
    assert sum(m.reward for m in film.frames) == pytest.approx(sum(d.reward for d in seen))
    assert film.frames[1].reward == pytest.approx(sum(d.reward for d in seen[1:5]))


def test_past_the_last_filmed_decision_only_what_happened_is_kept() -> None:
    film, seen = filmed(most=3)
    assert len(film.frames) == len(seen)
    assert [bool(frame.imagined) for frame in film.frames] == [True] * 3 + [False] * (len(seen) - 3)
    assert len(Frames(film, "", 0.9, 10.0)) == 3


@pytest.mark.parametrize("horizon", range(1, 30))
def test_pictures_are_of_steps_that_exist_and_of_the_last_one(horizon: int) -> None:
    steps = picture_steps(horizon)
    assert steps[-1] == horizon - 1
    assert steps[0] >= 0
    assert len(set(steps)) == len(steps) == min(4, horizon)


def test_frames_have_even_sides_and_all_the_same_size() -> None:
    film, _ = filmed()
    shapes = {frame.shape for frame in Frames(film, "a caption", 0.9, 10.0)}
    assert len(shapes) == 1
    _, height, width = shapes.pop()
    assert (height % 2, width % 2) == (0, 0)


def test_a_chart_shows_the_imagined_ahead_of_now_and_the_past_behind_it() -> None:
    canvas = Image.new("RGB", (300, 100))
    real = np.array([np.nan, *np.linspace(0, 1, 59)])
    chart = Chart.of("x", real, [(t, np.full(5, 0.5)) for t in range(60)])
    draw_chart(ImageDraw.Draw(canvas), (0, 0, 300, 100), chart, now=30, past=20, future=10, scale=1)
    pixels = np.asarray(canvas)
    where = {c: np.unique((pixels == c).all(-1).nonzero()[1]) for c in (REAL, TO_COME, DREAMING)}
    assert where[REAL].max() <= 201
    assert where[TO_COME].min() >= 199
    assert where[DREAMING].min() >= 208
    assert where[DREAMING].max() <= 255


def test_values_that_are_not_finite_leave_a_gap() -> None:
    chart = Chart.of("x", np.array([np.nan, 1.0, 2.0]), [(0, np.array([np.nan, np.inf]))] * 3)
    assert chart.low < 1.0 < 2.0 < chart.high < 3.0
    draw_chart(ImageDraw.Draw(Image.new("RGB", (300, 100))), (0, 0, 300, 100), chart, 0, 20, 10, 1)
