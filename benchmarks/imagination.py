"""How fast worlds go by: imagined steps per second beside those of real environments.

    python benchmarks/imagination.py [--json] [--batches 1024 64 1] [--repetitions 5] [--horizon 15] [--steps 500]
        [--data image vector] [--families rssm tdmpc mlp] [--envs doom carracing] [--debug]

A batch of beliefs is imagined `--horizon` steps ahead with random actions, and then again with every step's picture (or
vector) decoded, as a player or a recorder needs it but a policy in a dream does not; families that decode none have no
such row. Each batch counts as so many steps. Weights are random: they cost the same. Every registered family that can
hold the data is there. An environment is played at random in one process, alone, its resets included.

Medians of `--repetitions` after one to warm up, per second of the wall clock, which a busy machine slows, and per
second of processor time, which it slows less. The latter counts the processes that an environment starts (Doom's game
is one) where /proc tells of them.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from report import Row, print_rows
from torch import Tensor

from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.envs import make_env
from worldloom.envs.adapt import AdaptedEnv
from worldloom.errors import UserError
from worldloom.evaluation.cost import hardware
from worldloom.model import Obs, State, WorldModel
from worldloom.models import FAMILIES, build
from worldloom.training.memory import keep_freed_memory
from worldloom.training.precision import autocast, has_fast_bf16

CPU = torch.device("cpu")
PRECISIONS = ("bf16", "fp32") if has_fast_bf16(CPU) else ("fp32",)
SIZES = {"rssm": ("debug", "size1m", "nano")}  # of the other families nano
ACTION = 6
CONTINUOUS = ActionSpec("continuous", ACTION, low=(-1.0,) * ACTION, high=(1.0,) * ACTION)
DATA = {
    "image": DataSpec({"image": KeySpec("image", (3, 64, 64))}, CONTINUOUS, 20.0, has_reward=True, has_end=True),
    "vector": DataSpec({"vector": KeySpec("vector", (24,))}, CONTINUOUS, 20.0, has_reward=True, has_end=True),
}
SHOWN = {"image": "picture 64x64", "vector": "vector of 24"}
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "doom": {},
    "dmc:cartpole-swingup": {},
    "gym:CartPole-v1": {"pixels": True},
    "carracing": {},
}


@dataclass(frozen=True)
class Asked:
    """How much is measured."""

    batches: Sequence[int] = (1024, 64, 1)
    repetitions: int = 5
    horizon: int = 15
    steps: int = 500


def models(data: str, families: Sequence[str]) -> Iterator[tuple[str, WorldModel]]:
    """Every family at its sizes, where it can hold the data."""
    for family in families:
        for size in SIZES.get(family, ("nano",)):
            try:
                yield f"{family} {size}", build(family, DATA[data], size).eval()
            except UserError:
                break


@torch.inference_mode()
def imagination(data: str, families: Sequence[str], asked: Asked) -> list[Row]:
    rows = []
    for name, model in models(data, families):
        for batch in asked.batches:
            belief = model.start(looks(DATA[data], batch))
            actions = 2 * torch.rand(batch, asked.horizon, ACTION) - 1
            works = {"": dreaming(model, belief, actions)}
            if data in model.decodes:
                works[", decoded"] = dreaming(model, belief, actions, data)
            for precision in PRECISIONS:
                with autocast(precision, CPU):
                    for further, work in works.items():
                        what = f"{name}, {SHOWN[data]}, batch {batch}{further}"
                        rows += per_second(what, work, batch * asked.horizon, asked.repetitions, precision, "worldloom")
    return rows


def looks(spec: DataSpec, batch: int) -> Obs:
    """What a batch of environments might show."""
    return {
        key: torch.randint(256, (batch, *each.shape), dtype=torch.uint8)
        if each.kind == "image"
        else torch.randn(batch, *each.shape)
        for key, each in spec.obs.items()
    }


def dreaming(model: WorldModel, belief: State, actions: Tensor, key: str | None = None) -> Callable[[], None]:
    """One dream of the whole batch; `key` is decoded step by step, as all pictures at once would fill the memory."""

    def work() -> None:
        states = model.imagine(belief, actions)
        if key is not None:
            for step in range(actions.shape[1]):
                model.decode(states[:, step], key)

    return work


def reality(name: str, asked: Asked) -> list[Row]:
    """One environment played at random; a row without a value where it cannot be made here."""
    options = ENVIRONMENTS[name]
    what = " ".join([name, *(f"{key}={str(value).lower()}" for key, value in options.items())])
    try:
        env = make_env(name, **options)
    except UserError as error:
        return [Row(what, None, unit, 1, "-", f"not here: {error}") for unit in UNITS]
    with closing(env):
        return per_second(what, playing(env, asked.steps), asked.steps, asked.repetitions, "-", "real environment")


def playing(env: AdaptedEnv, steps: int) -> Callable[[], None]:
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(steps)]
    env.reset(seed=0)

    def work() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return work


UNITS = ("steps/s", "steps/CPU-s")


def per_second(
    name: str, work: Callable[[], None], steps: int, repetitions: int, precision: str, source: str
) -> list[Row]:
    """The median rates of `work`, which does so many steps, by the wall clock and by the processor's."""
    spent = []
    for _ in range(1 + repetitions):
        began = time.perf_counter(), processor_seconds()
        work()
        spent.append((time.perf_counter() - began[0], processor_seconds() - began[1]))
    threads = torch.get_num_threads()
    seconds = [median(column) for column in zip(*spent[1:], strict=True)]
    return [
        Row(name, steps / each if each > 0 else None, unit, threads, precision, source)  # a clock may be too coarse
        for each, unit in zip(seconds, UNITS, strict=True)
    ]


def processor_seconds() -> float:
    """User and system time of this process and of those it started."""
    return time.process_time() + sum(map(seconds_of, children()))


def children() -> list[int]:
    files = Path("/proc/self/task").glob("*/children")
    return [int(number) for file in files for number in file.read_text().split()]


def seconds_of(process: int) -> float:
    """The time a process has used so far, 0 when it is gone."""
    try:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def measure(data: Sequence[str], families: Sequence[str], envs: Sequence[str], asked: Asked) -> list[Row]:
    rows = []
    for each in data:
        rows += imagination(each, families, asked)
    for env in envs:
        rows += reality(env, asked)
    return rows


def show(rows: Sequence[Row], as_json: bool) -> None:
    """The table and what it was measured on, or both as one JSON object."""
    facts = {
        "command": " ".join(["python", *sys.argv]),
        "hardware": f"{hardware('cpu')}; torch {torch.__version__}, numpy {np.__version__}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    if as_json:
        print(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1))
        return
    print_rows(rows, as_json=False)
    print(facts["hardware"])


def main(words: Sequence[str] | None = None) -> None:
    usual = Asked()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", nargs="+", type=int, default=list(usual.batches))
    parser.add_argument("--repetitions", type=int, default=usual.repetitions)
    parser.add_argument("--horizon", type=int, default=usual.horizon)
    parser.add_argument("--steps", type=int, default=usual.steps, help="of an environment, in each repetition")
    parser.add_argument("--data", nargs="*", choices=list(DATA), default=list(DATA))
    parser.add_argument("--families", nargs="*", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--envs", nargs="*", choices=list(ENVIRONMENTS), default=list(ENVIRONMENTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--debug", action="store_true", help="one repetition of very little, to see that it runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    for name in ("batches", "repetitions", "horizon", "steps", "threads"):
        if min(np.atleast_1d(getattr(given, name))) < 1:
            parser.error(f"--{name}: must be at least 1")
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    asked = Asked(given.batches, given.repetitions, given.horizon, given.steps)
    if given.debug:
        asked = Asked(batches=(2, 1), repetitions=1, horizon=2, steps=3)
    show(measure(given.data, given.families, given.envs, asked), given.json)


if __name__ == "__main__":
    main()
