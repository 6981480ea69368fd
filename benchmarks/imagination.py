"""How fast a world model dreams, beside how fast the worlds themselves go: steps per second of one thread, fp32.

    python benchmarks/imagination.py [--quick] [--json]

A dream is `predict` with random actions, and reads out reward and end as those who learn in it do; "every key decoded"
shows the picture or the vector as well. The worlds play random actions, each in one process, which waits for the engine
where that is another one. Medians of repetitions, in wall time: run it on an idle machine.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from statistics import median
from typing import Any

import torch
from report import Row, print_rows

from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.envs import make_env
from worldloom.errors import UserError
from worldloom.model import Obs, WorldModel
from worldloom.models import build

PICTURES, VECTORS = "pictures 64 x 64", "vectors of 24"
MODELS = {
    PICTURES: [("rssm", "debug"), ("rssm", "size1m"), ("rssm", "nano"), ("vae_rnn", "nano"), ("tdmpc", "nano")],
    VECTORS: [("rssm", "size1m"), ("rssm", "nano"), ("vae_rnn", "nano"), ("tdmpc", "nano"), ("mlp", "nano")],
}
WORLDS: list[tuple[str, dict[str, Any]]] = [
    ("doom", {}),
    ("carracing", {}),
    ("gym:CartPole-v1", {"pixels": True, "state": False}),
    ("dmc:walker-walk", {}),
    ("dmc:walker-walk", {"pixels": True, "state": False}),
]
KEYS = {PICTURES: KeySpec("image", (3, 64, 64)), VECTORS: KeySpec("vector", (24,))}
BATCHES = (1, 64, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps of each: whether it runs, not how fast")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds, repetitions = (0.01, 1) if options.quick else (1.0, 5)
    rows = [*dreams(seconds, repetitions, BATCHES[:2] if options.quick else BATCHES), *worlds(seconds, repetitions)]
    print_rows(rows, options.json)


def dreams(seconds: float, repetitions: int, batches: tuple[int, ...]) -> Iterator[Row]:
    for kind, models in MODELS.items():
        for family, size in models:
            model = make_model(kind, family, size)
            for batch in batches:
                for seen in (False, True):
                    if seen and not set(model.spec.obs) & set(model.decodes):
                        continue  # a family that shows nothing
                    rate = batch * median(rates(dreamer(model, batch, seen), seconds, repetitions))
                    what = f"{family} {size}, {kind}{', every key decoded' if seen else ''}, batch {batch:,}"
                    yield Row(what, rate, "imagined steps/s", 1, "fp32", "worldloom")


def make_model(kind: str, family: str, size: str) -> WorldModel:
    torch.manual_seed(0)
    action = ActionSpec("continuous", 6, low=(-1.0,) * 6, high=(1.0,) * 6)
    key = "image" if kind == PICTURES else "state"
    return build(
        family, DataSpec({key: KEYS[kind], **signal_keys(reward=True, terminated=True)}, action, 20), size
    ).eval()


def dreamer(model: WorldModel, batch: int, seen: bool) -> Callable[[], None]:
    """One step of `batch` dreams."""
    read = [key for key in model.decodes if key in ("reward", "terminated") or (seen and key in model.spec.obs)]
    action = torch.rand(batch, model.spec.action.size) * 2 - 1
    belief = model.start(empty(model.spec, batch))

    @torch.inference_mode()
    def step() -> None:
        nonlocal belief
        belief = model.predict(belief, action)
        for key in read:
            model.decode(belief, key)

    return step


def empty(spec: DataSpec, batch: int) -> Obs:
    types = {"image": torch.uint8, "vector": torch.float32}
    return {name: torch.zeros(batch, *key.shape, dtype=types[key.kind]) for name, key in spec.obs.items()}


def worlds(seconds: float, repetitions: int) -> Iterator[Row]:
    for name, options in WORLDS:
        shown = f"{name}{' from pictures' if options else ''}, one process"
        try:
            with closing(make_env(name, **options)) as env:
                rate = median(rates(player(env), seconds, repetitions))
        except UserError as error:
            yield Row(shown, None, "real steps/s", 1, "-", str(error).split(".")[0])
            continue
        yield Row(shown, rate, "real steps/s", 1, "-", "the environment itself")


def player(env: Any) -> Callable[[], None]:
    """One step of a random policy; whatever ended begins anew."""
    env.reset(seed=0)
    env.action_space.seed(0)

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()

    return step


def rates(step: Callable[[], None], seconds: float, repetitions: int) -> list[float]:
    """Calls per second, after one to warm up."""
    step()
    found = []
    for _ in range(repetitions):
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds or not count:
            step()
            count += 1
        found.append(count / max(time.perf_counter() - began, 1e-9))
    return found


if __name__ == "__main__":
    main()
