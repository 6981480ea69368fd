"""The trust meter: for how many more steps an imagined rollout is better than the mean of its episode.

Its inputs at a node are the steps since the last observation (`open_loop_steps`) and the spread of the particles
(`Result.spread`). Held-out episodes are imagined with the recorded actions, and every step is good or not
(`calibration_rollouts`). Half of the episodes fit a survival model: how long nodes with such inputs stay good. The
other half calibrate a threshold on its probability (risk control as in Angelopoulos et al., "Conformal risk control",
2024). A promise of 0.9:

    of the nodes of new episodes like the held-out ones at which the meter makes a promise, 90 % stay good for at least
    as many steps as promised.

All episodes have the same weight, whatever their length. Two conditions hold on the calibration half, with one more
episode added in which every promise is broken. At most 10 % of all nodes have a broken promise: as a theorem, a node of
a new episode has a broken promise with probability 0.1 at most. And at most 10 % of the promises that end within their
episode are broken, in as many episodes as 0.9 needs. The second condition estimates the sentence above; it is
optimistic where promises are rare, because the threshold was selected on the same episodes. So no promise is made that
would be made at fewer than 5 % of the nodes.

H horizon, M samples, F inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from worldloom.data import durable
from worldloom.errors import UserError
from worldloom.evaluation.windows import HeldOut, held_out_episodes
from worldloom.model import WorldModel
from worldloom.play.calibration_rollouts import CalibrationSamples, collect_samples
from worldloom.runs.run import Run, read_json
from worldloom.runs.sources import open_sources
from worldloom.safety.calibration import weights_hash
from worldloom.safety.conformal import check_alpha, episodes_needed
from worldloom.stats.bootstrap import Figure, figure

FORMAT = 3
LEVELS = (0.5, 0.8, 0.9, 0.95)
DEFAULTS = {"particles": 4, "horizon": 50, "context": 8, "windows": 400, "seed": 0}
MIN_SHARE = 0.05  # of all samples, for a promise to be made
MIN_EPISODES = 5  # that fit the survival model, at every depth
SHARES = np.linspace(0, 1.004, 252)  # candidate thresholds, the last above any probability
INPUTS, RISING = 11, 4
SAVED = ("promise", "episodes", "checkpoint", "settings")


@dataclass(frozen=True)
class SurvivalModel:
    """Probability that a node stays good: a logistic hazard of each further step that never falls with the spread.

    weights `[F]`. centre and scale `[2]`: of the spread's logarithm at an observation, and after it.
    """

    horizon: int
    weights: np.ndarray
    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, samples: CalibrationSamples, horizon: int) -> Self:
        """Fit to every further step that was reached and recorded. All episodes have the same weight."""
        weight = 1 / np.bincount(samples.episode)[samples.episode]
        groups = [logarithm(samples.spread[(samples.depth > 0) == after]) for after in (False, True)]
        centre = np.array([group.mean() if len(group) else 0.0 for group in groups])
        scale = np.array([max(group.std(), 1e-3) if len(group) else 1.0 for group in groups])
        made = cls(horizon, np.zeros(INPUTS), centre, scale)
        steps = np.arange(1, horizon + 1)
        reached = [np.flatnonzero((samples.ahead >= step) & (samples.left >= step - 1)) for step in steps]
        rows, step = np.concatenate(reached), np.repeat(steps, [len(each) for each in reached])
        inputs = made.inputs(samples.depth[rows], samples.spread[rows], step)
        return replace(made, weights=logistic(inputs, samples.left[rows] < step, weight[rows] / weight.mean()))

    def inputs(self, depth: np.ndarray, spread: np.ndarray, step: np.ndarray) -> np.ndarray:
        """`[M, F]`, the last `RISING` of which rise with the spread."""
        after = (depth > 0).astype(int)
        large = np.clip((logarithm(spread) - self.centre[after]) / self.scale[after], -3, 3) + 3
        deep, soon, observed = np.log1p(depth), 1 / step, 1 - after
        free = [np.ones(len(depth)), deep, observed, soon, np.log(step), deep * soon, observed * soon]
        return np.stack([*free, large * after, large * after * soon, large * observed, large * observed * soon], 1)

    def survival(self, depth: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Probability to stay good for at least 1 to H more steps: `[M, H]`."""
        steps = np.tile(np.arange(1, self.horizon + 1), len(depth))
        inputs = self.inputs(depth.repeat(self.horizon), spread.repeat(self.horizon), steps)
        return (1 - sigmoid(inputs @ self.weights)).reshape(len(depth), self.horizon).cumprod(1)


@dataclass(frozen=True)
class Trust:
    """The meter. thresholds: by promise, the least survival probability at which a step is promised.

    promise: the default one. episodes: how many calibrated the thresholds. settings: of the calibration. checkpoint:
    the sha256 of the model's weights.
    """

    thresholds: dict[float, float]
    survival_model: SurvivalModel
    promise: float
    episodes: int
    checkpoint: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def left(self, open_loop_steps: int, spread: float, promise: float | None = None) -> float:
        """For how many more steps, a whole number, the rollout is good with probability `promise` or more.

        0 where nothing can be promised. No promise reaches beyond `survival_model.horizon` steps from the last
        observation, the calibrated range, and a larger spread never promises more.
        """
        return float(self.steps(np.array([open_loop_steps]), np.array([spread]), promise)[0])

    def good(self, open_loop_steps: int, spread: float) -> bool:
        """Whether at least one more step can be promised."""
        return self.left(open_loop_steps, spread) >= 1

    def steps(self, depth: np.ndarray, spread: np.ndarray, promise: float | None = None) -> np.ndarray:
        """`left` of many nodes `[M]`. Raises `UserError` for a promise that was not calibrated."""
        promise = self.promise if promise is None else promise
        if promise not in self.thresholds:
            known = ", ".join(map(str, sorted(self.thresholds)))
            raise UserError(f"a promise of {promise} was not calibrated, only {known}: calibrate again with it")
        return whole_steps(self.survival_model.survival(depth, spread), depth, self.thresholds[promise])

    def to_json(self) -> dict[str, Any]:
        """With the keys of format 3: "sureness" for the thresholds and "lasting" for the survival model."""
        model = self.survival_model
        lasting = {each.name: np.asarray(getattr(model, each.name)).tolist() for each in fields(model)}
        pairs = sorted([promise, threshold] for promise, threshold in self.thresholds.items())
        rest = {name: getattr(self, name) for name in SAVED}
        return {"format": FORMAT, **rest, "sureness": pairs, "lasting": lasting}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises `UserError` for anything that `to_json` did not write."""
        try:
            if content["format"] != FORMAT:
                raise ValueError("written by another worldloom")
            arrays = {name: np.array(content["lasting"][name], float) for name in ("weights", "centre", "scale")}
            rest = {name: content[name] for name in SAVED}
            made = cls(dict(content["sureness"]), SurvivalModel(content["lasting"]["horizon"], **arrays), **rest)
            made.left(1, 1.0)
            return made
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise UserError(f"not a trust meter ({error!r}): calibrate again") from error


def load_or_calibrate(
    path: Path, model: WorldModel, run: Run, *, data: Path | None = None, promise: float = 0.9, **settings: int
) -> Trust:
    """The meter saved in `path`/trust for this checkpoint and these settings, or a new one, which is saved there.

    Raises `UserError` for a run without held-out episodes, such as one that learned online, or with too few.
    """
    file = path / "trust" / f"step-{run.step:08d}.json"
    wanted = {**DEFAULTS, **settings, "data": None if data is None else str(data)}
    try:
        known = Trust.from_json(read_json(file, "there is no trust meter yet"))
        if (known.checkpoint, known.promise, known.settings) == (run.checkpoint_hash, promise, wanted):
            return known
    except UserError:
        pass  # missing or damaged: calibrate again
    held = held_out_episodes(open_sources(run, data))
    made = replace(calibrate(model, held, promise=promise, **settings), settings=wanted)
    try:
        durable.make_folder(file.parent)
        durable.write_json(file, made.to_json())
    except OSError as error:
        print(f"the trust meter is not saved: {file} cannot be written ({error.strerror or error})", flush=True)
    return made


def calibrate(model: WorldModel, held: Sequence[HeldOut], *, promise: float = 0.9, **settings: int) -> Trust:
    """Calibrate on held-out episodes, with `settings` of `collect_samples` over `DEFAULTS`; `seed` also splits them.

    Raises `UserError` for too few or too short episodes, and for a model that decodes no observation.
    """
    settings = {**DEFAULTS, **settings}
    if low := [name for name in DEFAULTS if settings[name] < (name != "seed")]:
        raise UserError(f"{low[0]} is {settings[low[0]]}, but it must be 1 or more")
    long = [episode for episode in held if episode.length > settings["context"]]
    split(len(long), promise)
    learned = learn(collect_samples(model, long, **settings), promise, settings["seed"])
    return replace(learned, checkpoint=weights_hash(model), settings=settings)


def learn(samples: CalibrationSamples, promise: float = 0.9, seed: int = 0) -> Trust:
    """The meter of `samples`: half of their episodes fit the survival model, the others calibrate its thresholds."""
    episodes = np.random.default_rng(seed).permutation(np.unique(samples.episode))
    count = split(len(episodes), promise)
    other, fitted = (samples.of_episodes(part) for part in (episodes[:count], episodes[count:]))
    # Nothing is promised at depths that fewer than `MIN_EPISODES` episodes reach.
    deepest = sorted((fitted.depth + fitted.ahead)[fitted.episode == episode].max() for episode in episodes[count:])
    survival_model = SurvivalModel.fit(fitted, int(deepest[-MIN_EPISODES]))
    survival = survival_model.survival(other.depth, other.spread)
    levels = [level for level in {*LEVELS, promise} if episodes_needed(1 - level) <= count]
    return Trust(
        {level: least_threshold(survival, other, 1 - level) for level in levels}, survival_model, promise, count
    )


def split(count: int, promise: float) -> int:
    """How many of `count` episodes calibrate the thresholds. Raises `UserError` if too few for the promise."""
    check_alpha("1 - promise", 1 - promise)
    need = episodes_needed(1 - promise)
    if count < need + MIN_EPISODES:
        raise UserError(
            f"a promise of {promise} needs {need + MIN_EPISODES} held-out episodes that are longer than the context "
            f"({need} to calibrate it and {MIN_EPISODES} to fit the survival model), but there are {count}: "
            "record more, or promise less"
        )
    return min(max(count // 2, need), count - MIN_EPISODES)


def least_threshold(survival: np.ndarray, samples: CalibrationSamples, alpha: float) -> float:
    """The smallest threshold with at most `alpha` of the promises broken, by both conditions of the module.

    If that leaves a promise at fewer than `MIN_SHARE` of the samples, none is made: so small a selection is noise.
    """
    for share in SHARES:
        checked, broken = samples.check(whole_steps(survival, samples.depth, share))
        checked_share, lost, anywhere = (samples.by_episode(each) for each in (checked, checked & broken, broken))
        kept_among = lost.sum() + checked_share.mean() <= alpha * (checked_share.sum() + checked_share.mean()) + 1e-9
        kept_anywhere = anywhere.sum() + 1 <= alpha * (len(checked_share) + 1) + 1e-9
        if kept_among and kept_anywhere and (checked_share > 0).sum() >= episodes_needed(alpha):
            return float(share if checked_share.mean() >= MIN_SHARE else SHARES[-1])
    return float(SHARES[-1])


def whole_steps(survival: np.ndarray, depth: np.ndarray, threshold: float) -> np.ndarray:
    """Steps `[M]` for which `survival` `[M, H]` is at least `threshold`, at most to depth H."""
    return np.minimum((survival >= threshold).sum(1), np.maximum(survival.shape[1] - depth, 0))


@dataclass(frozen=True)
class PromiseCoverage:
    """Coverage of a promise on other episodes. observed: the share of the checked promises that was kept.

    steps, steps_at_observation: mean promised steps of all samples, and of those at an observation. made, checked:
    shares of samples with a promise, and with one that ends within its episode.
    """

    promise: float
    observed: Figure
    steps: float
    steps_at_observation: float
    made: float
    checked: float


def coverage(
    trust: Trust, model: WorldModel, held: Sequence[HeldOut], windows: int = 400, seed: int = 1
) -> list[PromiseCoverage]:
    """Coverage of all promises on other held-out episodes. Raises `UserError` for another model's meter."""
    if weights_hash(model) != trust.checkpoint:
        raise UserError("the trust meter was calibrated for another checkpoint: calibrate again with this model")
    settings = {name: trust.settings[name] for name in ("particles", "horizon", "context")}
    samples = collect_samples(model, held, **settings, windows=windows, seed=seed)
    return [promise_coverage(trust, samples, promise) for promise in sorted(trust.thresholds)]


def promise_coverage(trust: Trust, samples: CalibrationSamples, promise: float) -> PromiseCoverage:
    """`coverage` of one promise on `samples`; the interval is over episodes."""
    steps = trust.steps(samples.depth, samples.spread, promise)
    checked, broken = samples.check(steps)
    good, checked_share, made = (samples.by_episode(each) for each in (checked & ~broken, checked, steps >= 1))
    with np.errstate(invalid="ignore"):  # resamples or episodes may have no promise
        observed = figure(
            lambda w: (w @ good) / (w @ checked_share), np.arange(len(checked_share)), why="no promise could be checked"
        )
    means = samples.by_episode(steps).mean(), steps[samples.depth == 0].mean(), made.mean(), checked_share.mean()
    return PromiseCoverage(promise, observed, *map(float, means))


def logistic(inputs: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Ridge regression by Newton's method: `[F]`, of which the last `RISING` are not below 0."""
    found, active = np.zeros(INPUTS), np.ones(INPUTS, bool)
    while True:
        x, solution = inputs[:, active], np.zeros(active.sum())
        for _ in range(30):
            chance = sigmoid(x @ solution)
            slope = x.T @ (weight * (chance - label)) + solution
            bend = (x * (weight * chance * (1 - chance))[:, None]).T @ x + np.eye(len(solution))
            change = np.linalg.solve(bend, slope)
            solution = solution - change / max(1, np.abs(change).max())  # bound the step where all labels are equal
        found[:], found[active] = 0, solution
        falling = (found < 0) & (np.arange(INPUTS) >= INPUTS - RISING)
        if not falling.any():
            return found
        active &= ~falling


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def logarithm(spread: np.ndarray) -> np.ndarray:
    """Log of a spread; one that is not finite counts as large."""
    return np.log(np.nan_to_num(spread, nan=1e9, posinf=1e9) + 1e-9)
