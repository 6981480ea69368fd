"""A new model from what the command line says of it: family, size, `--set` overrides, and parts of other runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import nn

from worldloom.console import say
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError, unknown
from worldloom.model import WorldModel
from worldloom.models import FAMILIES, build


def build_model(
    family: str,
    spec: DataSpec,
    size: str,
    overrides: Sequence[str] = (),
    parts: Mapping[str, nn.Module] | None = None,
) -> WorldModel:
    """A new model around frozen `parts`. Raises `UserError` for `overrides`, each KEY=VALUE, that make none."""
    try:
        return build(family, spec, size, parts, **hyperparameters(family, size, overrides))
    except (IndexError, RuntimeError, TypeError, ZeroDivisionError) as error:
        given = " ".join(f"--set {override}" for override in overrides) or f"--size {size}"
        raise UserError(f"{given}: no {family} can be made like that ({error}): choose other values") from error


def hyperparameters(family: str, size: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The `overrides`, each KEY=VALUE, with the types of the family's preset. Raises `UserError`, also for a size."""
    sizes, renamed = FAMILIES[family].sizes, FAMILIES[family].renamed
    if size not in sizes:
        raise unknown(f"size of family {family!r}", size, sizes)
    preset = sizes[size]
    names = [field.name for field in fields(preset)]
    values = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise UserError(
                f"--set {override!r}: write it as KEY=VALUE, such as --set {names[0]}={getattr(preset, names[0])}"
            )
        if name in renamed:
            say(f"--set {name}: is called {renamed[name]} now; the old name goes with the next release")
            name = renamed[name]
        if name not in names:
            raise unknown(f"hyperparameter of family {family!r}", name, names)
        values[name] = typed(name, text, getattr(preset, name))
    return values


def typed(name: str, text: str, example: Any) -> Any:
    """`text` as a value of the type of `example`: a bool is true or false, a tuple a JSON list."""
    try:
        value = text if isinstance(example, str) else json.loads(text)
    except ValueError:
        value = text
    if isinstance(example, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(example, tuple) and isinstance(value, list):
        value = tuple(value)
    if example is not None and type(value) is not type(example):
        raise UserError(f"--set {name}={text}: {name} is of type {type(example).__name__}, such as {example!r}")
    return value
