"""How long a checkpoint takes to save and load, and how large it is, beside torch.save: one thread, wall time, medians.

    python benchmarks/checkpoint.py [--json]

The model is an RSSM of size "small" for 64 x 64 images, with AdamW's two moments of every weight. Both sides have the
data on the disk (fsync) when they return; worldloom also replaces atomically and checks a SHA-256 when it loads.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch
from report import Row, print_rows
from torch import Tensor

from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.models import build
from worldloom.runs.checkpoint import Checkpoint

RUNS, SIZE = 9, "small"
SPEC = DataSpec(
    {"image": KeySpec("image", (3, 64, 64)), **signal_keys(reward=True, terminated=True)},
    ActionSpec("continuous", 6),
    20.0,
)


def moment_of_training() -> Checkpoint:
    """What a training of the model would save."""
    model = build("rssm", SPEC, SIZE)
    moments: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        moments |= {f"optimizer/{name}/{moment}": torch.rand_like(parameter) for moment in ("exp_avg", "exp_avg_sq")}
    return Checkpoint(1, "rssm", asdict(model.config), model.state_dict(), moments, progress={}, spec=SPEC.to_json())


def torch_save(checkpoint: Checkpoint, path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"model": dict(checkpoint.model), "trainer": dict(checkpoint.trainer)}, file)
        file.flush()
        os.fsync(file.fileno())


def milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    torch.set_num_threads(1)
    checkpoint = moment_of_training()
    parameters = sum(v.numel() for v in checkpoint.model.values())
    theirs = f"torch.save {torch.__version__}"
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run, file = Path(folder) / "run", Path(folder) / "checkpoint.pt"
        actions = {
            ("save", "worldloom"): lambda: checkpoint.save(run),
            ("save", theirs): lambda: torch_save(checkpoint, file),
            ("load", "worldloom"): lambda: Checkpoint.read(run),
            ("load", theirs): lambda: torch.load(file, weights_only=True),
        }
        for _ in range(RUNS):  # in turns, so that a busy disk slows both alike
            for key, action in actions.items():
                times.setdefault(key, []).append(milliseconds(action))
        sizes = {"worldloom": sum(p.stat().st_size for p in run.rglob("*.*")), theirs: file.stat().st_size}
    rows = [Row(f"checkpoint {what}", median(t), "wall ms", 1, "float32", who) for (what, who), t in times.items()]
    rows += [Row("checkpoint size", size / 1e6, "MB", 1, "float32", who) for who, size in sizes.items()]
    rows.append(Row(f"parameters of rssm {SIZE}", parameters, "parameters", 1, "float32", "worldloom"))
    print_rows(rows)


if __name__ == "__main__":
    main()
