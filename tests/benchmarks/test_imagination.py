"""The benchmark of dreams runs, and measures what it says it does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "imagination.py"


def test_every_family_and_world_has_its_row() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout)
    assert {row["unit"] for row in rows} == {"imagined steps/s", "real steps/s"}
    assert all(row["value"] is None or row["value"] > 0 for row in rows)
    for family in ("rssm", "vae_rnn", "tdmpc", "mlp"):
        assert any(row["name"].startswith(family) for row in rows), family


def test_a_step_of_a_dream_goes_on_from_the_one_before(benchmark: Callable[[str], ModuleType]) -> None:
    imagination = benchmark("imagination")
    model = imagination.make_model(imagination.VECTORS, "mlp", "debug")
    seen: list[torch.Tensor] = []
    predict = model.predict
    model.predict = lambda belief, action: seen.append(belief.features.clone()) or predict(belief, action)
    step = imagination.dreamer(model, 3, True)
    step()
    step()
    assert seen[0].shape[0] == 3
    assert not torch.equal(seen[0], seen[1])
