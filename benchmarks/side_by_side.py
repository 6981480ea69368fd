"""Two checkouts of worldloom measured in turns on one machine: is the later one slower anywhere?

    python benchmarks/side_by_side.py ../before --json results/side_by_side.json

Each checkout runs its own benchmarks in its own `.venv`, one after the other, `--rounds` times; compared are the best
rounds, because what else a machine does only ever makes a program slower. A ratio above 1 is faster than before.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMANDS: dict[str, list[str]] = {
    "rssm_update": ["--updates", "8"],
    "data_loading": [],
    "imagination": [],
    "planning": ["--decisions", "8", "--work", "tdmpc2", "cem"],
    "startup": [],
    "checkpoint": [],
    "play": ["--seconds", "6"],
}
LESS_IS_BETTER = ("ms", "CPU-ms", "s", "MB", "KB")


@dataclass(frozen=True)
class Figure:
    """One figure of one round; `unit` says whether more of it is better."""

    name: str
    value: float
    unit: str

    @property
    def speed(self) -> float:
        return 1 / self.value if self.unit.split()[-1] in LESS_IS_BETTER else self.value


def measure(checkout: Path, benchmark: str) -> dict[str, Figure]:
    """One round of a benchmark in a checkout, by the names of its rows."""
    python = str((checkout / ".venv/bin/python").absolute())
    with tempfile.TemporaryDirectory() as folder:
        to_file = benchmark == "play"
        words = ["--json", f"{folder}/out.json"] if to_file else ["--json"]
        command = [python, f"benchmarks/{benchmark}.py", *COMMANDS[benchmark], *words]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} in {checkout} failed:\n{done.stderr[-2000:]}")
        text = Path(folder, "out.json").read_text() if to_file else done.stdout
    return {figure.name: figure for figure in figures(json.loads(text))}


def figures(found: Any) -> Iterator[Figure]:
    """Our own rows of a table, or the speeds that the benchmark of play writes."""
    if isinstance(found, dict):
        yield Figure("play: one page", found["one_page"]["frames_per_second"], "frames/s")
        yield Figure("play: key to picture, p95", found["one_page_at_30"]["p95_ms"], "ms")
        yield Figure("play: twenty pages, p95", found["twenty_pages_at_10"]["p95_ms"], "ms")
        return
    for row in found:
        if row["value"] and row["source"] == "worldloom" and "parameters" not in row["name"]:
            yield Figure(f"{row['name']}, {row['dtype']}", row["value"], row["unit"])


def compare(before: Path, after: Path, benchmark: str, rounds: int) -> list[dict[str, Any]]:
    """The best of some rounds of both, taken in turns."""
    results: dict[Path, list[dict[str, Figure]]] = {before: [], after: []}
    for number in range(rounds):
        for checkout in (before, after) if number % 2 == 0 else (after, before):
            results[checkout].append(measure(checkout, benchmark))
            print(f"{benchmark}: round {number + 1} of {checkout.name or checkout}", file=sys.stderr, flush=True)
    rows = []
    for name in results[before][0]:
        if all(name in found for found in results[after]):
            old, new = (max((found[name] for found in results[c]), key=lambda f: f.speed) for c in (before, after))
            ratio = new.speed / old.speed
            rows.append({"name": name, "unit": old.unit, "before": old.value, "after": new.value, "ratio": ratio})
    return rows


def main() -> None:
    from worldloom.evaluation.cost import hardware

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    command = f"python benchmarks/side_by_side.py ../before --rounds {asked.rounds} --only {' '.join(asked.only)}"
    facts: dict[str, Any] = {"command": f"{command} --json results/side_by_side.json", "hardware": hardware("cpu")}
    rows: list[dict[str, Any]] = []
    for name in asked.only:
        found = compare(asked.before.absolute(), ROOT, name, asked.rounds)
        for row in found:
            print(f"{row['ratio']:6.3f}  {row['name']}: {row['before']:,.4g} -> {row['after']:,.4g} {row['unit']}")
        rows += found
        if asked.json:  # after each, as a benchmark of an old checkout may fail after minutes of others
            asked.json.write_text(json.dumps({**facts, "rounds": asked.rounds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
