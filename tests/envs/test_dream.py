"""Dreams as environments. N dreams, S starts, C context rows."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import Tensor

from tests import toy
from tests.evaluation.worlds import LinearModel, PlaceState, linear_dataset, linear_spec
from tests.models.segments import SPECS, random_segment
from worldloom.data.segment import Segment
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.envs.dream import DreamEnv, SingleDreamEnv, Starts, draw_rows, to_picture
from worldloom.errors import UserError
from worldloom.model import State, WorldModel
from worldloom.models import build
from worldloom.noise import NOISE, Noise

LINE = DataSpec(
    {"state": KeySpec("vector", (1,)), **signal_keys(reward=True)},
    ActionSpec("continuous", 1, low=(-4.0,), high=(4.0,)),
    10.0,
)


class Line(WorldModel):
    """A point on a line: an action of -1 to 1 moves it by as much, with a reward for being near 0."""

    family: ClassVar[str] = "line"

    def __init__(self, spec: DataSpec = LINE, ends: float | None = None, costs: bool = False):
        super().__init__()
        self.spec, self.ends, self.costs, self.loss_weights = spec, ends, costs, {}
        self.register_parameter("unused", torch.nn.Parameter(torch.zeros(())))

    @property
    def decodes(self) -> tuple[str, ...]:
        return (
            "state",
            "reward",
            *(["terminated"] if self.ends is not None else []),
            *(["cost"] if self.costs else []),
        )

    def start(self, obs: Mapping[str, Tensor], noise: Noise = NOISE) -> PlaceState:
        return PlaceState(obs["state"])

    def observe(self, state: State, action: Tensor, obs: Mapping[str, Tensor], noise: Noise = NOISE) -> PlaceState:
        return PlaceState(obs["state"])

    def predict(self, state: State, action: Tensor, noise: Noise = NOISE) -> PlaceState:
        return PlaceState((state.features + action[..., :1]).clamp(-3, 3))

    def decode(self, state: State, key: str) -> Tensor:
        place = state.features[..., 0]
        if key == "terminated":
            return torch.full_like(place, self.ends or 0.0)
        return {"state": state.features, "reward": -place.abs(), "cost": (place > 1).float()}[key]

    def loss(self, segment: Segment, belief: State | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        return {}


def starts(count: int = 9) -> Starts:
    return Starts(PlaceState(torch.linspace(-2, 2, count)[:, None]), {})


def rssm(data: str = "image") -> tuple[WorldModel, Starts]:
    torch.manual_seed(0)
    spec = SPECS[data]
    if not spec.has_reward:
        spec = spec.with_targets(signal_keys(reward=True, terminated=spec.has_end))
    model = build("rssm", spec, "debug", deter=32, hidden=16, stoch=4, classes=4, units=16, depth=8)
    return model, Starts.track(model, random_segment(spec, batch=6, time=4)[:, :3])


@pytest.mark.parametrize("observation", ["decoded", "features"])
@pytest.mark.parametrize("data", ["image", "vector", "cameras and task"])
def test_gymnasiums_own_checker_finds_nothing(data: str, observation: str) -> None:
    model, begin = rssm(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|spec|-inf|inf).*")
        check_env(SingleDreamEnv(model, begin, horizon=5, observation=observation))


def test_a_picture_of_the_dream_can_be_rendered() -> None:
    env = SingleDreamEnv(*rssm("image"), horizon=5, render_mode="rgb_array")
    check_env(env, skip_close_check=True)
    obs, _ = env.reset(seed=0)
    frame = env.render()
    assert frame is not None
    assert frame.shape == (32, 32, 3)
    assert (frame == obs["image"]).all()
    assert env.metadata["render_fps"] == 10.0


@pytest.mark.parametrize("data", ["image", "vector"])
def test_a_vector_of_dreams_looks_like_a_vector_of_single_ones(data: str) -> None:
    model, begin = rssm(data)
    made = DreamEnv(model, begin, 3, horizon=4)
    usual = SyncVectorEnv([lambda: SingleDreamEnv(model, begin, horizon=4)] * 3)
    assert made.metadata["autoreset_mode"] == usual.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space", "num_envs"):
        assert getattr(made, name) == getattr(usual, name), name
    usual.action_space.seed(0)
    made.reset(seed=0)
    usual.reset(seed=0)
    for _ in range(9):
        action = usual.action_space.sample()
        steps = [env.step(action) for env in (made, usual)]
        for one, other in zip(*(step[:4] for step in steps), strict=True):
            assert [np.shape(v) for v in _arrays(one)] == [np.shape(v) for v in _arrays(other)]
            assert [np.asarray(v).dtype for v in _arrays(one)] == [np.asarray(v).dtype for v in _arrays(other)]
        assert steps[0][0] in made.observation_space


def _arrays(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]


def test_gymnasiums_statistics_count_returns_and_lengths() -> None:
    env = RecordEpisodeStatistics(DreamEnv(Line(), starts(), 2, horizon=3))
    env.reset(seed=1)
    for _ in range(3):
        *_, truncated, info = env.step(np.zeros((2, 1), np.float32))
    assert truncated.all()
    assert (info["episode"]["l"] == 3).all()


def test_rewards_and_beliefs_are_what_the_model_says() -> None:
    env = DreamEnv(Line(costs=True), starts(), 4, horizon=9)
    obs, info = env.reset(seed=3)
    assert info == {}
    after, reward, terminated, truncated, info = env.step(np.full((4, 1), 2.0))  # half of the range, so 0.5
    np.testing.assert_allclose(after["state"], obs["state"] + 0.5, atol=1e-6)
    np.testing.assert_allclose(reward, -np.abs(after["state"][:, 0]), atol=1e-6)
    np.testing.assert_array_equal(info["cost"], after["state"][:, 0] > 1)
    assert info["_cost"].all()
    assert not (terminated | truncated).any()


def test_a_dream_begins_again_in_the_step_after_its_end_and_alone() -> None:
    env = DreamEnv(Line(), starts(), 3, horizon=4)
    env.reset(seed=0)
    push = np.full((3, 1), 4.0)
    env.step(push)
    env.reset(options={"reset_mask": np.array([True, False, False])})
    ages = [env.step(push)[3].tolist() for _ in range(3)]
    assert ages == [[False] * 3, [False] * 3, [False, True, True]]
    obs, reward, _, truncated, _ = env.step(push)
    assert truncated.tolist() == [True, False, False]
    assert reward[1] == reward[2] == 0
    assert set(obs["state"][1:, 0].tolist()) <= set(torch.linspace(-2, 2, 9).tolist())


def test_colours_beyond_white_stay_white() -> None:
    decoded = torch.tensor([-0.01, 0.5, 1.004])[:, None, None, None].expand(3, 3, 2, 2)
    assert to_picture(decoded)[:, 0, 0, 0].tolist() == [0, 128, 255]


def test_a_seed_decides_the_dreams_and_leaves_the_global_generator_alone() -> None:
    env = DreamEnv(*rssm("vector"), 2, horizon=3)

    def play(seed: Any) -> list[np.ndarray]:
        obs, _ = env.reset(seed=seed)
        return [obs["state"], *(env.step(np.zeros((2, 3)))[0]["state"] for _ in range(8))]

    torch.manual_seed(5)
    first, again, other = play(7), play(7), play(8)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert drawn == torch.rand(1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(play([1, 2]), play([1, 2]))
    np.testing.assert_array_equal(first, play(np.int64(7)))
    np.testing.assert_array_equal(play([1, 2]), play(np.array([1, 2])))
    shared = DreamEnv(Line(), starts(), 2, horizon=2)
    line = [shared.reset(seed=[s, 5])[0]["state"][1].tolist() for s in range(4)]
    assert line == line[:1] * 4


def test_ends_are_drawn_and_the_temperature_sharpens_them() -> None:
    ended = {}
    for temperature in (0.0, 0.25, 1.0, 4.0):
        env = DreamEnv(Line(ends=0.25), starts(), 500, horizon=9, temperature=temperature)
        env.reset(seed=0)
        ended[temperature] = env.step(np.zeros((500, 1)))[2].mean()
    odds = {t: 1 / (1 + 3 ** (1 / t)) for t in (0.25, 1.0, 4.0)}
    assert ended[0.0] == 0
    for temperature, expected in odds.items():
        assert abs(ended[temperature] - expected) < 0.06, (temperature, ended[temperature], expected)


@pytest.mark.parametrize("family", ["rssm", "ensemble"])
def test_the_temperature_scales_what_the_model_samples(family: str) -> None:
    torch.manual_seed(0)
    model = build(
        family, SPECS["vector"], "debug", **({"members": 2} if family == "ensemble" else {"latent": "gaussian"})
    )
    begin = Starts.track(model, random_segment(SPECS["vector"], batch=2)[:1])
    spread = []
    for temperature in (0.0, 0.3, 1.0, 3.0):
        env = DreamEnv(model, begin, 64, temperature=temperature, observation="features")
        env.reset(seed=0)
        spread.append(env.step(np.zeros((64, 3)))[0].std(0).mean())
    assert spread == sorted(spread)
    assert spread[0] < 1e-6 < spread[1]


def test_starts_are_drawn_from_real_rows_but_never_from_an_end() -> None:
    dataset: Any = linear_dataset(linear_spec(image=False), episodes=6, length=12)
    dataset.check_episodes = lambda episodes: None
    rows = draw_rows(dataset, count=40, context=3, seed=1)
    assert rows.shape == (40, 3)
    assert rows.mask.all()
    begin = Starts.track(LinearModel(dataset.spec), rows)
    ended = rows.terminated[:, -1]
    torch.testing.assert_close(begin.belief.features, rows.obs["state"][~ended, -1])
    short = draw_rows(dataset, count=5, context=50)
    assert len(Starts.track(LinearModel(dataset.spec), short)) <= 5
    env = DreamEnv.of(LinearModel(dataset.spec), dataset, 2, seed=3, keys=("state",))
    places = torch.cat([episode.obs["state"][0] for episode in dataset.episodes])
    for place in env.reset(seed=0)[0]["state"]:
        assert (places == torch.from_numpy(place)).all(1).any()


def test_dreams_begin_anywhere_in_a_dataset_on_disk(tmp_path: Path) -> None:
    from worldloom.data.cache import cache_dataset

    raw = cache_dataset(toy.write_toy_dataset(tmp_path / "data", 4), (16, 16), cache_dir=tmp_path / "cache")
    dataset = raw.with_spec(raw.fit(range(4)))
    model = toy.ToyModel(dataset.spec, toy.ToyConfig())
    check_env(SingleDreamEnv(model, Starts.track(model, draw_rows(dataset, count=8)), horizon=5))
    env = DreamEnv.of(model, dataset, 3, horizon=5, observation="features")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (3, 32)
    assert env.action_space.shape == (3, 2)
    assert env.single_action_space.high.tolist() == [2, 2]


def test_a_task_stays_what_it_was() -> None:
    env = DreamEnv(*rssm("cameras and task"), 8, horizon=3)
    obs, _ = env.reset(seed=0)
    assert (obs["task"].sum(1) == 1).all()
    np.testing.assert_array_equal(env.step(np.zeros((8, 3)))[0]["task"], obs["task"])


def test_what_no_dream_can_be_is_refused() -> None:
    model, begin = rssm("image")
    cases: list[tuple[str, dict[str, Any]]] = [
        ("horizon of a dream is 0", {"horizon": 0}),
        ("temperature of a dream is -1", {"temperature": -1}),
        ("temperature of a dream is nan", {"temperature": float("nan")}),
        ("Did you mean 'image'", {"keys": ("imag",)}),
        ("Did you mean 'features'", {"observation": "feature"}),
        ("render mode", {"render_mode": "human"}),
    ]
    for words, settings in cases:
        with pytest.raises(UserError, match=words):
            DreamEnv(model, begin, **settings)
    with pytest.raises(UserError, match="num_envs is 0"):
        DreamEnv(model, begin, 0)
    blind, seen = build("rssm", SPECS["cameras and task"], "debug"), random_segment(SPECS["cameras and task"])
    with pytest.raises(UserError, match="no reward"):
        DreamEnv(blind, Starts.track(blind, seen))
    values = build("tdmpc", SPECS["vector"], "debug")
    with pytest.raises(UserError, match="observation='features'"):
        DreamEnv(values, Starts.track(values, random_segment(SPECS["vector"])))
    with pytest.raises(UserError, match="no start data"):
        Starts.track(model, random_segment(SPECS["image"]))  # every window of it ends
    with pytest.raises(UserError, match="at least 1 start"):
        draw_rows(linear_dataset(linear_spec()), count=0)  # type: ignore[arg-type]
    env = DreamEnv(Line(), starts(), 2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 1)))
    env.reset()
    with pytest.raises(UserError, match="an action is nan"):
        env.step(np.full((2, 1), np.nan))
    with pytest.raises(UserError, match="reset_mask"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})
    with pytest.raises(UserError, match="3 seeds for 2"):
        env.reset(seed=[1, 2, 3])
    chosen = DreamEnv(model, begin, 1)
    chosen.reset(seed=0)
    with pytest.raises(UserError, match="0 to 3"):
        chosen.step(np.array([4]))


def test_an_unmodified_ppo_of_stable_baselines3_learns_in_a_dream() -> None:
    stable_baselines3 = pytest.importorskip("stable_baselines3", reason="pip install 'worldloom[sb3]'")
    env = SingleDreamEnv(Line(), starts(), horizon=8, observation="features")
    agent = stable_baselines3.PPO(
        "MlpPolicy", env, n_steps=256, batch_size=64, n_epochs=5, learning_rate=3e-3, gamma=0.8, seed=0, device="cpu"
    )

    def score() -> float:
        """The mean return of 100 dreams."""
        judge = DreamEnv(Line(), starts(), 100, horizon=8, observation="features")
        obs, _ = judge.reset(seed=0)
        total = np.zeros(100)
        for _ in range(8):
            obs, reward, *_ = judge.step(agent.predict(obs, deterministic=True)[0])
            total += reward
        return float(total.mean())

    before = score()
    agent.learn(1536)
    after = score()
    assert after > before + 4, (before, after)
