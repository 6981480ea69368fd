"""The requests of a page."""

import json
from pathlib import Path

import msgspec
import pytest

from worldloom.play import messages

SCHEMA = Path(__file__).parents[2] / "docs" / "play.schema.json"


def test_the_schema_in_the_documentation_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(msgspec.json.encode(messages.schema()))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"type": "dance"}', "Invalid value 'dance'"),
        (b'{"type": "step", "action": "left"}', "Expected `int | array | null`"),
        (b'{"type": "step", "action": 1, "more": 2}', "unknown field `more`"),
        (b'{"type": "go"}', "missing required field `moment`"),
        (b'{"type": "go", "moment": -1}', ">= 0"),
        (b'{"type": "rewind", "steps": 1000000}', "<= 100000"),
        (b'{"type": "grid", "moment": 0, "plans": []}', "length >= 1"),
        (b'{"type": "export", "kind": "../../etc"}', "Invalid enum value"),
    ],
)
def test_an_invalid_request_is_refused_with_the_reason(raw: bytes, message: str) -> None:
    with pytest.raises(msgspec.MsgspecError, match=message):
        messages.read(raw)


def test_a_binary_answer_holds_its_header_and_then_its_pictures() -> None:
    packed = messages.pack({"a": 1}, [b"xy", b"z"])
    size = int.from_bytes(packed[:4], "big")
    assert json.loads(packed[4 : 4 + size]) == {"a": 1}
    assert packed[4 + size :] == b"xyz"
