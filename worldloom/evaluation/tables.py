"""The report's tables: every figure of the card with its interval, models and baselines one under the other."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from worldloom.evaluation.measure import Measured
from worldloom.evaluation.metric import BASELINES, Metric
from worldloom.evaluation.wording import Table, interval, number, split_key
from worldloom.stats.bootstrap import Figure

AGREEMENT = {
    "pearson": "Pearson correlation",
    "spearman": "Rank correlation",
    "mmrv": "Mean maximum rank violation, in return",
    "regret": "Regret of the dream's favourite, in return",
}
COST = {
    "step_ms_p50": ("One step with all read-outs, median", "ms", 2),
    "step_ms_p95": ("One step with all read-outs, 95th percentile", "ms", 2),
    "imagined_steps_per_second": ("Imagined steps per second, batch 64", "", 0),
    "parameters": ("Parameters", "", 0),
    "peak_memory_mb": ("Peak memory of this evaluation", "MB", 0),
    "training_steps": ("Training updates", "", 0),
    "training_rows": ("Training rows", "", 0),
    "training_seconds": ("Training time", "s", 0),
}


def figure_tables(measured: Measured, metrics: Mapping[str, Metric]) -> str:
    """One folding table per metric, model first, baselines below, a column per horizon."""
    return "".join(_table(name, metric, measured) for name, metric in metrics.items() if name in measured.metrics)


def _table(name: str, metric: Metric, measured: Measured) -> str:
    rows: list[tuple[str, str, dict[int | None, Figure]]] = []
    for predictor in ("model", *BASELINES):
        table: Table = measured.metrics if predictor == "model" else measured.baselines.get(predictor, {})
        for base, figures in _by_step(table.get(name, {})).items():
            rows.append((base, predictor, figures))
    order = {base: i for i, base in enumerate(dict.fromkeys(base for base, _, _ in rows))}
    rows.sort(key=lambda row: order[row[0]])
    steps = sorted({s for _, _, figures in rows for s in figures if s is not None})
    plain = any(None in figures for _, _, figures in rows)
    head = "".join(f"<th>{words}</th>" for words in (["value"] if plain else []) + [_steps(s) for s in steps])
    columns: list[int | None] = ([None] if plain else []) + list(steps)
    body = "".join(_row(base, predictor, figures, columns, metric.digits) for base, predictor, figures in rows)
    return (
        f"<details open><summary>{escape(metric.title)}</summary><p class=note>{escape(metric.meaning)}</p>"
        f"<div class=scroll><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _row(
    base: str, predictor: str, figures: dict[int | None, Figure], columns: Sequence[int | None], digits: int
) -> str:
    label = escape(base) if predictor == "model" else f"{escape(base)} <em>{predictor}</em>"
    cells = "".join(_cell(figures.get(column), digits) for column in columns)
    return f'<tr class="{predictor}"><th scope=row>{label}</th>{cells}</tr>'


def _cell(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return "<td></td>"
    if figure.value is None:
        return f"<td class=missing>not measured: {escape(figure.why or '')}</td>"
    value = number(figure.value, digits)
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return f"<td><b>{value}</b></td>"
    between = f"{number(figure.low, digits)} … {number(figure.high, digits)}"
    return f"<td><b>{value}</b><small>{between}</small></td>"


def _by_step(figures: Mapping[str, Figure]) -> dict[str, dict[int | None, Figure]]:
    grouped: dict[str, dict[int | None, Figure]] = {}
    for key, value in figures.items():
        base, step = split_key(key)
        grouped.setdefault(base, {})[step] = value
    return grouped


def _steps(step: int) -> str:
    return f"{step} step" if step == 1 else f"{step} steps"


def policy_table(metrics: Table) -> str:
    """The policies, the best in reality first, and how well the dream ranks them."""
    real, dream = metrics["policy_reality"], metrics["policy_dream"]
    names = sorted(real, key=lambda name: real[name].value or 0.0, reverse=True)
    body = "".join(
        f"<tr class=model><th scope=row>{escape(name)}</th>{_cell(real[name], 2)}{_cell(dream[name], 2)}</tr>"
        for name in names
    )
    agreement = "".join(
        f"<tr class=model><th scope=row>{words}</th>{_cell(metrics['policy_ranking'][name], 2)}<td></td></tr>"
        for name, words in AGREEMENT.items()
    )
    return (
        "<div class=scroll><table><thead><tr><th></th><th>in reality</th><th>in the dream</th></tr></thead>"
        f"<tbody>{body}</tbody></table><table><thead><tr><th></th><th>dream against reality</th><th></th></tr></thead>"
        f"<tbody>{agreement}</tbody></table></div>"
    )


def cost_table(cost: Mapping[str, Figure], provenance: Mapping[str, Any]) -> str:
    rows = []
    for name, (words, unit, digits) in COST.items():
        figure = cost.get(name)
        if figure is not None:
            text = f"{interval(figure, digits)} {unit}" if figure.value is not None else f"not known: {figure.why}"
            rows.append((words, text))
    rows.append(("Hardware", f"{provenance['hardware']}, {provenance['dtype']}"))
    return definition_table(rows)


def provenance_table(provenance: Mapping[str, Any]) -> str:
    """Where every figure comes from, so that they can be reproduced."""
    checkpoint = provenance["checkpoint"]
    rows = [
        ("Command", provenance["command"]),
        ("Checkpoint", f"step {checkpoint['step']}, sha256 {checkpoint['sha256']}"),
    ]
    for data in provenance["datasets"]:
        split = f"{data['train_episodes']} training, {len(data['held_out_episodes'])} held-out episodes"
        rows.append(("Data", f"{data['path']} (fingerprint {data['fingerprint']}; {split})"))
        rows += [("Skipped", line) for line in data["skipped"]]
    rows += [
        ("Episodes evaluated", ", ".join(provenance["episodes_judged"])),
        ("Windows", f"{provenance['windows']} starts, {provenance['context']} rows of context each"),
        ("Expected value", f"mean over {provenance['samples']} dreams per window"),
        ("Intervals", provenance["interval"]),
        ("Seed", str(provenance["seed"])),
        ("Versions", ", ".join(f"{k} {v}" for k, v in provenance["versions"].items())),
        ("Made", f"{provenance['date']}, in {provenance['seconds']:g} s"),
    ]
    return definition_table(rows)


def definition_table(rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table class=facts><tbody>{body}</tbody></table>"
