"""The card: every figure with its interval, the baselines beside it, and where all of it comes from."""

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from worldloom import __version__
from worldloom.data.durable import write_json
from worldloom.evaluation.cost import hardware
from worldloom.evaluation.measure import Measured
from worldloom.evaluation.rollout import RolloutSettings
from worldloom.evaluation.windows import HeldOut
from worldloom.evaluation.wording import Table
from worldloom.runs import checkpoint
from worldloom.runs.run import Run, damaged, read_json
from worldloom.runs.sources import Source
from worldloom.stats.bootstrap import RESAMPLES

FEW_EPISODES = 10


@dataclass(frozen=True)
class Card:
    """What `card.json` holds."""

    measured: Measured
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": table_to_json(self.measured.metrics),
            "baselines": {name: table_to_json(table) for name, table in self.measured.baselines.items()},
            "provenance": self.provenance,
        }

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())


def table_to_json(table: Table) -> dict[str, dict[str, Any]]:
    return {metric: {key: f.to_json() for key, f in figures.items()} for metric, figures in table.items()}


def provenance(
    run: Run,
    sources: Sequence[Source],
    held: Sequence[HeldOut],
    settings: RolloutSettings,
    num_windows: int,
    notes: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """Everything needed to make the card again, and to know what it was measured on."""
    return {
        "run": str(run.path),
        "family": run.family,
        "config": run.config,
        "checkpoint": {"step": run.step, "sha256": run.checkpoint_hash},
        "datasets": [
            {
                "path": str(source.dataset.path),
                "fingerprint": source.dataset.fingerprint,
                "train_episodes": len(source.train),
                "held_out_episodes": source.held_out,
                "skipped": [f"episode {index}: {problem}" for index, problem in source.dataset.skipped],
                "license": source.dataset.about.get("license"),
            }
            for source in sources
        ],
        "episodes_judged": [h.name for h in held],
        "rows_judged": sum(h.length for h in held),
        "fps": run.spec.fps,
        "context": settings.context,
        "horizons": list(settings.horizons),
        "windows": num_windows,
        "samples": settings.samples,
        "seed": settings.seed,
        "interval": f"95 % cluster bootstrap over held-out episodes, expanded percentiles, {RESAMPLES} resamples",
        "notes": list(notes),
        "command": command(),
        "device": settings.device,
        "hardware": hardware(settings.device),
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "training": training_settings(run),
        "versions": {"worldloom": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def command() -> str:
    """The command as typed, without the folder of the executable."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def training_settings(run: Run) -> dict[str, Any]:
    """The training's own settings and machine, as `run.json` keeps them."""
    if not (run.path / "run.json").exists():
        return {"seconds": run.train_seconds}
    record = checkpoint.RunRecord.load(run.path)
    return {"seconds": run.train_seconds, "settings": record.settings, "machine": record.machine}


def useful_for_less(run: Path, checkpoint_hash: str, horizon: int) -> list[str]:
    """The keys, with their steps, that the run's own card found useful for fewer than `horizon` steps.

    None without a card, or with that of another checkpoint. Raises `UserError` for a damaged one.
    """
    path = run / "card.json"
    if not path.exists():
        return []
    try:
        card = read_json(path, f"{path} is gone")
        if card["provenance"]["checkpoint"]["sha256"] != checkpoint_hash:
            return []
        measured = {key: figure["value"] for key, figure in card["metrics"].get("useful_horizon", {}).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
    return [f"{key!r} {steps:.0f}" for key, steps in measured.items() if steps is not None and steps < horizon]
