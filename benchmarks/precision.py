"""Does bf16 learn as well as fp32? The same training in both, the same seeds, the same windows in the same order.

    python benchmarks/precision.py DATA --out results [--steps 500] [--seeds 0 1] [--json]

Trains `rssm nano` for each precision and seed, prints the losses, and writes OUT/precision.json and OUT/precision.svg.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from math import log10
from pathlib import Path
from statistics import mean

from report import Row, print_rows

from worldloom.evaluation.cost import hardware
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training

PRECISIONS = {"fp32": "#d97706", "bf16": "#2563eb"}
WIDTH, HEIGHT, EDGE = 640, 360, 56
SMOOTH = 5  # points of the curve that are averaged, so that two curves can be told apart


def curve(data: Path, precision: str, seed: int, steps: int, folder: Path) -> dict:
    """One training's loss by step, its seconds and its held-out loss."""
    out = folder / f"{precision}-{seed}"
    settings = TrainSettings(
        "rssm", (data,), out, steps=steps, length=32, seed=seed, precision=precision, threads=1, log_every=10,
        preview_every=0, checkpoint_every=steps, final_lr=1.0,
    )  # fmt: skip
    started = time.perf_counter()
    run_training(settings)
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [(r["step"], r["loss"]) for r in records if "loss" in r]
    held_out = [r["held_out_loss"] for r in records if "held_out_loss" in r][-1]
    facts = {"precision": precision, "seed": seed, "seconds": time.perf_counter() - started, "held_out_loss": held_out}
    return facts | {"steps": [step for step, _ in losses], "loss": [loss for _, loss in losses]}


def rows(curves: list[dict]) -> list[Row]:
    made = []
    for precision in PRECISIONS:
        mine = [c for c in curves if c["precision"] == precision]
        late = mean(mean(c["loss"][-10:]) for c in mine)
        made += [
            Row("training loss, last 100 updates", late, "nats", 1, precision, "worldloom"),
            Row("held-out loss", mean(c["held_out_loss"] for c in mine), "nats", 1, precision, "worldloom"),
            Row("seconds a training", mean(c["seconds"] for c in mine), "s", 1, precision, "worldloom"),
        ]
    return made


def picture(curves: list[dict]) -> str:
    """The curves as an SVG, logarithmic in the loss."""
    smooth = {id(c): [mean(c["loss"][max(0, i - SMOOTH + 1) : i + 1]) for i in range(len(c["loss"]))] for c in curves}
    values = [log10(v) for c in curves for v in smooth[id(c)]]
    low, high, last = min(values), max(values), max(c["steps"][-1] for c in curves)

    def place(step: float, value: float) -> tuple[float, float]:
        right = EDGE + step / last * (WIDTH - EDGE - 16)
        return right, 16 + (high - value) / (high - low) * (HEIGHT - EDGE - 16)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for tick in (50, 100, 200, 500, 1000, 2000, 5000):
        if low <= log10(tick) <= high:
            _, y = place(0, log10(tick))
            parts.append(f'<path d="M{EDGE} {y:.1f}H{WIDTH - 16}" stroke="#ddd"/>')
            parts.append(f'<text x="{EDGE - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for c in curves:
        places = [place(step, log10(v)) for step, v in zip(c["steps"], smooth[id(c)], strict=True)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dash = "" if c["seed"] == curves[0]["seed"] else ' stroke-dasharray="5 3"'
        parts.append(f'<polyline fill="none" stroke="{PRECISIONS[c["precision"]]}" points="{points}"{dash}/>')
    for i, (name, colour) in enumerate(PRECISIONS.items()):
        parts.append(f'<text x="{WIDTH - 90}" y="{40 + 20 * i}" fill="{colour}">{name}</text>')
    words = f"loss (log scale) over {last} updates; each line is one training"
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">{words}</text></svg>')
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plan = [(precision, seed) for seed in asked.seeds for precision in PRECISIONS]
        curves = [curve(asked.data, *each, asked.steps, Path(folder)) for each in plan]
    command = shlex.join(["python", "benchmarks/precision.py", *sys.argv[1:]])
    facts = {"command": command, "hardware": hardware("cpu"), "threads": 1}
    (asked.out / "precision.json").write_text(json.dumps(facts | {"curves": curves}, indent=1) + "\n")
    (asked.out / "precision.svg").write_text(picture(curves) + "\n")
    print_rows(rows(curves))


if __name__ == "__main__":
    main()
