"""Ten thousand messages that no page would send: each is answered or ends its connection with a reason."""

import json
import random
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("websockets", reason="the extra 'play' is not installed")

from websockets.exceptions import ConnectionClosed

from tests.play.test_server import RIGHT, Page, serving

MESSAGES = 10_000
LIMIT = 4000  # bytes of a message
WHOLE = [
    {"type": "step", "action": RIGHT},
    {"type": "go", "moment": 1},
    {"type": "show", "moments": [0, 1]},
    {"type": "rewind", "steps": 1},
    {"type": "grid", "moment": 0, "plans": [[RIGHT]]},
    {"type": "edit", "key": "image", "pixels": "AAAA"},
    {"type": "save"},
    {"type": "load", "replay": {"worldloom_replay": 1}},
    {"type": "export", "kind": "png"},
    {"type": "train"},
    {"type": "new", "start": "a", "seed": 1},
    {"type": "options", "heat": True},
    {"type": "anchor"},
    {"type": "hello", "version": 1},
    {"type": "ping"},
]
DEEP: Any = []
for _ in range(900):
    DEEP = [DEEP]
STRANGE: list[Any] = [
    None,
    True,
    -1,
    1e308,
    2**70,
    "",
    "x" * 500,
    "../../secret",
    "é",
    "png\n",
    [],
    [[]],
    {},
    {"a": 1},
    [1e400],
    "\u0000",
    [RIGHT] * 99,
    DEEP,
]


def mangled(rng: random.Random) -> bytes:
    """A request with one or more things wrong with it."""
    message: Any = dict(rng.choice(WHOLE))
    for _ in range(rng.randint(1, 3)):
        key = rng.choice([*message, "id", "extra", "type"])
        message[key] = rng.choice(STRANGE)
    raw = json.dumps(message).encode()
    if rng.random() < 0.3:
        at = rng.randrange(len(raw))
        raw = raw[:at] + bytes([rng.randrange(256)]) + raw[at + rng.randint(0, 4) :]
    return raw if rng.random() < 0.9 else raw[: rng.randrange(len(raw) + 1)]


def unexpected(rng: random.Random, sent: list[bytes]) -> bytes:
    """Malformed, too long, sent before, or whole but out of any order."""
    kind = rng.random()
    if kind < 0.6:
        return mangled(rng)
    if kind < 0.61:
        return b'{"type": "edit", "key": "image", "pixels": "' + b"A" * LIMIT + b'"}'
    if kind < 0.8 and sent:
        return rng.choice(sent)
    return json.dumps(rng.choice(WHOLE)).encode()


def answers(page: Page, number: int) -> list[str]:
    """What is said until the ping that was sent after a message is answered, or the connection ends."""
    found = []
    while (answer := page.next()) != {"type": "pong", "id": number}:
        found.append(answer["type"])
        if answer["type"] == "bye":
            assert answer["message"]
            break
    return found


def test_ten_thousand_unexpected_messages_are_answered_and_affect_no_other_page() -> None:
    rng, sent, kinds, ended = random.Random(0), [], set(), 0
    with serving(messages_per_second=1e9, burst=10**9, message_bytes=LIMIT) as (address, server):
        quiet, page = Page(address), Page(address)
        before = quiet.ask("show", moments=[0])
        for number in range(1, MESSAGES + 1):
            raw = unexpected(rng, sent)
            sent.append(raw)
            page.send(raw if rng.random() < 0.5 else raw.decode("utf-8", "replace"))
            with suppress(ConnectionClosed):  # the message before may have ended it
                page.send({"type": "ping", "id": number})
            found = answers(page, number)
            assert found or raw == b'{"type": "ping"}', raw[:200]
            kinds.update(found)
            if found[-1:] == ["bye"]:
                ended += 1
                page = Page(address, session=page.welcome["session"], hello=rng.random() < 0.9)
                if not hasattr(page, "welcome"):
                    page.send(raw[:LIMIT])
                    assert page.next()["type"] == "bye", "only a hello begins"
                    page = Page(address)
        assert {"error", "moment", "welcome", "file", "bye"} <= kinds, kinds
        assert ended > MESSAGES / 200
        assert sum(seat.reader.left is None for seat in server.seats.values()) == 2, "who has gone holds no seat"
        after = quiet.ask("show", moments=[0])
        assert after["moment"] == before["moment"]
        assert all((after["shown"][key] == pixels).all() for key, pixels in before["shown"].items())
        assert quiet.ask("step", action=RIGHT)["moment"]["number"] == quiet.first["moment"]["number"] + 1
