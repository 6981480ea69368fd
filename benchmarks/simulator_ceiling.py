"""What planning reaches when the model is the simulator itself: our CEM with MuJoCo in the place of a world model.

    python benchmarks/simulator_ceiling.py [--json] [--tasks cartpole-swingup ...] [--seeds 0 1] [--budget 1000 10 100]

PlaNet (Hafner et al., 2019, table 1) reports this bound with CEM: horizon 12, 1000 samples, 10 iterations, 100 elites,
searched anew at every decision, and action repeats of its own. `--budget` is samples, iterations and elites; smaller
ones are faster and are named in the rows. One thread; the full budget takes from 10 minutes to hours an episode.

N candidates, H horizon, R action repeat, A action size, P physics state.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from dm_control import suite
from dm_control.utils.rewards import tolerance
from mujoco import rollout
from report import Row, print_rows
from torch import Tensor

from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.model import Obs, State, WorldModel, state
from worldloom.noise import NOISE, Noise
from worldloom.planners.cem import CEM
from worldloom.planners.objectives import Return
from worldloom.planners.planner import Problem

HORIZON, STEPS = 12, 1000
PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
Array = np.ndarray


@dataclass(frozen=True)
class Moments:
    """What a reward needs of physics: positions, velocities and sensors `[N, T, ...]`, the control `[N, T, A]`."""

    physics: Any
    position: Array
    velocity: Array
    sensors: Array
    control: Array


def cartpole_swingup(at: Moments) -> Array:
    upright = (np.cos(at.position[..., 1]) + 1) / 2
    centered = (1 + tolerance(at.position[..., 0], margin=2)) / 2
    gentle = (4 + tolerance(at.control[..., 0], margin=1, value_at_margin=0, sigmoid="quadratic")) / 5
    slow = (1 + tolerance(at.velocity[..., 1], margin=5)) / 2
    return upright * gentle * slow * centered


def reacher_easy(at: Moments) -> Array:
    shoulder, both = at.position[..., 0], at.position.sum(-1)
    finger = 0.12 * np.stack([np.cos(shoulder) + np.cos(both), np.sin(shoulder) + np.sin(both)], -1)
    model = at.physics.named.model
    radii = model.geom_size[["target", "finger"], 0].sum()
    return tolerance(np.linalg.norm(model.geom_pos["target"][:2] - finger, axis=-1), (0, radii))


def cup_catch(at: Moments) -> Array:
    cup, ball = at.position[..., :2] + [0, 0.6 - 0.05], at.position[..., 2:] + [0, 0.2]
    model = at.physics.named.model
    room = model.site_size["target", [0, 2]] - model.geom_size["ball", 0]
    return (np.abs(cup - ball) < room).all(-1).astype(float)


def finger_spin(at: Moments) -> Array:
    return (at.velocity[..., 2] <= -15.0).astype(float)


def walker_walk(at: Moments) -> Array:
    """Exact but for the speed: a rollout's sensors are those from before its last step of 2.5 ms."""
    standing = tolerance(at.position[..., 0] + 1.3, bounds=(1.2, np.inf), margin=0.6)
    upright = (1 + np.cos(at.position[..., 2])) / 2
    speed = at.sensors[..., 0]
    moving = tolerance(speed, bounds=(1, np.inf), margin=0.5, value_at_margin=0.5, sigmoid="linear")
    return (3 * standing + upright) / 4 * (5 * moving + 1) / 6


@dataclass(frozen=True)
class Task:
    """`reward` is the suite's own, for many states at once; `repeat` and `published` are PlaNet's."""

    domain: str
    name: str
    reward: Callable[[Moments], Array]
    repeat: int
    published: int


TASKS = {
    "cartpole-swingup": Task("cartpole", "swingup", cartpole_swingup, 8, 850),
    "reacher-easy": Task("reacher", "easy", reacher_easy, 4, 964),
    "ball_in_cup-catch": Task("ball_in_cup", "catch", cup_catch, 4, 993),
    "finger-spin": Task("finger", "spin", finger_spin, 2, 825),
    "walker-walk": Task("walker", "walk", walker_walk, 2, 994),
}


@state
class Physics(State):
    """physics float64 `[..., P]` and the reward summed over the last action's repeats `[...]`."""

    physics: Tensor
    reward: Tensor

    @property
    def features(self) -> Tensor:
        return self.reward[..., None]


class Simulator(WorldModel):
    """MuJoCo as a world model. It foresees and rewards; it neither looks nor learns."""

    def __init__(self, env: Any, task: Task):
        super().__init__()
        self.env, self.task = env, task
        size = env.action_spec().shape[0]
        action = ActionSpec("continuous", size, low=(-1.0,) * size, high=(1.0,) * size)
        self.spec = DataSpec(
            {"state": KeySpec("vector", (1,)), **signal_keys(reward=True, terminated=False)}, action, 1.0
        )
        self.model = env.physics.model.ptr
        self.scratch = mujoco.MjData(self.model)
        self.substeps = round(env.control_timestep() / self.model.opt.timestep)

    @property
    def decodes(self) -> tuple[str, ...]:
        return ("reward",)

    def decode(self, state: Physics, key: str) -> Tensor:  # type: ignore[override]
        return state.reward

    def imagine(self, state: Physics, actions: Tensor, noise: Noise = NOISE) -> Physics:  # type: ignore[override]
        repeats = self.task.repeat * self.substeps
        controls = actions.double().numpy().repeat(repeats, 1)
        states, sensors = rollout.rollout(self.model, self.scratch, state.physics.numpy(), controls)
        each = slice(self.substeps - 1, None, self.substeps)
        reward = self.task.reward(self.moments(states[:, each], sensors[:, each], controls[:, each]))
        reward = reward.reshape(*actions.shape[:2], self.task.repeat).sum(-1)
        return Physics(torch.from_numpy(states[:, repeats - 1 :: repeats]), torch.from_numpy(reward).float())

    def moments(self, states: Array, sensors: Array, controls: Array) -> Moments:
        positions, velocities = 1 + self.model.nq, 1 + self.model.nq + self.model.nv
        position, velocity = states[..., 1:positions], states[..., positions:velocities]
        return Moments(self.env.physics, position, velocity, sensors, controls)

    def now(self) -> Physics:
        """The real environment's state, `[1]`."""
        physics = np.zeros((1, mujoco.mj_stateSize(self.model, PHYSICS)))
        mujoco.mj_getState(self.model, self.env.physics.data.ptr, physics[0], PHYSICS)
        return Physics(torch.from_numpy(physics), torch.zeros(1))

    def predict(self, state: Physics, action: Tensor, noise: Noise = NOISE) -> Physics:  # type: ignore[override]
        return self.imagine(state, action[:, None])[:, 0]

    def start(self, obs: Obs, noise: Noise = NOISE) -> Physics:
        raise NotImplementedError("the simulator's state is read from it, not from an observation")

    def observe(self, state: State, action: Tensor, obs: Obs, noise: Noise = NOISE) -> Physics:
        raise NotImplementedError("the simulator's state is read from it, not from an observation")

    def loss(self, segment: Any, belief: State | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        raise NotImplementedError("the simulator has nothing to learn")


def episode(name: str, seed: int, planner: CEM) -> tuple[float, float, float]:
    """Return, CPU seconds spent, and the largest error of a foreseen reward, which says the model is the world."""
    task, began = TASKS[name], time.process_time()
    env = suite.load(task.domain, task.name, task_kwargs={"random": seed})
    env.reset()
    model, total, worst = Simulator(env, task), 0.0, 0.0
    for decision in range(STEPS // task.repeat):
        now = model.now()
        problem = Problem(model, now, Return(discount=1.0, use_value=False), seed=1000 * seed + decision)
        action = planner.plan(problem).actions[:, :1]
        foreseen = float(model.imagine(now, action).reward)
        earned = sum(env.step(action[0, 0].numpy()).reward for _ in range(task.repeat))
        total, worst = total + earned, max(worst, abs(earned - foreseen))
    return total, time.process_time() - began, worst


def measure(name: str, seeds: list[int], budget: tuple[int, int, int]) -> list[Row]:
    samples, iterations, elites = budget
    planner = CEM(horizon=HORIZON, samples=samples, iterations=iterations, elites=elites)
    episodes = [episode(name, seed, planner) for seed in seeds]
    returns, seconds, errors = zip(*episodes, strict=True)
    what, listed = f"{name}, CEM {samples} x {iterations}, simulator", " ".join(map(str, seeds))
    figures = (
        (f"mean return of seeds {listed}", float(np.mean(returns)), "return"),
        ("least return", min(returns), "return"),
        ("one episode", float(np.mean(seconds)), "CPU-s"),
        ("largest error of a foreseen reward", max(errors), "reward"),
    )
    rows = [Row(f"{what}, {figure}", value, unit, 1, "float64", "worldloom") for figure, value, unit in figures]
    published = Row(
        f"{name}, CEM 1000 x 10, simulator", TASKS[name].published, "return", 1, "float64", "published: PlaNet"
    )
    return [*rows, published]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--budget", nargs=3, type=int, default=[1000, 10, 100])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print_rows([row for name in asked.tasks for row in measure(name, asked.seeds, tuple(asked.budget))])


if __name__ == "__main__":
    main()
