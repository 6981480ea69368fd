"""The report's style sheet and frame: one page, no network, narrow and wide, light and dark."""

from html import escape

CSS = """
:root{--paper:#fbfaf7;--card:#fff;--ink:#1d2126;--soft:#5c6570;--rule:#e2dfd8;--model:#2456c7;--linear:#c2570c;
--mean:#7a6f9b;--persistence:#7d8791;--real:#1d2126;--shuffled:#a8326e;--yes:#1c7a45;--partly:#996300;--no:#b3261e;
--open:#68717b;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1c2026;--ink:#e8eaed;--soft:#a3acb6;--rule:#313740;
--model:#7aa5ff;--linear:#f0955a;--mean:#b3a6dd;--persistence:#98a2ad;--real:#e8eaed;--shuffled:#ec7fb4;--yes:#5fc98c;
--partly:#e0b04c;--no:#ff8b80;--open:#98a2ad}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:20px 16px 64px}
header p{color:var(--soft);margin:.2em 0;overflow-wrap:anywhere}
h1{font-size:1.75rem;line-height:1.2;margin:.4em 0 .1em}
h2{font-size:1.25rem;margin:2.2em 0 .5em;padding-top:.7em;border-top:1px solid var(--rule)}
h3{font-size:.95rem;margin:0 0 .3em;font-weight:600}
.note,.legend,figcaption{color:var(--soft);font-size:.86rem;margin:.3em 0}
ul.verdict{list-style:none;padding:0;margin:1em 0}
ul.verdict li{display:grid;grid-template-columns:7.2em 1fr;gap:.8em;padding:.55em 0;border-bottom:1px solid var(--rule)}
ul.verdict b{font-size:.82rem;line-height:1.8}
.yes>b{color:var(--yes)}.partly>b{color:var(--partly)}.no>b{color:var(--no)}.open>b{color:var(--open)}
@media (max-width:560px){ul.verdict li{grid-template-columns:1fr;gap:0}}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:1.2em 0}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:10px 12px}
.tile span{display:block;color:var(--soft);font-size:.8rem;line-height:1.35}.tile b{font-size:1.45rem;line-height:1.3}
.tile small{display:block;color:var(--soft);font-size:.78rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px}
figure.plot svg{display:block;width:100%;max-width:520px;height:auto;margin:0 auto}
.legend span{display:inline-block;margin:0 .9em .1em 0;white-space:nowrap}
.key{display:inline-block;width:1.4em;height:0;border-top:3px solid;vertical-align:middle;margin-right:.4em}
.clip img{display:block;width:100%;height:auto;border-radius:6px;image-rendering:pixelated}
.columns{display:grid;grid-template-columns:repeat(3,1fr);gap:4px;font-size:.8rem;color:var(--soft);margin-bottom:4px}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
.strip{margin-top:14px}
.strip img{display:block;height:auto;border-radius:6px;max-width:100%;min-width:720px}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg .axis{font-size:11.5px;fill:var(--ink)}
line.rule{stroke:var(--rule);stroke-width:1}line.zero{stroke:var(--soft);stroke-width:1.2}
line.bar{stroke:var(--model);stroke-width:1.3;opacity:.45}
line.mark{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.band{stroke:none;opacity:.16}.dot{stroke:none;opacity:.85}
path.model{stroke:var(--model)}path.linear{stroke:var(--linear)}path.mean{stroke:var(--mean);stroke-dasharray:5 3}
path.persistence{stroke:var(--persistence);stroke-dasharray:2 3}path.real{stroke:var(--real)}
path.shuffled{stroke:var(--shuffled);stroke-dasharray:6 3}
.band.model,.dot.model{fill:var(--model)}.band.linear,.dot.linear{fill:var(--linear)}.band.mean{fill:var(--mean)}
.band.real,.dot.real{fill:var(--real)}.band.shuffled,.dot.shuffled{fill:var(--shuffled)}.dot.mean{fill:var(--mean)}
.band.persistence{fill:var(--persistence)}
.key.model{color:var(--model)}.key.linear{color:var(--linear)}.key.mean{color:var(--mean);border-top-style:dashed}
.key.persistence{color:var(--persistence);border-top-style:dotted}.key.real{color:var(--real)}
.key.shuffled{color:var(--shuffled);border-top-style:dashed}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:right;padding:.35em .7em;border-bottom:1px solid var(--rule);vertical-align:top}
th:first-child{text-align:left;position:sticky;left:0;background:var(--card);font-weight:600;min-width:7.5em}
thead th{color:var(--soft);font-weight:500;white-space:nowrap}
td small{display:block;color:var(--soft);white-space:nowrap}
tr:not(.model)>th{font-weight:400}tr:not(.model)>td b{font-weight:400}em{color:var(--soft);font-style:normal}
td.missing{color:var(--soft);font-size:.8rem;text-align:left;min-width:9em}
table.facts td{text-align:left;overflow-wrap:anywhere}table.facts th{width:32%;white-space:normal}
details{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:10px 12px;margin:10px 0}
summary{cursor:pointer;font-weight:600}
.warning{border-left:4px solid var(--partly);padding:.3em .9em;margin:.8em 0;background:var(--card)}
@media (prefers-reduced-motion:reduce){.moving{display:none}}
@media not (prefers-reduced-motion:reduce){.stillness{display:none}}
"""


def page(title: str, body: str) -> str:
    """The whole document."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>{body}</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A titled part of the page, left out when it has nothing to show."""
    inside = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{inside}</section>" if inside else ""
