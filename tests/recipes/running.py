"""A recipe as one types it, but in this process: importing torch anew for each of them would take minutes."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


def figures(name: str, *words: str, folder: Path, times: int = 1) -> Any:
    """What `python recipes/NAME.py --debug WORDS` writes with `--json`, the last of `times` runs."""
    table = folder / "figures.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"recipes/{name}.py", "--debug", *words, "--json", str(table)])
        patch.syspath_prepend(RECIPES)
        for _ in range(times):
            runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
    return json.loads(table.read_text())
