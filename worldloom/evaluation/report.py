"""`RUN/report.html`: the card as one self-contained page to read in a browser.

H open-loop steps, M samples, D vector size.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from worldloom.data.durable import replacing
from worldloom.evaluation.dreams import Dream, clip, show_dreams, strip
from worldloom.evaluation.measure import Measured
from worldloom.evaluation.measure_heads import EndSamples, tracked_ends
from worldloom.evaluation.metric import BASELINES
from worldloom.evaluation.result import Evaluation
from worldloom.evaluation.rollout import RolloutSettings
from worldloom.evaluation.tables import cost_table, figure_tables, policy_table, provenance_table
from worldloom.evaluation.verdict import verdict
from worldloom.evaluation.windows import HeldOut
from worldloom.evaluation.wording import ABSENT, Sentence, number
from worldloom.model import WorldModel
from worldloom.render.page import page, section
from worldloom.render.plots import Dot, Line, line_plot, reliability_plot, scatter_plot
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure

MARKS = {"yes": "✓ trust it", "partly": "~ with care", "no": "✗ not for this", "open": f"{ABSENT} not measured"}
NAMES = {"model": "this model", "linear": "linear", "mean": "mean", "persistence": "nothing changes"}
MAX_VARIABLES = 4


def write_report(
    model: WorldModel, held: Sequence[HeldOut], settings: RolloutSettings, result: Evaluation, path: Path
) -> None:
    """Render the page and put it in place whole."""
    text = render(model, held, settings, result)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(model: WorldModel, held: Sequence[HeldOut], settings: RolloutSettings, result: Evaluation) -> str:
    """The page as HTML."""
    measured, facts = result.card.measured, result.card.provenance
    fps = float(facts["fps"])
    keys = [k for k in (*model.spec.image_keys, *model.spec.vector_keys) if k in model.decodes]
    dreams = show_dreams(model, held, settings)
    name = Path(facts["run"]).name
    body = [
        _header(name, facts),
        _tiles(measured, keys, fps),
        _verdict(verdict(measured.metrics, keys, settings.horizons, fps, result.metrics, measured.baselines)),
        *(f"<p class=warning>{escape(note)}</p>" for note in facts["notes"] if "simulator" not in note),
        section("Real beside imagined", _clips(dreams, fps)),
        section("Step by step", *_strips(dreams)),
        section("Traces", _traces(dreams, model)),
        section("How errors grow", _curves(measured, keys, model)),
        section("Ends of episodes", _ends(result, held)),
        section("Policies, dream against reality", _policies(measured)),
        section("Every figure", _explain(facts), figure_tables(measured, result.metrics)),
        section("Cost", cost_table(measured.metrics["cost"], facts)),
        section("Where this comes from", provenance_table(facts)),
    ]
    return page(f"worldloom report: {name}", "".join(body))


def _header(name: str, facts: dict) -> str:
    data = ", ".join(Path(d["path"]).name for d in facts["datasets"])
    minutes = facts["training"]["seconds"] / 60
    return (
        f"<header><p>worldloom report</p><h1>{escape(name)}</h1>"
        f"<p>{escape(facts['family'])}, {facts['checkpoint']['step']} updates in {minutes:.1f} minutes, on "
        f"{escape(data)}. Evaluated on {_count(len(facts['episodes_judged']), 'episode')} it was not trained on, "
        f"{facts['rows_judged']} rows, {facts['date'][:10]}.</p></header>"
    )


def _count(number_of: int, thing: str) -> str:
    return f"{number_of} {thing}{'s' * (number_of != 1)}"


def _tiles(measured: Measured, keys: Sequence[str], fps: float) -> str:
    tiles = []
    for key in keys[:3]:
        useful = measured.metrics.get("useful_horizon", {}).get(key)
        if useful is not None and useful.value is not None:
            words = _count(int(useful.value), "step")
            tiles.append(_tile(f"{key}: useful for", words, f"{useful.value / fps:.2g} s", useful))
    skill = measured.metrics.get("skill", {}).get(f"{keys[0]}@5") if keys else None
    tiles.append(_tile("skill at 5 steps", number(skill.value) if skill else ABSENT, keys[0] if keys else "", skill))
    control = measured.metrics.get("controllability", {}).get(f"{keys[0]}@5") if keys else None
    tiles.append(
        _tile("gain from true actions", f"{number(control.value)} dB" if control else ABSENT, "at 5 steps", control)
    )
    end = measured.metrics.get("terminated_auroc", {}).get("tracked")
    if end is not None and end.value is not None:
        tiles.append(_tile("ends recognised, AUROC", number(end.value), "0.5 is chance", end))
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _tile(label: str, value: str, detail: str, figure: Figure | None) -> str:
    digits = 0 if "step" in value else 2
    between = ""
    if figure is not None and figure.low is not None:
        between = f"{number(figure.low, digits)} … {number(figure.high, digits)}"
    small = " · ".join(word for word in (between, detail) if word)
    return f"<div class=tile><span>{escape(label)}</span><b>{escape(value)}</b><small>{escape(small)}</small></div>"


def _verdict(sentences: Sequence[Sentence]) -> str:
    rows = "".join(f"<li class={s.mark}><b>{MARKS[s.mark]}</b><span>{escape(s.words)}</span></li>" for s in sentences)
    return f"<section><h2>What it can be trusted for</h2><ul class=verdict>{rows}</ul></section>"


def _clips(dreams: Sequence[Dream], fps: float) -> str:
    """Looping clips; who asked for less motion sees only the film strips below."""
    shown = [dream for dream in dreams if dream.real]
    if not shown:
        return ""
    figures = []
    for dream in shown:
        cameras = ", ".join(dream.real)
        words = f"Episode {dream.name}, rows {dream.start} to {dream.start + len(next(iter(dream.real.values()))) - 1}"
        alternative = (
            f"{words}: real, imagined and their difference side by side, cameras from top to bottom: {cameras}"
        )
        figures.append(
            '<figure class="clip moving"><div class=columns><span>real</span><span>imagined</span>'
            f'<span>difference</span></div><img src="{clip(dream, fps)}" alt="{escape(alternative, quote=True)}">'
            f"<figcaption>{escape(words)}; {escape(cameras)}</figcaption></figure>"
        )
    note = (
        "<p class=note>One dream each, not an average, with the recorded actions. While the bar over the imagined "
        "picture is grey the model observes; once it is orange the rollout is open-loop. Episodes are chosen by their "
        "place in the list, not by content.</p>"
    )
    still = "<p class='note stillness'>Clips are hidden because your system asks for less motion.</p>"
    return f"{note}{still}<div class=grid>{''.join(figures)}</div>"


def _strips(dreams: Sequence[Dream]) -> list[str]:
    parts = []
    for dream in dreams:
        for key in dream.real:
            uri, (width, height) = strip(dream, key)
            words = f"Episode {dream.name}, {key}, from row {dream.start + dream.context - 1}"
            alternative = f"Film strip. {words}: real, imagined, their difference, and imagined with other actions"
            image = f'<img src="{uri}" width={width} height={height} alt="{escape(alternative, quote=True)}">'
            parts.append(
                f"<figure class=strip><h3>{escape(words)}</h3><div class=scroll tabindex=0>{image}</div></figure>"
            )
    return parts


def _traces(dreams: Sequence[Dream], model: WorldModel) -> str:
    """Real variables against the middle 80 % of dreams, for the first episode shown."""
    plots = []
    for dream in dreams[:1]:
        for key, (real, samples) in dream.vectors.items():
            names = model.spec.obs[key].names or [str(d) for d in range(real.shape[-1])]
            for d in range(min(MAX_VARIABLES, real.shape[-1])):
                plots.append(_trace(dream, f"{key}: {names[d]}", real[:, d], samples[..., d]))
    return f"<div class=grid>{''.join(plots)}</div>" if plots else ""


def _trace(dream: Dream, title: str, real: np.ndarray, samples: np.ndarray) -> str:
    x = np.arange(len(real)) - dream.context + 1
    ahead = np.arange(1, samples.shape[1] + 1)
    low, high = np.quantile(samples, [0.1, 0.9], axis=0)
    lines = [
        Line("real", "real", x, real),
        Line("imagined, mean and middle 80 %", "model", ahead, samples.mean(0), low, high),
    ]
    return line_plot(lines, f"{title}, episode {dream.name}", "open-loop steps", "", marks=[(0, "open loop")])


def _curves(measured: Measured, keys: Sequence[str], model: WorldModel) -> str:
    plots = []
    for key in keys:
        lines = _lines(measured, "skill", key)
        if lines:
            # A bad baseline far below zero would flatten what matters.
            lowest = min((float(np.nanmin(line.y)) for line in lines[:1] if np.isfinite(line.y).any()), default=0.0)
            y_range = (max(min(lowest, -0.2) - 0.05, -1.0), 1.02)
            plots.append(
                line_plot(lines, f"{key}: skill", "steps ahead", "1 perfect, 0 persistence", y_range, zero=True)
            )
    for key in keys:
        name, label = ("psnr", "dB, higher is better") if key in model.spec.image_keys else ("rmse", "in training std")
        lines = _lines(measured, name, key)
        if lines:
            title = "PSNR" if name == "psnr" else "root mean square error"
            plots.append(line_plot(lines, f"{key}: {title}", "steps ahead", label))
    for key in keys:
        curve = measured.curves.get("controllability", {}).get(("model", key))
        if curve is not None:
            line = Line("gain", "model", curve.steps, curve.value, curve.low, curve.high, dots=True)
            title = f"{key}: gain of true over shuffled actions"
            plots.append(line_plot([line], title, "steps ahead", "dB", zero=True))
    note = "<p class=note>Bands are 95 % intervals over held-out episodes.</p>"
    return f"{note}<div class=grid>{''.join(plots)}</div>" if plots else ""


def _lines(measured: Measured, metric: str, key: str) -> list[Line]:
    found = []
    for predictor in ("model", *reversed(BASELINES)):
        curve = measured.curves.get(metric, {}).get((predictor, key))
        if curve is None or (metric == "skill" and predictor == "persistence") or not np.isfinite(curve.value).any():
            continue
        sides = (curve.low, curve.high) if predictor in ("model", "linear") else (None, None)
        found.append(Line(NAMES[predictor], predictor, curve.steps, curve.value, *sides))
    return found


def _ends(result: Evaluation, held: Sequence[HeldOut]) -> str:
    if not result.ends:
        return ""
    plots = [_end_trace(result, held)]
    samples = {
        "tracked": tracked_ends(result.tracked),
        **{f"{_count(k, 'step')} ahead": s for k, s in result.ends.items()},
    }
    curves = []
    for (label, found), style in zip(list(samples.items())[:4], ("real", "model", "linear", "shuffled"), strict=False):
        curves.append((label, style, *_reliability(found)))
    plots.append(reliability_plot(curves, "Calibration of end probabilities"))
    return f"<div class=grid>{''.join(plots)}</div>"


def _reliability(samples: EndSamples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return scores.reliability(samples.probability, samples.ended, samples.weight)


def _end_trace(result: Evaluation, held: Sequence[HeldOut], rows: int = 40, most: int = 12) -> str:
    """The tracked end probability over the last rows of episodes, those that ended apart from those that were cut."""
    lines = []
    ended = [t["terminated"] for t in result.tracked if t["real_terminated"].any()]
    cut = [t["terminated"] for t in result.tracked if not t["real_terminated"].any()]
    for group, label, style in ((ended, "episode that ended", "model"), (cut, "episode that was cut off", "linear")):
        for trace in group[:most]:
            last = trace[-rows:]
            lines.append(Line(label, style, np.arange(len(last)) - len(last) + 1, last))
    top = min(1.0, max(0.05, 1.1 * max(float(np.max(line.y)) for line in lines)))
    return line_plot(lines, "End probability over the last rows", "rows before the last", "probability", (0, top))


def _policies(measured: Measured) -> str:
    """Every policy's return in the dream over that in reality, where there are several."""
    real, dream = (measured.metrics.get(f"policy_{where}", {}) for where in ("reality", "dream"))
    if not real:
        return ""
    dots = []
    for name in real:
        x, y = real[name], dream[name]
        if x.value is not None and y.value is not None:
            dots.append(Dot(name, x.value, y.value, _ends_of(x), _ends_of(y)))
    title = "Mean return of each policy"
    plot = scatter_plot(dots, title, "in reality", "in the dream") if dots else ""
    note = "<p class=note>Bars are 95 % intervals over episodes. The order matters, not the diagonal.</p>"
    return f"{note}<div class=grid>{plot}</div>{policy_table(measured.metrics)}"


def _ends_of(figure: Figure) -> tuple[float, float] | None:
    return None if figure.low is None or figure.high is None else (figure.low, figure.high)


def _explain(facts: dict) -> str:
    return (
        f"<p class=note>Each belief is tracked on {facts['context']} real rows and then left alone with the recorded "
        f"actions. Forecasts are the mean of {_count(facts['samples'], 'dream')}; a single "
        "dream of a sampling model has a larger error. Below each value is its 95 % interval over held-out episodes. "
        f"The simulator as a ceiling is not available from logged data. {facts['windows']} windows, horizons "
        f"{', '.join(map(str, facts['horizons']))}.</p>"
    )
