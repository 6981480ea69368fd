"""What in a data card deserves a second look before training, in plain sentences."""

from collections.abc import Sequence

import numpy as np

from worldloom.data.card.card import DataCard, KeyFigures

LEAP = 30  # times the usual step


def notes_on(card: DataCard) -> list[str]:
    """One line per oddity; an empty list is a healthy dataset."""
    notes = []
    if card.broken:
        notes.append(f"{len(card.broken)} of {card.episodes} episodes cannot be read: fix them, or --skip-broken.")
    for key, figures in card.keys.items():
        notes += _key_notes(key, figures)
    return notes + _action_notes(card) + _episode_notes(card) + _about_notes(card)


def _key_notes(key: str, figures: KeyFigures) -> list[str]:
    notes = []
    if len(figures.constant) == len(figures.low):
        notes.append(f"{key} never changes: it is dead.")
    elif figures.constant and figures.kind == "vector":
        notes.append(f"{key}: never changing: {_named(figures.names, figures.constant)}.")
    if figures.kind == "image" and figures.held > 0.2:
        notes.append(f"{key}: {figures.held:.0%} of the frames equal the frame before; a frozen or slower camera?")
    return notes + _jump_notes(key, figures) + _wrap_notes(key, figures.names, figures.low, figures.high, figures.jumps)


def _jump_notes(key: str, figures: KeyFigures) -> list[str]:
    """Steps that no other step of the dimension comes near to, such as where two episodes were stored as one."""
    pairs = enumerate(zip(figures.jumps, figures.usual, strict=False))
    leaps = [i for i, (jump, usual) in pairs if usual > 0 and jump > LEAP * usual]
    if not leaps:
        return []
    first = leaps[0]
    words = f"a jump of {figures.jumps[first]:.3g} between two rows, where 99 % of the steps are below"
    return [f"{key}: {_named(figures.names, leaps)}: {words} {figures.usual[first]:.3g}. Is an episode's end missing?"]


def _wrap_notes(
    key: str, names: Sequence[str], low: Sequence[float], high: Sequence[float], jumps: Sequence[float]
) -> list[str]:
    """Dimensions that lie within a turn (radians or degrees) and step across almost all of it between two rows."""
    turns = (2 * np.pi, 360)
    wrapped = [i for i, jump in enumerate(jumps) if any(high[i] - low[i] <= 1.01 * t and jump > 0.9 * t for t in turns)]
    if not wrapped:
        return []
    words = "an angle that jumps by a whole turn between rows, so near angles are far apart. Store its sine and cosine."
    return [f"{key}: {_named(names, wrapped)}: {words}"]


def _action_notes(card: DataCard) -> list[str]:
    action = card.action
    if action.size == 0:
        return ["there are no actions: nothing can be controlled."]
    notes = []
    if action.kind == "discrete":
        unused = [i for i, count in enumerate(action.counts[0]) if count == 0]
        if unused:
            notes.append(f"action: never chosen: {_named(action.names, unused)}.")
    else:
        if action.constant:
            notes.append(f"action: never changing: {_named(action.names, action.constant)}.")
        notes += _wrap_notes("action", action.names, action.seen_low, action.seen_high, action.jumps)
        if not action.declared:
            notes.append("action: no range is declared; training takes that of its episodes.")
    if action.held > 0.9:
        notes.append(f"action: {action.held:.0%} equal the one before; little can be learned of their effect.")
    return notes


def _episode_notes(card: DataCard) -> list[str]:
    notes = []
    if card.episodes < 2:
        notes.append("a single episode cannot be split into training and held-out ones.")
    if card.lengths["min"] < 8:
        notes.append(f"the shortest episode has {card.lengths['min']} rows; windows of it are mostly padding.")
    if card.ends["terminated"] == 0:
        notes.append("no row shows a terminal observation: an end cannot be learned.")
    if card.reward and card.reward["std"] == 0:
        notes.append(f"the reward is always {card.reward['min']:g}.")
    twins = sum(len(group["episodes"]) for group in card.duplicates)
    if twins:
        notes.append(f"{twins} episodes are the same or nearly the same as others; a split may leak.")
    return notes


def _about_notes(card: DataCard) -> list[str]:
    notes = []
    if card.about.get("license") in (None, "", "unknown"):
        notes.append("no licence is stated.")
    if card.about.get("fps_assumed"):
        notes.append(f"the format does not say how many frames per second there are; {card.fps:g} is assumed.")
    notes += [
        f"{name} loses digits: float32 keeps 7, and it varies by less than that. Store it less an offset."
        for name in card.about.get("beyond_float32", ())
    ]
    ignored = card.about.get("ignored_features")
    if ignored:
        notes.append(f"not used: {', '.join(ignored)}. A model sees what is called observation.NAME and action.")
    notes += [f"{what} is not represented." for what in card.about.get("not_represented", ())]
    synthetic = card.about.get("synthetic")
    if isinstance(synthetic, dict):  # of a mixed dataset
        share, column = synthetic["fraction"], synthetic["column"]
        notes.append(f"synthetic: {share:.1%} of the rows are imagined by a model, not recorded (column {column}).")
    elif synthetic:
        notes.append("synthetic: imagined by a model, not recorded.")
    return notes


def _named(names: Sequence[str], indices: Sequence[int]) -> str:
    """The first few dimensions by name or number."""
    words = [names[i] if i < len(names) else f"dimension {i}" for i in indices[:6]]
    return ", ".join(words) + (f" and {len(indices) - 6} more" if len(indices) > 6 else "")
