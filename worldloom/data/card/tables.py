"""A data card as tables of words, which the terminal and the page then draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worldloom.data.card.card import ActionFigures, DataCard, KeyFigures

MOST_DIMENSIONS = 16  # a longer vector is summed up in one line; `--json` has every dimension
MOST_LINES = 30
FIRST_FACTS = ("format", "license", "origin", "robot", "env", "synthetic", "checkpoint")
# Said elsewhere on the card, or of no use to a reader.
UNTOLD = ("robot_type", "fps", "splits", "codebase_version", "not_represented")


@dataclass(frozen=True)
class CardTable:
    """`header` is empty for a list of facts. `remark` is a line under the table."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    remark: str = ""


def card_tables(card: DataCard) -> list[CardTable]:
    """Every part of the card that has something to say, in reading order."""
    tables = [
        CardTable("data", (), _facts(card)),
        CardTable(
            "observations", ("key", "what", "range", "mean", "std", "held"), _observations(card.keys), _looked_at(card)
        ),
        _action_table(card.action),
        _task_table(card.tasks),
        CardTable("duplicates", ("episodes", "how alike"), _cut(_duplicates(card.duplicates))),
        CardTable("broken", ("episode", "problem"), _cut([(str(b["episode"]), b["problem"]) for b in card.broken])),
        CardTable("worth a second look", (), [("!", note) for note in card.notes]),
    ]
    return [table for table in tables if table.rows]


def _facts(card: DataCard) -> list[tuple[str, ...]]:
    about = {k: card.about.get(k) for k in FIRST_FACTS} | card.about
    known = {k: v for k, v in about.items() if k not in UNTOLD and v not in (None, "", [], {})}
    known["license"] = known.get("license", "not stated")
    broken = f", {len(card.broken)} broken" if card.broken else ""
    lengths, ends = card.lengths, card.ends
    facts: list[tuple[str, ...]] = [
        ("path", card.path),
        *((k.replace("_", " "), _words(v)) for k, v in known.items()),
        ("episodes", f"{card.episodes}{broken}"),
        ("rows", f"{card.rows:,} at {card.fps:g} per second: {duration(card.hours)}"),
        ("on disk", size(card.bytes)),
        (
            "rows per episode",
            f"{lengths['min']} to {lengths['max']}, median {number(lengths['median'])}, mean {number(lengths['mean'])}",
        ),
        ("ends", f"{ends['terminated']} terminated, {ends['truncated']} truncated, {ends['neither']} just stop"),
    ]
    if card.reward:
        reward, total = card.reward, card.reward["return"]
        spread = f"{number(reward['min'])} to {number(reward['max'])}, mean {number(reward['mean'])}"
        facts.append(("reward", f"{spread}, {reward['nonzero']:.0%} of the rows not 0"))
        facts.append(
            ("return", f"{number(total['min'])} to {number(total['max'])}, mean {number(total['mean'])} per episode")
        )
    for name, signal in card.signals.items():
        spread = f"{number(signal['min'])} to {number(signal['max'])}, mean {number(signal['mean'])}"
        facts.append((f"signal {name}", f"{spread}, in {signal['episodes']} episodes not 0 at some row"))
    return facts


def _observations(keys: dict[str, KeyFigures]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for key, figures in keys.items():
        what = f"{figures.kind} {figures.dtype} {'x'.join(map(str, figures.shape))}"
        if figures.kind == "image" or len(figures.low) > MOST_DIMENSIONS:
            rows.append((key, what, *_spread(figures, range(len(figures.low))), f"{figures.held:.1%}"))
            continue
        for i in range(len(figures.low)):
            name = figures.names[i] if i < len(figures.names) else str(i)
            head = (f"{key}.{name}", what, *_spread(figures, [i]), f"{figures.held:.1%}")
            rows.append(head if i == 0 else (head[0], "", *head[2:5], ""))
    return rows


def _looked_at(card: DataCard) -> str:
    if card.looked_at is None:
        return ""
    height, width = card.looked_at
    return f"figures of pictures are those of {height} x {width} pixels (--image-size 0 takes their own size)"


def _spread(figures: KeyFigures, dimensions: Sequence[int]) -> tuple[str, str, str]:
    low, high = min(figures.low[i] for i in dimensions), max(figures.high[i] for i in dimensions)
    mean = sum(figures.mean[i] for i in dimensions) / len(dimensions)
    std = sum(figures.std[i] for i in dimensions) / len(dimensions)
    return f"{number(low)} to {number(high)}", number(mean), number(std)


def _action_table(action: ActionFigures) -> CardTable:
    if action.kind == "discrete":
        counts = action.counts[0]
        total = max(sum(counts), 1)
        names = action.names or [str(i) for i in range(action.size)]
        shares = [(name, f"{count:,}", f"{count / total:.1%}") for name, count in zip(names, counts, strict=True)]
        remark = (
            f"entropy {action.entropy[0]:.2f} bits ({action.evenness[0]:.0%} of an even use), "
            f"{action.coverage[0]:.0%} of the choices used, {action.held:.0%} equal the one before"
        )
        return CardTable(f"action: one of {action.size}", ("choice", "count", "share"), _cut(shares), remark)
    header = ("dimension", "declared" if action.declared else "range", "seen", "mean", "std", "entropy", "coverage")
    rows = [_dimension(action, i) for i in range(action.size)]
    remark = f"{action.held:.1%} equal the action before, {action.zero:.1%} are all zero"
    if not action.declared:
        remark += "; no range is declared, so entropy and coverage are of the range seen"
    return CardTable(f"action: continuous, {action.size} dimensions", header, _cut(rows), remark)


def _dimension(action: ActionFigures, i: int) -> tuple[str, ...]:
    return (
        action.names[i] if i < len(action.names) else str(i),
        f"{number(action.low[i])} to {number(action.high[i])}" if action.declared else "-",
        f"{number(action.seen_low[i])} to {number(action.seen_high[i])}",
        number(action.mean[i]),
        number(action.std[i]),
        f"{action.entropy[i]:.2f} bits ({action.evenness[i]:.0%})",
        f"{action.coverage[i]:.0%}",
    )


def _task_table(tasks: list[dict[str, Any]]) -> CardTable:
    if [t["task"] for t in tasks] == [""]:
        return CardTable("tasks", (), [])
    rows = [(str(t["task"]) or "(none)", str(t["episodes"]), f"{t['rows']:,}") for t in tasks]
    return CardTable("tasks", ("task", "episodes", "rows"), _cut(rows))


def _duplicates(groups: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        episodes = ", ".join(map(str, group["episodes"][:12]))
        more = len(group["episodes"]) - 12
        episodes += f" and {more} more" if more > 0 else ""
        rows.append((episodes, "the same" if group["identical"] else "nearly the same"))
    return rows


def _cut(rows: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    if len(rows) <= MOST_LINES:
        return rows
    return [*rows[:MOST_LINES], (f"and {len(rows) - MOST_LINES} more", *[""] * (len(rows[0]) - 1))]


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_words(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def number(value: float) -> str:
    """Four significant digits at most, without an exponent where that stays short."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def size(count: int) -> str:
    """Bytes in the unit that keeps them short."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"


def duration(hours: float) -> str:
    """Hours, or minutes or seconds when they are few."""
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"
