"""Made this folder: what worldloom 0.1.0 writes, all of it in format 1, and what that version makes of it.

It ran once, at commit 6cdb5c2, and the folder is never made anew: a later version that ran it would record itself, and
the test would prove nothing. It stays so that one can read where the files come from. It ran from the root as

    PYTHONPATH=. python -m tests.recorded.make

data/      datasets as `worldloom record` writes them: `painted` (pictures, two language tasks, ends, success and cost),
           `point` (vectors and cost), `maze` (choices); the first episodes of `painted` as mp4 in `filmed`, and those
           of `point` in `interrupted`, which nobody has closed
cache/     what training decoded of them
runs/      a run of every family; one that averages its weights; a planner and policies, learned in a world or in a run
expected/  rows and windows of the data; of every run what it made of a window, its card, and how training went on
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import worldloom
from tests.recorded import looks
from tests.recorded.looks import ALL_CHOICES, ALL_DRAWS, DRAWS, HERE, PLACE
from worldloom.data.lerobot.writer import LeRobotWriter

EXPECTED = HERE / "expected"
AGAIN = 12  # other draws of a card, and of how training goes on
FIRST_OTHER = 1000  # seed of what is recorded; the test draws from others

RECORDED = {
    "painted": "tests.recorded.dot:make_dot --seed 14 --max-episode-steps 14 --hold 4 --image-size 16",
    "point": "point --max-episode-steps 20 --hold 4",
    "maze": "maze --options layout=blocking --max-episode-steps 24 --policy tests.recorded.dot:wander",
}
TRAINED = {
    "rssm": "rssm data/painted --set deter=32 --set hidden=16 --set units=16 --set stoch=4 --set depth=4 --set bins=41",
    "vae_rnn": "vae_rnn data/painted --set depth=4 --set bins=41 --set blind_heads=1 --set blind_steps=3",
    "tdmpc": "tdmpc data/painted --set latent=16 --set units=16 --set encoder_units=16 --set depth=4 --set bins=41",
    "mlp": "mlp data/point --set bins=41",
    "tabular": "tabular data/maze",
    "ensemble": 'ensemble data/point --set member=mlp --set members=3 --set hyperparameters={"units":16,"bins":41}',
    "averaged": "mlp data/point --set bins=41 --average 0.9",
}
# Long enough that little is left of the chance of rewards of e^20, or nothing of a reward could be compared.
ALIKE = (
    "--size debug --steps 300 --batch-size 4 --length 8 --image-size 16 --held-out 0.25 --lr 1e-2 --warmup 10 --keep 1 "
    "--precision fp32 --device cpu --threads 1 --checkpoint-every 300 --preview-every 0 --log-every 100"
)
SMALL_POLICY = "--policy.units 16 --policy.layers 1 --policy.horizon 3"
ACTING = (
    "--size debug --steps 64 --random-steps 40 --updates 5 --max-episode-steps 8 --eval-every 1000 --eval-episodes 1 "
    "--keep 1 --checkpoint-every 1000 --lr 1e-2 --device cpu"
)
LEARNED = {
    "learned_tdmpc": f"tdmpc point {ACTING} --batch-size 8 --samples 16 --elites 4 --iterations 2 --prior-samples 2 "
    "--set latent=16 --set units=16 --set encoder_units=16 --set bins=41",
    "learned_dreamer": f"dreamer point {ACTING} --batch-size 4 --length 8 {SMALL_POLICY} --set latent=gaussian "
    "--set deter=32 --set hidden=16 --set units=16 --set stoch=8 --set bins=41",
    "learned_inside": f"dreamer runs/rssm --steps 100 --batch-size 4 --length 8 {SMALL_POLICY} --lr 1e-2 --keep 1 "
    "--device cpu",
    "learned_cma": "cma runs/mlp --steps 3 --population 4 --dreams 4 --horizon 5 --length 8 --device cpu",
}
PLANNER = "runs/learned_tdmpc/plan/point-mppi"
# Data to look at what learned while acting; and the runs whose model is another's, which says all about it.
ELSEWHERE = {"learned_tdmpc": "data/point", "learned_dreamer": "data/point"}
INSIDE = {"learned_inside": "data/painted", "learned_cma": "data/point"}
# The logarithm of the largest bin of rewards, where it is not 20.
REACH = {"tdmpc": 10, "learned_tdmpc": 10, "tabular": 0}
MORE_STEPS = {"learned_tdmpc": 72, "learned_dreamer": 72, "learned_inside": 102, "learned_cma": 4}
JUDGING = "--context 4 --horizons 1 3 5 --windows 64 --samples 4 --device cpu"


def main() -> None:
    if (HERE / "runs").exists():
        sys.exit(f"{HERE} was recorded by worldloom 0.1.0 and is never made anew")
    torch.set_num_threads(1)
    with working_in(HERE):
        record_data()
        words = train() | learn()
    hide_place()
    EXPECTED.mkdir()
    with tempfile.TemporaryDirectory() as folder, working_in(looks.settle(Path(folder).resolve())):
        expect_rows()
        expect_walk()
        for name, typed in words.items():
            expect_run(name, typed)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Paths that are typed are then short, and the same on every machine."""
    before = Path.cwd()
    with mock.patch.dict(os.environ, WORLDLOOM_CACHE=str(folder / "cache")):
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def record_data() -> None:
    for name, typed in RECORDED.items():
        env, *flags = f"{typed} --episodes 8 --num-envs 1 --license CC0-1.0".split()
        looks.command("record", env, f"data/{name}", *flags)
    copy_rows("painted", "filmed")
    with mock.patch.object(LeRobotWriter, "close"):  # as if it had been killed
        copy_rows("point", "interrupted")
    looks.stamp(Path("data"))


def copy_rows(name: str, to: str) -> None:
    """The first episodes of a dataset, pictures as video."""
    source = worldloom.open_dataset(f"data/{name}")
    with LeRobotWriter(Path("data") / to, source.spec, lossless=False, about={"license": "CC0-1.0"}) as writer:
        for index in range(3):
            writer.add(source.read(index))


def train() -> dict[str, list[str]]:
    """The runs of `worldloom train`, and what was typed for each."""
    words = {}
    for name, typed in TRAINED.items():
        words[name] = ["train", *typed.split(), "--out", f"runs/{name}", *ALIKE.split()]
        looks.command(*words[name])
    return words


def learn() -> dict[str, list[str]]:
    """The runs of `worldloom learn`, and what was typed for each. With one of them a planner is saved."""
    words = {}
    for name, typed in LEARNED.items():
        words[name] = ["learn", *typed.split(), "--out", f"runs/{name}"]
        looks.command(*words[name])
    short = "--episodes 1 --max-episode-steps 3 --no-video --no-floors --planner mppi --samples 16 --precision fp32"
    looks.command("plan", "runs/learned_tdmpc", "point", *short.split(), "--out", PLANNER)
    (HERE / PLANNER / "score.json").unlink()  # nothing reads it
    return words


def hide_place() -> None:
    for record in HERE.glob("runs/*/run.json"):
        record.write_text(record.read_text(encoding="utf-8").replace(str(HERE), PLACE), encoding="utf-8")


def expect_rows() -> None:
    """The rows of every dataset, and of those that were trained on the window that is looked at."""
    facts = {}
    for path in sorted(Path("data").iterdir()):
        source = worldloom.open_dataset(path)
        save(f"rows-{path.name}", looks.rows_of(source))
        tasks = [episode.task for episode in source.episodes]
        facts[path.name] = {"spec": source.spec.to_json(), "tasks": tasks, "about": source.about}
    write("rows", facts)
    for run in ("rssm", "mlp", "tabular"):
        _, found = worldloom.load(f"runs/{run}")
        save(f"window-{Path(found.datasets[0].path).name}", looks.held_out(found))


def expect_walk() -> None:
    """A walk through the model of vectors, as `worldloom play` saves it."""
    stage = looks.stage_of(Path("runs/mlp"), Path("data/point"))
    walk = stage.begin(next(iter(stage.scenes.values())), 3)
    for action in ([0.5, 0.0], [0.5, -1.0]):
        walk.step(action)
    walk.rewind(2)
    walk.step([0.0, 1.0])
    write("walk", looks.to_replay(walk, stage.model_hash))


def expect_run(name: str, typed: list[str]) -> None:
    data = INSIDE.get(name) or ELSEWHERE.get(name) or next(word for word in typed if word.startswith("data/"))
    facts: dict[str, Any] = {"typed": typed, "data": data, "reach": REACH.get(name, 20)}
    window = looks.window(EXPECTED / f"window-{Path(data).name}.safetensors")
    if name not in INSIDE:
        model, _ = worldloom.load(f"runs/{name}")
        looked = expect_looks(name, model, window)
        facts["draws"] = DRAWS if any(key.startswith("std/") for key in looked) else 1
        moved = ["--data", data] if name in ELSEWHERE else []
        facts |= judged(["evaluate", f"runs/{name}", *moved, *JUDGING.split()], name, facts["draws"] > 1)
    for agent in Path(f"runs/{name}").rglob("agent.json"):
        facts["agent"] = str(agent.parent)
        seeds = range(FIRST_OTHER, FIRST_OTHER + ALL_CHOICES)
        save(f"agent-{name}", moments([looks.act(agent.parent, window, [seed]) for seed in seeds]))
    facts["more_steps"] = MORE_STEPS.get(name, 304)
    tries = [went_on(name, typed, facts["more_steps"], other) for other in range(AGAIN + 1)]
    facts |= {"went_on": tries[0], "went_on_spread": deviations(tries)}
    write(name, facts)


def expect_looks(name: str, model: worldloom.WorldModel, window: worldloom.Segment) -> dict[str, Tensor]:
    """What the model makes of the window. Of one that draws also from a belief that is given, and from a seed."""
    seeds = range(FIRST_OTHER, FIRST_OTHER + ALL_DRAWS // DRAWS)
    looked = moments([looks.look(model, window, DRAWS, seed) for seed in seeds])
    save(name, looked)
    if any(key.startswith("std/") for key in looked):
        torch.manual_seed(0)
        with torch.no_grad():
            belief = tree_leaves(model.track(window.obs, window.action))
        follows = moments([looks.look_from(model, window, belief, seed) for seed in seeds])
        drawn = {key.removeprefix("std/") for key in follows if key.startswith("std/")}
        assert all(key.startswith("observe/") for key in drawn), drawn
        sure = {key: value for key, value in follows.items() if key.partition("/")[2] not in drawn}
        save(f"belief-{name}", sure | {f"belief/{number}": value for number, value in enumerate(belief)})
        with Noise() as noise:
            once = looks.look(model, window)
        # The noise, so that a version that is given it instead of a seed can be asked for the very same.
        save(f"seed-{name}", moments([without_pictures(once)]) | noise.drawn)
    return looked


class Noise(TorchFunctionMode):
    """Keeps what torch draws, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in (torch.rand, torch.rand_like, torch.randn, torch.randn_like):
            self.drawn[f"noise/{len(self.drawn):03d}/{func.__name__.removesuffix('_like')}"] = found.clone()
        return found


def moments(looked: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Means over all draws of each `[B, N, ...]`, and the standard deviations of what is drawn."""
    tensors = {}
    for key in looked[0]:
        values = torch.cat([each[key] for each in looked], 1)
        same = (values == values[:, :1]).all(1)
        mean, std = values.double().mean(1).float(), values.double().std(1, correction=0).float()
        tensors[f"mean/{key}"] = torch.where(same, values[:, 0], mean)
        if not same.all():
            tensors[f"std/{key}"] = std.masked_fill(same, 0.0)
    return tensors


def without_pictures(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """They are large, and drawn from the same features as the rest."""
    return {key: value for key, value in found.items() if not key.endswith("/image")}


def judged(words: list[str], name: str, drawn: bool) -> dict[str, Any]:
    """The card's figures and, where they depend on draws, how much."""
    seed, cards = torch.manual_seed, []
    for other in range(AGAIN + 1 if drawn else 1):
        with mock.patch.object(torch, "manual_seed", lambda value, more=other: seed(value + 7919 * more)):
            looks.command(*words)
        cards.append(looks.figures(json.loads(Path(f"runs/{name}/card.json").read_text())))
    spread = {key: deviations([card[key] for card in cards]) for key in cards[0]} if drawn else {}
    # Of what is drawn two figures say too little: how many steps are useful leaps from one whole number to another, and
    # the belief's own skill hangs on a dream and its truth having drawn alike.
    left_out = {
        key for key in spread if "/useful_horizon/" in key or ("/latent@" in key and looks.is_drawn(spread[key]))
    }
    kept = {key: cards[0][key] for key in cards[0] if key not in left_out}
    return {"judged": words, "card": kept, "spread": {key: spread[key] for key in spread if key not in left_out}}


def deviations(tries: Sequence[looks.Figure]) -> list[float]:
    """Of each of the numbers that were tried; 0 where there is none."""
    columns = ([part or 0.0 for part in column] for column in zip(*tries, strict=True))
    return [float(torch.tensor(column, dtype=torch.float64).std()) for column in columns]


def went_on(name: str, typed: list[str], steps: int, other: int = 0) -> list[float]:
    """The losses of the updates that follow; `other` draws than those it would have made."""
    state = torch.set_rng_state
    shutil.copytree(f"runs/{name}", "before")
    with mock.patch.object(torch, "set_rng_state", lambda new: torch.manual_seed(other) if other else state(new)):
        looks.command(*looks.going_on(typed, steps))
    losses = looks.losses(Path(f"runs/{name}"))[len(looks.losses(Path("before"))) :]
    shutil.rmtree(f"runs/{name}")
    shutil.move("before", f"runs/{name}")
    return losses


def save(name: str, tensors: dict[str, Tensor]) -> None:
    save_file({key: value.contiguous() for key, value in tensors.items()}, EXPECTED / f"{name}.safetensors")


def write(name: str, content: Any) -> None:
    (EXPECTED / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
