"""How long Python takes to start, import and end: whole processes, one thread, warm page cache, medians.

    python benchmarks/startup.py [--json]

`import worldloom` loads its names on first use; `from worldloom import *` loads every public one, torch included.
"""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from report import Row, print_rows

RUNS = 9


def commands() -> dict[str, list[str]]:
    script = shutil.which("worldloom", path=str(Path(sys.executable).parent)) or shutil.which("worldloom")
    if script is None:
        raise SystemExit("startup.py: the command `worldloom` is not installed here: type pip install -e .")
    imports = ("import torch", "import worldloom", "from worldloom import *")
    return {"worldloom --help": [script, "--help"], **{line: [sys.executable, "-c", line] for line in imports}}


def run_once(command: list[str]) -> tuple[float, float]:
    """Wall and CPU milliseconds of one process from start to end."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * wall, 1000 * cpu


def main() -> None:
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands()}
    for i in range(RUNS + 1):  # the first round fills the page cache; rounds, so that a busy machine slows all alike
        for name, command in commands().items():
            figures = run_once(command)
            if i:
                runs[name].append(figures)
    rows = []
    for column, unit in enumerate(("wall ms", "CPU-ms")):
        values = {name: median(figures[column] for figures in runs[name]) for name in runs}
        values["from worldloom import *, over import torch"] = (
            values["from worldloom import *"] - values["import torch"]
        )
        for name, value in values.items():
            rows.append(Row(name, value, unit, 1, "-", "torch" if name == "import torch" else "worldloom"))
    print_rows(rows)


if __name__ == "__main__":
    main()
