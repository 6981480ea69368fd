"""What is asked of the recorded folder, by `make.py` once and by the test ever since, and when answers are the same.

B windows, T rows, N draws, H imagined steps, F features, A action size. Of a model only the verbs are used.

Whether a number is drawn is not written down anywhere: everything was looked at many times, and what differed is drawn.
It is kept as its mean and standard deviation, because a later version may draw in another way; what never differed is
kept as it is.
"""

import json
import os
import runpy
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

import worldloom

# What the package does not export. Where it moves, this is the one place to say so.
from worldloom.agents.saved import load_agent
from worldloom.commands.play import PlaySettings, open_context
from worldloom.data.cache import CachedDataset, cache_dataset
from worldloom.noise import TorchNoise
from worldloom.play.context import ServerContext
from worldloom.play.replay import play_replay, to_replay
from worldloom.runs.run import Run

__all__ = ["play_replay", "to_replay"]

HERE = Path(__file__).parent
# A run names its datasets by where they are. What is committed names no machine; `settle` fills the place in.
PLACE = "$RECORDED"
# Git keeps no times, but a dataset is known by those of its files (`EpisodeSource.fingerprint`): by them its cache is
# found, and a run goes on or not. So all were given this time before anything read them, and are given it again.
RECORDED_AT = 1_000_000_000
CONTEXT, HORIZON, ROWS = 3, 5, 8
# Of a model by the test, and by what was recorded; of an agent, which may be slow to choose, likewise.
DRAWS, ALL_DRAWS = 256, 4096
CHOICES, ALL_CHOICES = 24, 96
# Another processor adds in another order, which fp32 shows in its seventh digit; what is computed from that, in its
# sixth. Measured between AVX512 and SSE4: 2e-6 at most, but for the two below.
CLOSE = 1e-4
# A reward is the mean over bins that reach to e^20 on both sides, in `tdmpc`, with its values, to e^10. Chances of 1e-5
# times such numbers cancel, and what is left is rounded to 0.01, or to 1e-4. The losses of those heads know no such
# trouble, and are compared as closely as the rest.
WIDE, LESS_WIDE, ROUNDED = 0.25, 1e-3, 0.02
# How many standard errors two means may be apart: thousands are compared at once.
SIGMAS = 6.0

Figure = Sequence[float | None]


def settle(target: Path) -> Path:
    """A copy of the recorded data, cache and runs that is what they were where they were made."""
    for name in ("data", "cache", "runs"):
        shutil.copytree(HERE / name, target / name)
    stamp(target / "data")
    for record in target.glob("runs/*/run.json"):
        record.write_text(record.read_text(encoding="utf-8").replace(PLACE, str(target)), encoding="utf-8")
    return target


def stamp(data: Path) -> None:
    for file in data.rglob("*"):
        if file.is_file():
            os.utime(file, (RECORDED_AT, RECORDED_AT))


def command(*words: str) -> None:
    """`python -m worldloom WORDS`, in this process, because to start one takes seconds."""
    with mock.patch.object(sys, "argv", ["worldloom", *words]):
        runpy.run_module("worldloom", run_name="__main__")


def going_on(words: Sequence[str], steps: int) -> list[str]:
    """The words that continue what `words` began, and log every update."""
    changed, found = {"--steps": str(steps), "--log-every": "1"}, [*words]
    for flag in changed.keys() & {*words}:
        found[words.index(flag) + 1] = changed[flag]
    return [*found, "--resume"]


@torch.no_grad()
def look(model: worldloom.WorldModel, window: worldloom.Segment, draws: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Everything a model is asked for, `[B, N, ...]`: what "track" `[T]` and "imagine" `[H]` decode, and the "loss".

    The dream begins after `CONTEXT` rows and does what was done.
    """
    many = repeated(window, draws)
    torch.manual_seed(seed)
    tracked = model.track(many.obs, many.action)
    found = decoded(model, tracked, "track")
    found |= decoded(model, model.imagine(tracked[:, CONTEXT - 1], done(many)), "imagine")
    found |= {f"loss/{term}": value for term, value in model.loss(many).items()}
    return {name: value.float().unflatten(0, (-1, draws)) for name, value in found.items()}


@torch.no_grad()
def look_from(
    model: worldloom.WorldModel, window: worldloom.Segment, belief: Sequence[Tensor], seed: int = 0
) -> dict[str, Tensor]:
    """What follows from recorded tensors of a tracked belief `[B, T, ...]`, `[B, 1, ...]`.

    What it decodes ("belief"), the likeliest dream ("likeliest"), and the tensors of the next belief ("observe").
    """
    torch.manual_seed(seed)
    leaves, structure = tree_flatten(model.track(window.obs, window.action))
    # What beliefs have come to hold since is empty in a run of before.
    known = tree_unflatten([*belief, *(leaf for leaf in leaves[len(belief) :] if not leaf.numel())], structure)
    now, obs = known[:, CONTEXT - 1], {key: value[:, CONTEXT] for key, value in window.obs.items()}
    found = decoded(model, known, "belief") | decoded(model, likeliest(model, now, done(window)), "likeliest")
    after = tree_flatten(model.observe(now, window.action[:, CONTEXT - 1], obs))[0]
    found |= {f"observe/{number}": value for number, value in enumerate(after) if value.numel()}
    return {name: value.float()[:, None] for name, value in found.items()}


def likeliest(model: worldloom.WorldModel, belief: worldloom.State, actions: Tensor) -> worldloom.State:
    return model.imagine(belief, actions, TorchNoise(temperature=0.0))


def decoded(model: worldloom.WorldModel, beliefs: worldloom.State, name: str) -> dict[str, Tensor]:
    keys = {f"{name}/{key}": model.decode(beliefs, key) for key in model.decodes}
    return {f"{name}/features": beliefs.features, **keys}


def done(window: worldloom.Segment) -> Tensor:
    """What was done from the last row of the context on: `[B, H, A]`."""
    return window.action[:, CONTEXT - 1 : CONTEXT - 1 + HORIZON]


@torch.no_grad()
def act(run: Path, window: worldloom.Segment, seeds: Iterable[int]) -> dict[str, Tensor]:
    """What the agent of a run does after a first look and after the next: `[B, N, A]` each, N seeds."""
    agent = load_agent(run)
    first, second = ({key: value[:, t] for key, value in window.obs.items()} for t in range(2))
    found = []
    for seed in seeds:
        action, memory = agent.start(first, seed)
        found.append(torch.stack([action, agent.act(memory, second)[0]], 1))
    return {"act": torch.stack(found, 1).float()}


def repeated(window: worldloom.Segment, draws: int) -> worldloom.Segment:
    return window[torch.arange(window.shape[0]).repeat_interleave(draws)]


def excess(name: str, found: Tensor, wanted: Mapping[str, Tensor], reach: int) -> float:
    """How far draws `[B, N, ...]` are from what was recorded `[B, ...]`, as a share of what is allowed: 1 is the most.

    `reach` is the logarithm of the largest bin of rewards, 0 without bins. What hardly ever varies, such as a class
    that is drawn once in a thousand times, is allowed half of what the rest varies.
    """
    mean, std = wanted[f"mean/{name}"], wanted.get(f"std/{name}")
    if found.shape[:1] + found.shape[2:] != mean.shape:
        return float("inf")
    share, least = closeness(name, reach)
    allowed = share * (mean.abs() + mean.square().mean().sqrt()) + least
    if std is not None:
        spread = std.clamp(min=0.5 * float(std.square().mean().sqrt()))
        all_draws = ALL_CHOICES if name == "act" else ALL_DRAWS
        allowed = allowed + SIGMAS * spread * (1 / found.shape[1] + 1 / all_draws) ** 0.5
    return float(((found.double().mean(1) - mean).abs() / allowed).nan_to_num(float("inf")).max())


def closeness(name: str, reach: int) -> tuple[float, float]:
    """How close an answer has to be, as a share of its size, and at least."""
    of = name.rpartition("/")[2]
    if of == "reward" and reach == 20 and not name.startswith("loss/"):
        return WIDE, ROUNDED
    return LESS_WIDE if of in ("reward", "value", "policy") and reach == 10 else CLOSE, 1e-6


def figures(card: Mapping[str, Any]) -> dict[str, Figure]:
    """The card's numbers by one name each: value, low and high; of its costs those that are no times."""
    tables = {"model": card["metrics"], **card["baselines"]}
    return {
        f"{who}/{metric}/{key}": [figure[part] for part in ("value", "low", "high")]
        for who, table in tables.items()
        for metric, row in table.items()
        for key, figure in row.items()
        if metric != "cost" or key in ("parameters", "training_steps", "training_rows")
    }


def differences(found: Mapping[str, Figure], wanted: Mapping[str, Any]) -> list[str]:
    """The figures that are not what they were: of a run that draws within what other draws made of them."""
    card, spread, wrong = wanted["card"], wanted["spread"], []
    for name, figure in card.items():
        std = spread.get(name, (0.0,) * 3)
        reward = name.startswith(("model/reward", "model/return")) and wanted["reach"] == 20
        # Figures are ratios of small differences, so ten times coarser than what they are made of. A few draws do not
        # tell how far a figure of others can lie.
        close = WIDE if reward else ROUNDED if is_drawn(std) else 10 * CLOSE
        if name not in found or not is_near(found[name], figure, std, close):
            wrong.append(f"{name} was {figure}, is {found.get(name)}")
    return wrong


def is_drawn(std: Figure) -> bool:
    """Whether a figure differs between draws by more than how sums were rounded."""
    return any(part > CLOSE for part in std)


def is_near(found: Figure, wanted: Figure, std: Figure, close: float) -> bool:
    return all(
        a is b if a is None or b is None else abs(a - b) <= close * (1 + abs(b)) + (SIGMAS + 2) * (s or 0.0)
        for a, b, s in zip(found, wanted, std, strict=True)
    )


def rows_of(source: Any) -> dict[str, Tensor]:
    """Every row of a dataset: `{"0/obs/image": [T, C, H, W], "0/action": [T, A], "0/extra/cost": [T], ...}`."""
    return dict(named_rows(source))


def named_rows(source: Any) -> Iterable[tuple[str, Tensor]]:
    for index in range(len(source.episodes)):
        episode = source.read(index)
        yield from ((f"{index}/obs/{key}", torch.tensor(value)) for key, value in episode.obs.items())
        yield from ((f"{index}/extra/{key}", torch.tensor(value)) for key, value in episode.extra.items())
        for name in ("action", "reward", "terminated", "truncated"):
            yield f"{index}/{name}", torch.tensor(getattr(episode, name))


def stage_of(run: Path, data: Path) -> ServerContext:
    """What `worldloom play RUN --data DATA --particles 2 --no-trust --device cpu` serves."""
    return open_context(PlaySettings(what=str(run), data=data, particles=2, trust=False, device="cpu"))


def cached(run: Run) -> CachedDataset:
    """The data of a run as it reads them, from the cache."""
    return cache_dataset(run.datasets[0].path, run.image_size).with_spec(run.spec)


def held_out(run: Run) -> dict[str, Tensor]:
    """A window of each of two held-out episodes; the second outlasts its own, so that the end and what is past it show.

    By the names that `window` reads.
    """
    data, (first, second) = cached(run), run.datasets[0].held_out
    parts = [flat(data.segment(first, 0, ROWS)), flat(data.segment(second, int(data.lengths[second]) - ROWS + 1, ROWS))]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def window(file: Path) -> worldloom.Segment:
    """A recorded window `[B, T]`."""
    tensors = load_file(file)
    obs = {name.removeprefix("obs/"): value for name, value in tensors.items() if name.startswith("obs/")}
    signals = {name: tensors[name] for name in ("reward", "terminated", "truncated")}
    return worldloom.Segment(obs, tensors["action"], signals, tensors["mask"])


def flat(segment: worldloom.Segment) -> dict[str, Tensor]:
    """The tensors of a segment by name; signals that were no part of one then are left out."""
    rows = {name: getattr(segment, name) for name in ("action", "reward", "terminated", "truncated", "mask")}
    return {f"obs/{key}": value for key, value in segment.obs.items()} | rows


def losses(run: Path) -> list[float]:
    """Those that a run logs, of one update or the mean of some."""
    records = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [record["loss"] for record in records if "loss" in record]
