"""Decisions in words, and the log of them: JSON lines that are whole or not there, and on the disk when a call returns.

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


def explain(
    judge: SafetyEvaluator,
    step: Tensor,
    choice: ShieldDecision,
    wanted: Tensor,
    asked: SafetyEvaluation,
    strange: Tensor,
    inflation: Tensor,
) -> Iterator[dict[str, Any]]:
    """One entry for each of the B decisions; those that were not accepted carry the counter-example `asked` is."""
    for row in range(len(wanted)):
        verdict = VERDICTS[int(choice.verdict[row])]
        entry = {
            "row": row,
            "step": int(step[row]),
            "verdict": verdict,
            "reason": reason(judge, verdict, row, choice, wanted, asked, float(strange[row])),
            "wanted": numbers(wanted[row]),
            "sent": numbers(choice.action[row]),
            "bound": number(float(choice.lower[row].amin())),
            "strange": number(float(strange[row])),
            "inflation": number(float(inflation[row])),
        }
        if verdict != "accept":
            entry["counterexample"] = counterexample(judge, row, asked)
        yield entry


def reason(
    judge: SafetyEvaluator,
    verdict: str,
    row: int,
    choice: ShieldDecision,
    wanted: Tensor,
    asked: SafetyEvaluation,
    strange: float,
) -> str:
    """Why, in one sentence."""
    if verdict == "refuse":
        threshold = judge.calibration.novelty.threshold
        strangeness = f"{strange:.3g}, threshold {threshold:.3g}"
        return f"the observation is unlike those of the calibration ({strangeness}): the fallback is sent"
    if verdict == "accept":
        return f"{bound(judge, choice.lower[row])}, with the fallback to follow"
    change = float((choice.action[row] - wanted[row]).norm())
    done = {
        "repair": f"the nearest plan found safe changes the action by {change:.3g}",
        "recover": "no plan is safe, and the one that was sent does less harm than the fallback",
        "fall back": "no safe plan was found, so what was safe before is gone on with, or the fallback sent",
    }
    return f"refused because {bound(judge, asked.lower[row])}: {done[verdict]}"


def bound(judge: SafetyEvaluator, lower: Tensor) -> str:
    """The worst of bounds `[H, R]` in words."""
    worst = int(lower.argmin())
    step, rule = worst // lower.shape[1] + 1, judge.forecaster.rules[worst % lower.shape[1]].name
    value, promise = float(lower.flatten()[worst]), 1 - judge.calibration.alpha
    verb = "keeps at least" if value >= 0 else "may be down to"
    return f"the margin of {rule!r} {verb} {value:.3g} in {step} steps (probability {promise:g})"


def counterexample(judge: SafetyEvaluator, row: int, asked: SafetyEvaluation) -> dict[str, Any]:
    """The trajectory that was refused: actions in model units, decoded values, margins and bounds, step by step."""
    forecast = asked.forecast
    return {
        "actions": numbers(forecast.actions[row]),
        "values": {key: numbers(value[row]) for key, value in forecast.values.items() if value.ndim < 4},
        "margins": {r.name: numbers(forecast.margin[row, :, i]) for i, r in enumerate(judge.forecaster.rules)},
        "bounds": {r.name: numbers(asked.lower[row, :, i]) for i, r in enumerate(judge.forecaster.rules)},
    }


def numbers(value: Tensor) -> Any:
    """Nested lists, rounded; what is not finite is null, which JSON has a word for."""

    def rounded(part: Any) -> Any:
        return [rounded(x) for x in part] if isinstance(part, list) else number(part)

    return rounded(value.tolist())


def number(value: float) -> float | None:
    return float(f"{value:.5g}") if isfinite(value) else None


def write_log(path: Path, entries: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> None:
    """Append one line an entry with one write, synced. A line that a crash cut short is closed first and stays apart.

    Raises `UserError` when the disk refuses: a shield whose log is required must not act unseen.
    """
    lines = b"".join(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n" for entry in entries)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                lines = b"\n" + lines
            if os.write(descriptor, lines) != len(lines):
                raise OSError(None, "the disk took only a part of it")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"the shield's log {path} cannot be written ({error.strerror}): no action is sent") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; what a crash cut short is left out."""
    entries = []
    for line in path.read_bytes().split(b"\n"):
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries
