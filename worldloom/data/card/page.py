"""A data card as one self-contained page: no scripts, no network, readable on a phone, light and dark."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from worldloom.data.card.card import DataCard
from worldloom.data.card.tables import CardTable, card_tables, duration, number, size

STYLE = """
:root{--paper:#fbfaf7;--card:#fff;--ink:#1d2126;--soft:#5c6570;--rule:#e2dfd8;--bar:#2456c7;--warn:#996300;--no:#b3261e;
color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1c2026;--ink:#e8eaed;--soft:#a3acb6;--rule:#313740;
--bar:#7aa5ff;--warn:#e0b04c;--no:#ff8b80}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:20px 16px 64px}
h1{font-size:1.75rem;line-height:1.2;margin:.4em 0 .1em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2em 0 .5em;padding-top:.7em;border-top:1px solid var(--rule)}
h2::first-letter{text-transform:uppercase}
h3{font-size:.9rem;margin:.2em 0 .4em;font-weight:600;overflow-wrap:anywhere}
p{color:var(--soft);margin:.3em 0;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin:1.2em 0}
.tiles div,.plots figure{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:10px 12px}
.plots figure{margin:0}
.tiles span{display:block;color:var(--soft);font-size:.8rem}.tiles b{font-size:1.35rem;overflow-wrap:anywhere}
.tiles .bad b{color:var(--no)}
.notes{list-style:none;padding:0;margin:1em 0}
.notes li{border-left:4px solid var(--warn);background:var(--card);padding:.4em .8em;margin:.4em 0}
.notes li{overflow-wrap:anywhere}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--rule);border-radius:10px}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:left;padding:.35em .8em;border-bottom:1px solid var(--rule);vertical-align:top}
tr:last-child>*{border-bottom:0}thead th{color:var(--soft);font-weight:500;white-space:nowrap}
tbody th{font-weight:600}td{overflow-wrap:anywhere}.figures td{white-space:nowrap}.facts th{width:11em}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr));gap:10px;margin:1em 0}
svg{display:block;width:100%;height:70px}svg rect{fill:var(--bar)}
figcaption{display:flex;justify-content:space-between;color:var(--soft);font-size:.78rem;margin-top:.3em}
img{display:block;width:100%;min-width:640px;max-width:1100px;height:auto}
@media (max-width:560px){.facts th{width:7.5em}th,td{padding:.35em .55em}}
"""
WIDE = ("observations", "action")  # tables of figures scroll sideways instead of breaking numbers


def card_page(card: DataCard, sheet: Image.Image | None) -> str:
    """The whole HTML document."""
    name = Path(card.path).name or card.path
    tables = {table.title: table for table in card_tables(card)}
    notes = tables.pop("worth a second look", None)
    body = [f"<h1>{escape(name)}</h1>", "<p>What this dataset holds, as <code>worldloom inspect</code> read it.</p>"]
    body.append(_tiles(card))
    if notes:
        body.append(f'<ul class="notes">{"".join(f"<li>{escape(row[1])}</li>" for row in notes.rows)}</ul>')
    if sheet:
        picture = f'<img alt="frames of several episodes" src="{_embedded(sheet)}">'
        body.append(f'<h2>Contact sheet</h2><div class="scroll">{picture}</div>')
    for title, table in tables.items():
        plots = _length_plot(card) if title == "data" else _action_plots(card) if title.startswith("action") else ""
        body.append(f"<h2>{escape(title)}</h2>{_table(table)}{plots}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}: data card</title><style>{STYLE}</style></head><body><main>"
        + "".join(body)
        + "</main></body></html>\n"
    )


def _tiles(card: DataCard) -> str:
    tiles = [
        ("episodes", f"{card.episodes:,}", ""),
        ("rows", f"{card.rows:,}", ""),
        ("recorded", duration(card.hours), ""),
        ("rows per second", f"{card.fps:g}", ""),
        ("on disk", size(card.bytes), ""),
        ("broken", f"{len(card.broken)}", "bad" if card.broken else ""),
    ]
    inside = "".join(f'<div class="{kind}"><span>{name}</span><b>{value}</b></div>' for name, value, kind in tiles)
    return f'<div class="tiles">{inside}</div>'


def _table(table: CardTable) -> str:
    header = "".join(f"<th>{escape(word)}</th>" for word in table.header)
    rows = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in table.rows
    )
    kind = "figures" if table.title.startswith(WIDE) else "facts"
    head = f"<thead><tr>{header}</tr></thead>" if header else ""
    remark = f"<p>{escape(table.remark)}</p>" if table.remark else ""
    return f'<div class="scroll"><table class="{kind}">{head}<tbody>{rows}</tbody></table></div>{remark}'


def _length_plot(card: DataCard) -> str:
    histogram = card.lengths["histogram"]
    if len(histogram["counts"]) < 2:
        return ""
    ends = (number(histogram["edges"][0]), number(histogram["edges"][-1]))
    return f'<div class="plots">{_bars("rows per episode", histogram["counts"], ends)}</div>'


def _action_plots(card: DataCard) -> str:
    action = card.action
    if action.kind == "discrete":
        names = action.names or [str(i) for i in range(action.size)]
        return f'<div class="plots">{_bars("use of each choice", action.counts[0], (names[0], names[-1]))}</div>'
    plots = []
    for i, counts in enumerate(action.counts[:24]):
        name = action.names[i] if i < len(action.names) else f"dimension {i}"
        plots.append(_bars(name, counts, (number(action.low[i]), number(action.high[i]))))
    return f'<div class="plots">{"".join(plots)}</div>'


def _bars(title: str, counts: Sequence[int], ends: tuple[str, str]) -> str:
    most = max([1, *counts])
    bars = "".join(
        f'<rect x="{i + 0.06:.2f}" width="0.88" y="{100 - 100 * count / most:.2f}" height="{100 * count / most:.2f}"/>'
        for i, count in enumerate(counts)
    )
    words = f"{title}: {', '.join(map(str, counts))}"
    return (
        f'<figure><h3>{escape(title)}</h3><svg viewBox="0 0 {len(counts)} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(words)}">{bars}</svg>'
        f"<figcaption><span>{escape(ends[0])}</span><span>{escape(ends[1])}</span></figcaption></figure>"
    )


def _embedded(picture: Image.Image) -> str:
    """JPEG, because a sheet of real photographs as PNG would be megabytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
