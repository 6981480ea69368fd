"""The benchmark of checkpoints runs, and has a row of ours beside each of torch.save's."""

import json
from collections.abc import Callable
from types import ModuleType

import pytest


def test_both_are_saved_and_loaded(
    benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = benchmark("checkpoint")
    monkeypatch.setattr(script, "RUNS", 1)
    monkeypatch.setattr(script, "SIZE", "debug")
    monkeypatch.setattr("sys.argv", ["checkpoint.py", "--json"])
    script.main()
    rows = json.loads(capsys.readouterr().out)
    for name in ("checkpoint save", "checkpoint load", "checkpoint size"):
        assert {row["source"].split()[0] for row in rows if row["name"] == name} == {"worldloom", "torch.save"}
    assert all(row["value"] > 0 for row in rows)
