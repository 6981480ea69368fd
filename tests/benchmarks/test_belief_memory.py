"""Large beliefs that share a cache: planning, play and tracking add what is new and no copies of what is shared."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux")
@pytest.mark.parametrize(
    ("work", "most"),
    [
        (("planning",), 300),  # 5 GB if each of 512 candidates kept a cache for 5 steps
        (("track",), 500),  # 2 GB if each of 16 x 64 rows kept one
        (("tree", "--nodes", "1000"), 100),  # 2 GB if each node kept one; the benchmark has 10,000
    ],
)
def test_what_beliefs_add_to_memory(work: tuple[str, ...], most: int) -> None:
    command = [sys.executable, "-m", "benchmarks.belief_memory", "--only", *work]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < most
