"""Rows of measurements, printed as an aligned table, or as JSON when `--json` is on the command line.

from report import Row, print_rows
print_rows([Row("loader, windows of 4", 1.4e6, "frames/s", threads=1, dtype="uint8", source="worldloom")])
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Row:
    """One figure. `source` says who was measured: "worldloom", a peer with its version, or "published: where"."""

    name: str
    value: float | None
    unit: str
    threads: int
    dtype: str
    source: str


def print_rows(rows: Sequence[Row], as_json: bool | None = None) -> None:
    """Print `rows`; `as_json` defaults to whether `--json` was typed. A value of None means: not measured here."""
    if "--json" in sys.argv[1:] if as_json is None else as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = [[field.name for field in fields(Row)], *([_cell(v) for v in asdict(row).values()] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        cells = [c.rjust(w) if i == 1 else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        print("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
