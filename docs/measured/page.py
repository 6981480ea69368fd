"""The parts of docs/results.md: numbers as text, tables, and a section for each results file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, Any]  # the content of one file of results/
WIDTH = "60%"  # of a picture on the page


@dataclass(frozen=True)
class Table:
    """Rows of cells, ready to print: every cell is text, and every row as long as `columns`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __str__(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        wrong = [row for row in lines if len(row) != len(self.columns)]
        assert not wrong, f"{wrong[0]} has another length than {self.columns}"
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)
        return f"{self.caption}\n\n{table}" if self.caption else table


@dataclass(frozen=True)
class Section:
    """What one results file shows: a sentence, tables, and remarks that need numbers of the file."""

    title: str
    about: str
    tables: Sequence[Table]
    remarks: Sequence[str] = ()
    picture: str = ""


def render(section: Section, result: Result, file: str) -> str:
    """The section as markdown, with how it was made below it."""
    parts = [f"### {section.title}", section.about, *map(str, section.tables)]
    if section.remarks:
        parts.append("\n".join(f"* {remark}" for remark in section.remarks))
    if section.picture:
        parts.append(f'<img src="../results/{section.picture}" alt="{section.title}" width="{WIDTH}">')
    return "\n\n".join([*parts, made(result, file)])


def made(result: Result, file: str) -> str:
    """The commands of a result, then its hardware, seed, time, date, file and notes."""
    facts = {
        "Hardware": result.get("hardware") or result["provenance"]["hardware"],
        "Seed": seeds(result),
        "Time": time(result),
        "Date": str(result.get("date") or result.get("provenance", {}).get("date", ""))[:10],
        "File": f"[`results/{file}`](../results/{file})",
    }
    told = ". ".join(f"{name}: {fact}" for name, fact in facts.items() if fact)
    notes = result.get("notes") or result.get("note")
    noted = f"\n\nNotes: {notes.removesuffix('.')}." if notes else ""
    return "```bash\n" + "\n".join(commands(result)) + f"\n```\n\n{told}.{noted}"


def commands(result: Result) -> list[str]:
    """Every command that a result names, in the order in which they are typed."""
    sources = [result.get("demo", {}), {"command": result.get("training_command", [])}, result]
    named = [source.get("command", []) for source in [*sources, result.get("provenance", {})]]
    named += [result.get("commands", []), result.get("learning", [])]
    return [command for names in named for command in ([names] if isinstance(names, str) else names)]


def seeds(result: Result) -> str:
    found = result.get("seed", result.get("seeds", result.get("provenance", {}).get("seed", "")))
    if isinstance(found, Mapping):
        return "; ".join(f"{name} {value}" for name, value in found.items())
    if "seeds" in result and isinstance(found, int):
        return span(range(found))
    return str(found)


def time(result: Result) -> str:
    """How long a result took, as far as its file says so."""
    minutes = result.get("minutes", "")
    if isinstance(minutes, Mapping):
        minutes = ", ".join(f"{name} {value:g}" for name, value in minutes.items())
    times = {"min": minutes, "CPU-min": result.get("cpu_minutes", ""), "s": result.get("seconds", "")}
    return ", ".join(f"{value} {unit}" for unit, value in times.items() if value != "")


def number(value: float | None, digits: int = 0) -> str:
    """`1,234.5`; a number that is missing is a dash, and there is no minus before a zero."""
    return "-" if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"


def measured(value: float | None) -> str:
    """A benchmark's number: whole from a hundred on, three digits below."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def estimate(score: Mapping[str, Any], digits: int = 0) -> str:
    """`754 [526, 1002]`: an estimate and its interval, or why there is none."""
    value = score["value"] if "value" in score else score["mean"]
    if value is None:
        return score.get("why") or "-"
    if score.get("low") is None:
        return number(value, digits)
    # No separators of thousands, which would read like one more bound.
    low, high = (number(score[end], digits).replace(",", "") for end in ("low", "high"))
    return f"{number(value, digits)} [{low}, {high}]"


def spread(pair: Sequence[float], digits: int = 0) -> str:
    """`839 ± 43`: a published mean and its standard deviation."""
    return f"{number(pair[0], digits)} ± {number(pair[1], digits)}"


def percent(share: float, digits: int = 0) -> str:
    return f"{number(100 * share, digits)} %"


def span(values: Iterable[float], digits: int = 0) -> str:
    """`1 to 3`: the least and the largest."""
    ordered = sorted(values)
    return f"{number(ordered[0], digits)} to {number(ordered[-1], digits)}"


def yes(value: bool) -> str:
    return "yes" if value else "no"


def compare(rows: Iterable[Mapping[str, Any]], caption: str = "") -> Table:
    """A benchmark's rows side by side: a line for each thing measured, a column for each source and dtype."""
    found = [row for row in rows if row["value"] is not None]
    columns = list(dict.fromkeys(column(row) for row in found))
    values = {(row["name"], row["unit"], column(row)): measured(row["value"]) for row in found}
    cells = [
        (name, unit or "-", *(values.get((name, unit, column), "-") for column in columns))
        for name, unit in dict.fromkeys((row["name"], row["unit"]) for row in found)
    ]
    return Table(("what", "unit", *columns), cells, caption)


def column(row: Mapping[str, Any]) -> str:
    """Who was measured, and in which dtype; the versions are in the file."""
    source = row["source"].split(",")[0] + (" in autocast" if "in autocast" in row["source"] else "")
    dtype = row["dtype"].replace("float", "fp")
    return source if dtype in ("-", "uint8") else f"{source}, {dtype}"
