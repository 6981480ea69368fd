"""The log of a shield's decisions: JSON lines, each whole or absent, and on the disk when a call returns.

B environments, H horizon, R rules, A action size.
"""

import json
import os
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor

from worldloom.errors import UserError
from worldloom.safety.decision import ShieldDecision
from worldloom.safety.evaluator import SafetyEvaluation, SafetyEvaluator

VERDICTS = ("accept", "repair", "recover", "fall back", "refuse")
OLD_KEYS = {"strange": "novelty", "widen": "inflation"}  # as logs of before spell them


def explain(
    evaluator: SafetyEvaluator,
    step: Tensor,
    decision: ShieldDecision,
    wanted: Tensor,
    evaluated: SafetyEvaluation,
    novelty: Tensor,
    inflation: Tensor,
) -> Iterator[dict[str, Any]]:
    """One entry for each of the B decisions; those that were not accepted carry `evaluated` as a counterexample."""
    for row in range(len(wanted)):
        verdict = VERDICTS[int(decision.verdict[row])]
        entry = {
            "row": row,
            "step": int(step[row]),
            "verdict": verdict,
            "reason": reason(evaluator, verdict, row, decision, wanted, evaluated, float(novelty[row])),
            "wanted": numbers(wanted[row]),
            "sent": numbers(decision.action[row]),
            "bound": number(float(decision.lower[row].amin())),
            "novelty": number(float(novelty[row])),
            "inflation": number(float(inflation[row])),
        }
        if verdict != "accept":
            entry["counterexample"] = counterexample(evaluator, row, evaluated)
        yield entry


def reason(
    evaluator: SafetyEvaluator,
    verdict: str,
    row: int,
    decision: ShieldDecision,
    wanted: Tensor,
    evaluated: SafetyEvaluation,
    novelty: float,
) -> str:
    """Why, in one sentence."""
    if verdict == "refuse":
        threshold = evaluator.calibration.novelty.threshold
        scores = f"novelty {novelty:.3g}, threshold {threshold:.3g}"
        return f"the observation is unlike those of the calibration ({scores}): the fallback is sent"
    if verdict == "accept":
        return f"{describe_bound(evaluator, decision.lower[row])}, with the fallback to follow"
    change = float((decision.action[row] - wanted[row]).norm())
    done = {
        "repair": f"the nearest safe plan changes the action by {change:.3g}",
        "recover": "no plan is safe; the plan that is sent violates less than the fallback",
        "fall back": "no safe plan was found; the rest of the last safe plan is sent, or the fallback",
    }
    return f"refused because {describe_bound(evaluator, evaluated.lower[row])}: {done[verdict]}"


def describe_bound(evaluator: SafetyEvaluator, lower: Tensor) -> str:
    """The worst of bounds `[H, R]` as a sentence."""
    worst = int(lower.argmin())
    step, rule = worst // lower.shape[1] + 1, evaluator.forecaster.rules[worst % lower.shape[1]].name
    value, probability = float(lower.flatten()[worst]), 1 - evaluator.calibration.alpha
    verb = "is at least" if value >= 0 else "may be down to"
    return f"the margin of {rule!r} {verb} {value:.3g} in {step} steps (probability {probability:g})"


def counterexample(evaluator: SafetyEvaluator, row: int, evaluated: SafetyEvaluation) -> dict[str, Any]:
    """The trajectory that was refused: actions in model units, decoded values, margins and bounds, step by step."""
    forecast = evaluated.forecast
    return {
        "actions": numbers(forecast.actions[row]),
        "values": {key: numbers(value[row]) for key, value in forecast.values.items() if value.ndim < 4},
        "margins": {r.name: numbers(forecast.margin[row, :, i]) for i, r in enumerate(evaluator.forecaster.rules)},
        "bounds": {r.name: numbers(evaluated.lower[row, :, i]) for i, r in enumerate(evaluator.forecaster.rules)},
    }


def numbers(value: Tensor) -> Any:
    """Nested lists, rounded; numbers that are not finite become null."""

    def rounded(part: Any) -> Any:
        return [rounded(x) for x in part] if isinstance(part, list) else number(part)

    return rounded(value.tolist())


def number(value: float) -> float | None:
    return float(f"{value:.5g}") if isfinite(value) else None


def write_log(path: Path, entries: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> None:
    """Append one line an entry with one write, synced. A line that a crash cut short is first ended with a newline.

    Raises `UserError` when the file cannot be written: a shield whose log is required must not act without it.
    """
    lines = b"".join(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n" for entry in entries)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                lines = b"\n" + lines
            if os.write(descriptor, lines) != len(lines):
                raise OSError(None, "only a part of it was written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"the shield's log {path} cannot be written ({error.strerror}): no action is sent") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; a line that a crash cut short is left out. Keys of older logs get their new names."""
    entries = []
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        entries.append({OLD_KEYS.get(key, key): value for key, value in entry.items()})
    return entries
