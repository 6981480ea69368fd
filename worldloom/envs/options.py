"""Options of an environment as they are typed."""

import json
from typing import Any

from worldloom.errors import UserError


def parse_options(options: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` pairs; a value is JSON where it can be (true, 3, 0.5, null) and otherwise the text itself."""
    parsed: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if name in ("name", "image_size", "seed"):
            raise UserError(f"--options {option}: {name} is no option of an environment")
        if not (name and equals):
            raise UserError(f"--options takes name=value, for instance pixels=true, but got {option!r}")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed
