"""`worldloom imagine RUN`: let a trained model dream from a real moment, as a video or as a synthetic dataset.

T rows, N dreams, H open-loop steps, A action size.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import tyro

from worldloom.data.episode import Episode
from worldloom.data.lerobot.info import read_info
from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec, KeySpec
from worldloom.errors import UserError
from worldloom.evaluation.actions import random_actions, read_actions
from worldloom.evaluation.evaluate import check_counts, say
from worldloom.evaluation.filmstrip import as_frames
from worldloom.evaluation.windows import Source, open_sources
from worldloom.model import State, WorldModel
from worldloom.training import checkpoint
from worldloom.training.precision import choose_device

if TYPE_CHECKING:
    from worldloom.training.checkpoint import Run

RANDOM_STEPS = 50
END = 0.5


@dataclass(frozen=True)
class Moment:
    """Where a dream begins: the last real row that is seen, and the real rows around it `[1, T]`."""

    source: Source
    episode: int
    frame: int
    seen: Segment
    ahead: Segment | None

    @property
    def recorded_actions(self) -> np.ndarray:
        """The actions taken from the last seen row on `[H, A]`."""
        here = self.seen.action[0, -1:].numpy()
        if self.ahead is None:
            return here[:0]
        return np.concatenate([here, self.ahead.action[0, :-1].numpy()])


@dataclass(frozen=True)
class Dreams:
    """What was imagined: beliefs while watching `[1, C]` and with eyes closed `[N, H]`; actions `[N, H, A]`."""

    watched: State
    states: State
    actions: np.ndarray


def imagine(
    run: tyro.conf.Positional[Path],
    start: Annotated[str, tyro.conf.arg(name="from", metavar="EPISODE:FRAME")],
    out: Path,
    actions: str = "recorded",
    steps: int | None = None,
    context: int = 8,
    samples: int = 1,
    data: Path | None = None,
    step: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Dream from one moment of a dataset: a video of real beside imagined, or a synthetic LeRobot dataset.

    Args:
        run: folder of a `worldloom train` run.
        start: the last real row the model sees, such as 12:40.
        out: a video (dream.mp4) or a folder, which becomes a dataset marked as synthetic.
        actions: recorded, random, or a .npy, .csv, .json or .jsonl file of actions in the data's own units.
        steps: how many steps to dream; by default as many as there are actions, 50 for random ones.
        context: how many real rows the model watches, the last one included.
        samples: how many dreams of the same moment.
        data: where the dataset is now, when it moved; or another one of the same kind.
        step: the checkpoint of this step instead of the last one.
        seed: of the dreams and of random actions.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads; by default what torch chooses.
    """
    episode, frame = parse_start(start)
    check_counts({"steps": steps, "context": context, "samples": samples, "threads": threads}, {"seed": seed})
    if threads is not None:
        torch.set_num_threads(threads)
    device = str(choose_device(device))
    model, found = checkpoint.load(run, device, step)
    source = open_sources(found, data)[0]
    moment = find_moment(source, episode, frame, context)
    chosen = choose_actions(actions, steps, moment, model, samples, seed)
    dreams = dream_from(model, moment, chosen, seed, device)
    origin = describe(found, moment, actions, chosen.shape[1], seed)
    try:
        if out.suffix.lower() == ".mp4":
            from worldloom.evaluation.dream_video import write_video

            write_video(model, moment, dreams, out, actions == "recorded")
        else:
            write_dataset(model, moment, dreams, out, origin)
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot be written ({error.strerror or error}). Make room or choose another place."
        ) from error
    trained = " (an episode it was trained on)" if episode in source.train else ""
    say(f"{out}: {samples} x {chosen.shape[1]} steps imagined from episode {episode}, frame {frame}{trained}")


def parse_start(start: str, flag: str = "--from") -> tuple[int, int]:
    """`12:40` is episode 12, frame 40; `flag` is what errors call it."""
    match = re.fullmatch(r"\s*(\d{1,12})\s*:\s*(\d{1,12})\s*", start)
    if match is None:
        raise UserError(f"{flag} {start[:40]}: want EPISODE:FRAME, two whole numbers such as 12:40.")
    return int(match[1]), int(match[2])


def find_moment(source: Source, episode: int, frame: int, context: int, flag: str = "--from") -> Moment:
    """The rows around a moment. Raises `UserError` with the range when there is no such row."""
    dataset = source.dataset
    if episode >= len(dataset):
        raise UserError(f"{flag} {episode}:{frame}: {dataset.path} has episodes 0 to {len(dataset) - 1}.")
    length = int(dataset.lengths[episode])
    if frame >= length:
        raise UserError(f"{flag} {episode}:{frame}: episode {episode} of {dataset.path} has frames 0 to {length - 1}.")
    first = max(0, frame - context + 1)
    ahead = dataset.segment(episode, frame + 1) if frame + 1 < length else None
    return Moment(source, episode, frame, dataset.segment(episode, first, frame + 1 - first), ahead)


def choose_actions(
    kind: str, steps: int | None, moment: Moment, model: WorldModel, samples: int, seed: int
) -> np.ndarray:
    """The actions of every dream `[N, H, A]`, scaled as models see them."""
    spec, where = model.spec.action, f"--from {moment.episode}:{moment.frame}"
    if kind == "random":
        rng = np.random.default_rng(seed)
        return np.stack([random_actions(spec, steps or RANDOM_STEPS, rng) for _ in range(samples)])
    if kind == "recorded":
        known, whence = moment.recorded_actions, f"{where}: the recording has"
        fix = "choose an earlier frame, fewer --steps or --actions random"
    else:
        known, whence = read_actions(Path(kind), spec), f"{kind} holds"
        fix = "give fewer --steps or a longer file"
    if steps is None and not len(known):
        raise UserError(f"{whence} no action to follow: {fix}.")
    if steps is not None and steps > len(known):
        raise UserError(f"--steps {steps}: {whence} only {len(known)} actions: {fix}.")
    return np.repeat(known[None, :steps], samples, 0)


def dream_from(model: WorldModel, moment: Moment, actions: np.ndarray, seed: int, device: str) -> Dreams:
    """Watch the real rows, then close the eyes."""
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        seen = moment.seen.to(device)
        # The last row's action may be zeroed at an episode's end; `track` does not use it.
        watched = model.track(seen.obs, seen.action)
        belief = watched[:, -1].repeat(len(actions))
        return Dreams(watched, model.imagine(belief, torch.from_numpy(actions).to(device)), actions)


def describe(run: "Run", moment: Moment, actions: str, steps: int, seed: int) -> dict[str, Any]:
    """The facts that a synthetic dataset must carry."""
    dataset = moment.source.dataset
    return {
        "synthetic": True,
        "license": dataset.about.get("license", "unknown"),
        "origin": f"imagined by worldloom ({run.family}, step {run.step}) from {Path(dataset.path).name}",
        "checkpoint": run.checkpoint_hash,
        "imagined_from": [
            {
                "dataset_fingerprint": dataset.fingerprint,
                "episode": moment.episode,
                "frame": moment.frame,
                "context": moment.seen.shape[1],
                "steps": steps,
                "actions": actions if actions in ("recorded", "random") else Path(actions).name,
                "seed": seed,
            }
        ],
    }


def write_dataset(model: WorldModel, moment: Moment, dreams: Dreams, out: Path, origin: dict[str, Any]) -> None:
    """One episode per dream. Row 0 is how the model sees the last real row; nothing in the dataset is a recording.

    Dreams that `out` holds already are not written twice, so that a command that was killed can be typed again.
    """
    from worldloom.data.lerobot.fold import recover
    from worldloom.data.lerobot.writer import LeRobotWriter

    recover(out)
    _refuse_real(out, origin)
    spec = dream_spec(model)
    with torch.inference_mode(), LeRobotWriter(out, spec, about=origin) as writer:
        for number in range(writer.num_episodes, len(dreams.actions)):
            writer.add(dream_episode(model, moment, dreams, number, spec))


def _refuse_real(out: Path, origin: dict[str, Any]) -> None:
    """A dream must never be appended to a recording, nor to the dreams of another moment."""
    if not (out / "meta" / "info.json").exists():
        return
    about = read_info(out).get("worldloom", {}).get("about", {})
    if about != origin:
        what = "dreams of another model, moment or seed" if about.get("synthetic") else "a recorded dataset"
        raise UserError(
            f"--out {out}: already holds {what}; imagined episodes are not mixed in. Choose another folder."
        )


def dream_spec(model: WorldModel) -> DataSpec:
    """What the model can imagine: the keys it decodes, without a model's normalisation."""
    obs = {k: KeySpec(s.kind, s.shape, s.names) for k, s in model.spec.obs.items() if k in model.decodes}
    return replace(model.spec, obs=obs, has_reward="reward" in model.decodes, has_end="terminated" in model.decodes)


def dream_episode(model: WorldModel, moment: Moment, dreams: Dreams, number: int, spec: DataSpec) -> Episode:
    """One dream as an episode in the data's own units, cut where the model believes that it has ended."""
    now, ahead = dreams.watched[0, -1:], dreams.states[number]

    def read(key: str) -> np.ndarray:
        return torch.cat([model.decode(now, key), model.decode(ahead, key)]).float().cpu().numpy()

    end = np.flatnonzero(read("terminated")[1:] > END)[:1] + 1 if spec.has_end else np.empty(0, int)
    rows = int(end[0]) + 1 if len(end) else 1 + dreams.actions.shape[1]
    obs = {k: as_frames(read(k)) if s.kind == "image" else read(k) for k, s in spec.obs.items()}
    own = spec.action.unscale(dreams.actions[number])
    if spec.action.low is not None and spec.action.high is not None:
        own = np.clip(own, np.asarray(spec.action.low, np.float32), np.asarray(spec.action.high, np.float32))
    action = np.concatenate([own, np.zeros_like(own[:1])])[:rows]
    action[-1] = 0
    reward = read("reward") if spec.has_reward else np.zeros(rows, np.float32)
    reward[0] = 0
    last = np.arange(rows) == rows - 1
    tasks = moment.source.dataset.tasks
    task = moment.source.dataset.task(moment.episode) if tasks else ""
    ended = last & bool(len(end))
    return Episode({k: v[:rows] for k, v in obs.items()}, action, reward[:rows], ended, last & ~ended, task)
