"""The protocol between page and server: typed, versioned JSON, and binary messages with pictures.

Every message of the page is one JSON object with a "type" and an "id"; each answer repeats the id. Answers with
pictures are binary: the length of a JSON header (4 bytes, big-endian), the header, and the pictures' raw uint8 rows in
the order of the header. `docs/play.schema.json` is made from this file, so class docstrings are part of the schema.

On the wire a node of the tree is a "moment", and "look" and "watch" are its kinds with an observation: version 1.

A action size.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

VERSION = 1
MOST_BYTES = 16_000_000  # of one message
MOST_PLANS, MOST_PLAN_STEPS, MOST_SHOWN = 9, 200, 64

Number = Annotated[int, Meta(ge=0, lt=2**31)]
Text = Annotated[str, Meta(max_length=200)]
Action = Annotated[int, Meta(ge=0, lt=10_000)] | Annotated[list[float], Meta(max_length=1000)]
Plan = Annotated[list[Action], Meta(min_length=1, max_length=MOST_PLAN_STEPS)]
Base64 = Annotated[str, Meta(max_length=12_000_000)]


class Message(Struct, tag_field="type", forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What the page asks. `id` is its own number for the request."""

    id: Number = 0


class Hello(Message, tag="hello", frozen=True):
    """The first message. `session` is that of an earlier connection which is to be gone on with."""

    version: int
    session: Text | None = None


class New(Message, tag="new", frozen=True):
    """Begin a new tree: at `start` of what the server was given to start from, with another seed."""

    seed: Number = 0
    start: Text | None = None


class Step(Message, tag="step", frozen=True):
    """Do an action; None lets the agent or the recording choose, whichever `by` says."""

    action: Action | None = None
    by: Literal["player", "agent", "recording"] = "player"


class Rewind(Message, tag="rewind", frozen=True):
    """Go back along the branch."""

    steps: Annotated[int, Meta(ge=1, le=100_000)] = 1


class Go(Message, tag="go", frozen=True):
    """Go to any moment; another action there begins a branch."""

    moment: Number


class Show(Message, tag="show", frozen=True):
    """Send these moments again, for scrubbing; `here` stays where it is."""

    moments: Annotated[list[Number], Meta(min_length=1, max_length=MOST_SHOWN)]


class Tree(Message, tag="tree", frozen=True):
    """All moments in the order in which they were made, without their pictures: for a page that comes back."""


class Edit(Message, tag="edit", frozen=True):
    """Go on as if the picture `key` had looked like `pixels`, its raw RGB rows in base64."""

    key: Text
    pixels: Base64


class Anchor(Message, tag="anchor", frozen=True):
    """Look at what is true at this moment, where reality is known, and correct the belief by it."""


class Grid(Message, tag="grid", frozen=True):
    """What if: try every plan from one moment. Each becomes a branch."""

    moment: Number
    plans: Annotated[list[Plan], Meta(min_length=1, max_length=MOST_PLANS)]


class Options(Message, tag="options", frozen=True):
    """What comes along with every moment from now on: what is true, and where it is unsure."""

    reality: bool = False
    heat: bool = False


class Save(Message, tag="save", frozen=True):
    """The replay of the whole tree."""


class Load(Message, tag="load", frozen=True):
    """Play a replay again, and say whether every frame is the same."""

    replay: dict[str, Any]


class Export(Message, tag="export", frozen=True):
    """Make a file of the branch that leads here: "mp4", "png" or "dataset". The answer says where to fetch it."""

    kind: Literal["mp4", "png", "dataset"]


class Train(Message, tag="train", frozen=True):
    """Train a first model on what was recorded."""


class Training(Message, tag="training", frozen=True):
    """How that goes. Starts nothing, however often it is asked."""


class Ping(Message, tag="ping", frozen=True):
    """Answered with "pong" at once."""


Walking = Hello | New | Step | Rewind | Go | Show | Tree | Edit | Anchor | Grid
Asking = Options | Save | Load | Export | Train | Training | Ping
Request = Walking | Asking
DECODER = msgspec.json.Decoder(Request)
MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read(data: bytes | str) -> Request:
    """Parse a request. Raises one of `MALFORMED` for anything else."""
    return DECODER.decode(data)


def pack(header: dict[str, Any], pictures: list[bytes]) -> bytes:
    """A binary answer."""
    head = msgspec.json.encode(header)
    return b"".join([len(head).to_bytes(4, "big"), head, *pictures])


def schema() -> dict[str, Any]:
    """The JSON schema of every request."""
    return {"version": VERSION, **msgspec.json.schema(Request)}
