"""Imagined rollouts as a LeRobot dataset that is marked as synthetic."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldloom.data.episode import Episode
from worldloom.data.lerobot.info import read_info
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.evaluation.open_loop import Dreams
from worldloom.model import WorldModel
from worldloom.render.filmstrip import as_frames
from worldloom.runs.run import Run
from worldloom.runs.start_row import StartRow

LIKELY = 0.5  # from this probability on an imagined flag, such as the end, counts as true


def describe(run: Run, start: StartRow, actions: str, steps: int, seed: int) -> dict[str, Any]:
    """The facts that a synthetic dataset must carry."""
    dataset = start.source.dataset
    return {
        "synthetic": True,
        "license": dataset.about.get("license", "unknown"),
        "origin": f"imagined by worldloom ({run.family}, step {run.step}) from {Path(dataset.path).name}",
        "checkpoint": run.checkpoint_hash,
        "imagined_from": [
            {
                "dataset_fingerprint": dataset.fingerprint,
                "episode": start.episode,
                "frame": start.frame,
                "context": start.observed.shape[1],
                "steps": steps,
                "actions": actions if actions in ("recorded", "random") else Path(actions).name,
                "seed": seed,
            }
        ],
    }


def write_dataset(model: WorldModel, start: StartRow, dreams: Dreams, out: Path, origin: dict[str, Any]) -> None:
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
            writer.add(dream_episode(model, start, dreams, number, spec))


def _refuse_real(out: Path, origin: dict[str, Any]) -> None:
    """A dream must never be appended to a recording, nor to the dreams of another start row."""
    if not (out / "meta" / "info.json").exists():
        return
    about = read_info(out).get("worldloom", {}).get("about", {})
    if about != origin:
        what = "dreams of another model, start row or seed" if about.get("synthetic") else "a recorded dataset"
        raise UserError(
            f"--out {out}: already holds {what}; imagined episodes are not mixed in. Choose another folder."
        )


def dream_spec(model: WorldModel) -> DataSpec:
    """What the model can imagine: the keys it decodes, without a model's normalisation."""
    keys = {k: replace(s, mean=None, std=None) for k, s in model.spec.keys.items() if k in model.decodes}
    return replace(model.spec, keys=keys)


def dream_episode(model: WorldModel, start: StartRow, dreams: Dreams, number: int, spec: DataSpec) -> Episode:
    """One dream as an episode in the data's own units, cut where the model believes that it has ended."""
    now, ahead = dreams.tracked[0, -1:], dreams.states[number]

    def read(key: str) -> np.ndarray:
        return torch.cat([model.decode(now, key), model.decode(ahead, key)]).float().cpu().numpy()

    end = np.flatnonzero(read("terminated")[1:] > LIKELY)[:1] + 1 if spec.has_end else np.empty(0, int)
    rows = int(end[0]) + 1 if len(end) else 1 + dreams.actions.shape[1]
    obs = {k: as_frames(read(k)) if s.kind == "image" else read(k) for k, s in spec.arrays.items()}
    own = spec.action.unscale(dreams.actions[number])
    if spec.action.low is not None and spec.action.high is not None:
        own = np.clip(own, np.asarray(spec.action.low, np.float32), np.asarray(spec.action.high, np.float32))
    action = np.concatenate([own, np.zeros_like(own[:1])])[:rows]
    action[-1] = 0
    reward = read("reward") if spec.has_reward else np.zeros(rows, np.float32)
    reward[0] = 0
    further = {k: s for k, s in spec.targets.items() if not s.shape and k not in ("reward", "terminated")}
    extra = {k: (read(k) > LIKELY if s.kind == "flag" else read(k))[:rows] for k, s in further.items()}
    last = np.arange(rows) == rows - 1
    tasks = start.source.dataset.tasks
    task = start.source.dataset.task(start.episode) if tasks else ""
    terminated = last & bool(len(end))
    obs = {k: v[:rows] for k, v in obs.items()}
    return Episode(obs, action, reward[:rows], terminated, last & ~terminated, task, extra)
