"""A model and its baselines over held-out windows: what was predicted at each step, and how wrong it was.

N windows, B batch, C context rows, H open-loop steps, K scored steps (the grid), S scored steps of SSIM, M samples,
A action size, D vector size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.evaluation.baselines import Baselines, unit
from worldloom.evaluation.windows import HeldOut, Window, WindowBatch, batches, end_windows
from worldloom.model import State, WorldModel
from worldloom.noise import Noise, TorchNoise
from worldloom.stats.scores import ssim
from worldloom.training.objective import weigh_windows

LOSS_WINDOWS = 64
TRACK_ROWS = 1024
LATENT = "latent"


@dataclass(frozen=True)
class RolloutSettings:
    """How windows are rolled out: `samples` dreams per window are averaged, `grid` steps are scored."""

    context: int
    horizons: tuple[int, ...]
    grid: tuple[int, ...]
    samples: int
    batch_size: int
    seed: int
    device: str

    @property
    def length(self) -> int:
        return max(self.horizons)

    @property
    def noise(self) -> Noise:
        """The noise of tracking: the same at every call, so two calls that track the same rows agree."""
        return TorchNoise.seeded(self.seed, self.device)

    def noise_for(self, number: int) -> Noise:
        """What is drawn for rollout `number`, whatever its actions are."""
        return TorchNoise.seeded(self.seed * 1_000_003 + number, self.device)


@dataclass
class Errors:
    """Per window; NaN where the episode was over. Predictors are model, shuffled and the baselines.

    steps: how many rows follow the context in the episode `[N]`.

    mse: `{(predictor, key): [N, K]}` for images, `[N, K, D]` in units of the training std for vectors; of the shuffled
    actions at the card's horizons only, `[N, S]` and `[N, S, D]`.
    The key `LATENT`, of the model and of persistence only, is the mean squared error of the belief's own features.
    ssim: `{(predictor, key): [N, S]}`. heads: the model's "reward" and "terminated" at every step, "real_reward" and
    "real_terminated" beside them, `[N, H]`. loss: `{term: ([n], [n])}` with true and with shuffled actions,
    `loss_episode` `[n]` their episodes.
    """

    grid: tuple[int, ...]
    horizons: tuple[int, ...]
    episode: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    steps: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    mse: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    ssim: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    heads: dict[str, np.ndarray] = field(default_factory=dict)
    loss: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    loss_episode: np.ndarray = field(default_factory=lambda: np.empty(0, int))


def roll_out(model: WorldModel, baselines: Baselines, windows: Sequence[Window], settings: RolloutSettings) -> Errors:
    """Every window through the model, with true and with shuffled actions, and through the baselines."""
    mixed = [windows[i] for i in np.random.default_rng(settings.seed).permutation(len(windows))]
    parts: dict[str, list[np.ndarray]] = {}
    collect = _Collector(parts)
    pool: WindowBatch | None = None
    for number, batch in enumerate(batches(mixed, settings.batch_size, settings.context, settings.length)):
        rng = np.random.default_rng([settings.seed, number])
        actions = fill_actions(batch.actions, batch.valid, rng)
        shuffled = shuffle_actions(actions, batch.episode, pool, rng)
        beliefs = track_context(model, batch, settings)
        collect.add("episode", batch.episode)
        collect.add("steps", batch.steps)
        _score_model(model, batch, beliefs, actions, "model", settings, number, collect)
        if batch.actions.shape[-1]:
            _score_model(model, batch, beliefs, shuffled, "shuffled", settings, number, collect)
            if number * settings.batch_size < LOSS_WINDOWS:
                _score_loss(model, batch, rng, settings, number, collect)
        _score_baselines(baselines, batch, settings, collect)
        pool = batch
    return collect.errors(settings)


def fill_actions(recorded: Tensor, taken: np.ndarray, rng: np.random.Generator) -> Tensor:
    """The recorded actions `[B, H, A]`; where none was `taken` `[B, H]`, random ones of the batch go on in their style.

    Without them the zeros that follow an end would tell the model that there was one.
    """
    actions, valid = recorded.clone(), torch.from_numpy(taken)
    if valid.any() and not valid.all():
        pool = actions[valid]
        actions[~valid] = pool[torch.from_numpy(rng.integers(len(pool), size=int((~valid).sum())))]
    return actions


def shuffle_actions(actions: Tensor, episode: np.ndarray, pool: WindowBatch | None, rng: np.random.Generator) -> Tensor:
    """For each window the actions of another one, from another episode where there is one: `[B, H, A]`.

    A window that is alone gets its own actions in reverse.
    """
    everything, owner = actions, episode
    if pool is not None:
        everything = torch.cat([actions, fill_actions(pool.actions, pool.valid, rng)])
        owner = np.concatenate([episode, pool.episode])
    if len(everything) == 1:
        return actions.flip(1)
    partners = []
    for index, name in enumerate(episode):
        others = np.flatnonzero(owner != name)
        others = others if len(others) else np.delete(np.arange(len(owner)), index)
        partners.append(int(rng.choice(others)))
    return everything[partners]


def track_context(model: WorldModel, batch: WindowBatch, settings: RolloutSettings) -> State:
    """The belief after the context rows, M times: `[B * M]`."""
    obs = {k: v[:, : settings.context].to(settings.device) for k, v in batch.segment.obs.items()}
    beliefs = model.track(obs, batch.segment.action[:, : settings.context].to(settings.device), settings.noise)
    return beliefs[:, -1].repeat(settings.samples)


def imagine(model: WorldModel, beliefs: State, actions: Tensor, settings: RolloutSettings, number: int) -> State:
    """Open-loop beliefs `[B * M, H]`; the same `number` draws the same noise whatever the actions are."""
    repeated = actions.to(settings.device).repeat_interleave(settings.samples, 0)
    return model.imagine(beliefs, repeated, settings.noise_for(number))


def expected(model: WorldModel, states: State, key: str, samples: int) -> Tensor:
    """The mean over samples of what `key` decodes to: `[B * M, ...]` to `[B, ...]`."""
    decoded = model.decode(states, key).float()
    return decoded.unflatten(0, (-1, samples)).mean(1)


def track_episodes(
    model: WorldModel, held: Sequence[HeldOut], settings: RolloutSettings
) -> list[dict[str, np.ndarray]]:
    """Reward and end read from tracked beliefs of whole episodes: per episode `{head: [T], real_head: [T]}`."""
    found: list[dict[str, np.ndarray]] = [{} for _ in held]
    order = sorted(range(len(held)), key=lambda i: held[i].length)
    heads = signals_of(model)
    while heads and order:
        longest = held[order[-1]].length
        count = max(1, min(len(order), TRACK_ROWS // longest))
        chosen, order = order[-count:], order[:-count]
        windows = [Window(held[i], 0) for i in chosen]
        batch = next(batches(windows, count, 1, longest - 1))
        segment = batch.segment.to(settings.device)
        states = model.track(segment.obs, segment.action, settings.noise)
        for head in heads:
            decoded = model.decode(states, head).float().cpu().numpy()
            real = recorded(batch.segment, head)
            for row, i in enumerate(chosen):
                found[i][head] = decoded[row, : held[i].length]
                found[i]["real_" + head] = real[row, : held[i].length]
    return found


def end_probabilities(
    model: WorldModel, held: Sequence[HeldOut], horizon: int, settings: RolloutSettings
) -> tuple[np.ndarray, ...]:
    """The model's end probability for the last row of each episode that is long enough, `horizon` steps before it.

    Returns (probability, really terminated, episode), each `[n]`. These rows are the only ones that can show an end.
    """
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    windows = end_windows(held, settings.context, horizon)
    for number, batch in enumerate(batches(windows, settings.batch_size, settings.context, horizon)):
        states = imagine(model, track_context(model, batch, settings), batch.actions, settings, 7_000 + number)
        probability = expected(model, states[:, -1], "terminated", settings.samples).cpu().numpy()
        found.append((probability, batch.segment.terminated[:, -1].numpy(), batch.episode))
    if not found:
        return np.empty(0), np.empty(0, bool), np.empty(0, int)
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))


class _Collector:
    """Lists of per-batch arrays by name, joined at the end."""

    def __init__(self, parts: dict[str, list[np.ndarray]]):
        self.parts = parts

    def add(self, name: str, values: np.ndarray | Tensor) -> None:
        values = values.cpu().numpy() if isinstance(values, Tensor) else values
        self.parts.setdefault(name, []).append(values)

    def errors(self, settings: RolloutSettings) -> Errors:
        joined = {name: np.concatenate(arrays) for name, arrays in self.parts.items()}
        errors = Errors(settings.grid, settings.horizons, joined.pop("episode"), joined.pop("steps"))
        for name, values in joined.items():
            kind, _, rest = name.partition("|")
            if kind in ("mse", "ssim"):
                predictor, key = rest.split("|", 1)
                getattr(errors, kind)[predictor, key] = values
            elif kind == "head":
                errors.heads[rest] = values
            elif kind == "loss" and rest == "episode":
                errors.loss_episode = values
            elif kind == "loss":
                errors.loss[rest] = (values, joined["shuffled_loss|" + rest])
        return errors


def _score_model(
    model: WorldModel,
    batch: WindowBatch,
    beliefs: State,
    actions: Tensor,
    predictor: str,
    settings: RolloutSettings,
    number: int,
    collect: _Collector,
) -> None:
    states = imagine(model, beliefs, actions, settings, number)
    grid = settings.horizons if predictor == "shuffled" else settings.grid
    for key in (*model.spec.image_keys, *model.spec.vector_keys):
        if key not in model.decodes:
            continue
        # One step at a time: a picture of every window, sample and step at once would not fit in memory.
        steps = [expected(model, states[:, k - 1], key, settings.samples) for k in grid]
        _score(model.spec, key, predictor, torch.stack(steps, 1), batch, replace(settings, grid=grid), collect)
    if predictor == "shuffled":
        return
    _score_latent(model, batch, states, settings, collect)
    for head in signals_of(model):
        collect.add("head|" + head, expected(model, states, head, settings.samples))
        collect.add("head|real_" + head, recorded(batch.segment, head)[:, batch.context :].astype(np.float32))


def _score_latent(
    model: WorldModel, batch: WindowBatch, states: State, settings: RolloutSettings, collect: _Collector
) -> None:
    """Imagined beliefs `[B * M, H]` against those tracked on the rows that really came, in the model's own features."""
    if LATENT in model.spec.obs or not has_features(states):
        return
    segment = batch.segment.to(settings.device)
    # The noise of `track_context`: the same draws up to t, where the dream begins.
    tracked = model.track(segment.obs, segment.action, settings.noise).features.float().flatten(2)
    picked = torch.tensor(settings.grid) - 1
    now, later = tracked[:, batch.context - 1, None], tracked[:, batch.context + picked]
    imagined = states.features[:, picked].float().flatten(2).unflatten(0, (-1, settings.samples)).mean(1)
    valid = torch.from_numpy(batch.valid)[:, picked]
    for predictor, forecast in (("model", imagined), ("persistence", now)):
        error = (forecast - later).square().mean(-1).cpu()
        collect.add(f"mse|{predictor}|{LATENT}", torch.where(valid, error, torch.nan))


def signals_of(model: WorldModel) -> list[str]:
    """The signals of one number a row that a model predicts and its data have: reward, terminated, cost, ..."""
    scalars = [key for key, entry in model.spec.targets.items() if entry.shape == ()]
    return [key for key in scalars if key in model.decodes]


def recorded(segment: Segment, signal: str) -> np.ndarray:
    """What the data say of a signal, `[B, T]`; NaN where it was not recorded."""
    values, known = segment.signals[signal].numpy(), segment.known(signal)
    return values if known is None else np.where(known.numpy(), values.astype(np.float32), np.nan)


def has_features(belief: State) -> bool:
    """Whether a belief says what can be read out of it."""
    try:
        return belief.features.ndim > 0
    except NotImplementedError:
        return False


def _score(
    spec: DataSpec,
    key: str,
    predictor: str,
    forecast: Tensor,
    batch: WindowBatch,
    settings: RolloutSettings,
    collect: _Collector,
) -> None:
    """Squared errors (and SSIM) of a forecast `[B, K, ...]` of one key."""
    forecast = forecast.cpu()
    picked = torch.tensor(settings.grid) - 1
    real = unit(spec, key, batch.future(key)[:, picked])
    valid = torch.from_numpy(batch.valid)[:, picked]
    squared = (forecast - real).square()
    if key in spec.vector_keys:
        std = torch.tensor(spec.obs[key].std or [1.0] * real.shape[-1])
        collect.add(f"mse|{predictor}|{key}", torch.where(valid[..., None], squared / std.square(), torch.nan))
        return
    collect.add(f"mse|{predictor}|{key}", torch.where(valid, squared.flatten(2).mean(-1), torch.nan))
    if predictor == "shuffled":
        return
    columns = [settings.grid.index(k) for k in settings.horizons]
    similar = ssim(forecast[:, columns].flatten(0, 1), real[:, columns].flatten(0, 1)).view(len(real), -1)
    collect.add(f"ssim|{predictor}|{key}", torch.where(valid[:, columns], similar, torch.nan))


def _score_baselines(baselines: Baselines, batch: WindowBatch, settings: RolloutSettings, collect: _Collector) -> None:
    for key in baselines.keys:
        _score(baselines.spec, key, "persistence", baselines.persistence(key, batch), batch, settings, collect)
        if baselines.available:
            _score(baselines.spec, key, "mean", baselines.mean(key, batch), batch, settings, collect)
            _score(baselines.spec, key, "linear", baselines.linear(key, batch), batch, settings, collect)


def _score_loss(
    model: WorldModel,
    batch: WindowBatch,
    rng: np.random.Generator,
    settings: RolloutSettings,
    number: int,
    collect: _Collector,
) -> None:
    """The training loss per window with true actions, and with those of another window throughout."""
    segment = batch.segment.to(settings.device)
    # Filled first: the zeros after an end, in the middle of another window, would be an action nobody ever took.
    taken = np.arange(segment.shape[1]) < (batch.context + batch.steps - 1)[:, None]
    filled = fill_actions(batch.segment.action, taken, rng)
    shuffled = shuffle_actions(filled, batch.episode, None, rng).to(settings.device)
    collect.add("loss|episode", batch.episode)
    for name, actions in (("loss|", segment.action), ("shuffled_loss|", shuffled)):
        losses = model.loss(segment.with_action(actions), noise=settings.noise_for(number))
        terms = weigh_windows(losses, segment.mask)
        for term, values in terms.items():
            collect.add(name + term, values)
        weighed = [model.loss_weights[term] * values for term, values in terms.items()]
        if weighed:
            collect.add(name + "total", torch.stack(weighed).sum(0))
