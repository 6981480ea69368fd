"""A session as a file: the seed, the hash of the weights, and the actions and observations. Reproduces every frame.

JSON throughout. Nothing in a replay is executed, and everything in it is checked as it is played. Its keys are those of
format 1, in which a node is a "moment".
"""

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.play.engine import Arrays, Engine
from worldloom.play.session import MAX_NODES, Node, PlaySession

FORMAT = 1
MOST_BYTES = 64_000_000
DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class ReplayProgress:
    """A replay, as far as it was played. different: the first node whose digest differs."""

    session: PlaySession
    different: int | None
    done: bool


def to_replay(session: PlaySession, model_hash: str) -> dict[str, Any]:
    """Everything needed to reproduce the session."""
    return {
        "worldloom_replay": FORMAT,
        "model": model_hash,
        "seed": session.seed,
        "particles": session.engine.particles,
        "here": session.here,
        "start": encode_obs(session.first_obs),
        "moments": [encode_node(node) for node in session.nodes[1:]],
        "digests": [node.digest for node in session.nodes],
    }


def play_replay(engine: Engine, replay: dict[str, Any], model_hash: str, max_nodes: int = MAX_NODES) -> ReplayProgress:
    """Reproduce the session of a replay. Raises `UserError` for another checkpoint or a damaged file."""
    return [*replay_steps(engine, replay, model_hash, max_nodes)][-1]


def replay_steps(
    engine: Engine, replay: dict[str, Any], model_hash: str, max_nodes: int = MAX_NODES
) -> Iterator[ReplayProgress]:
    """`play_replay`, one node at a time, so that a server can do other work in between."""
    try:
        check_origin(replay, engine, model_hash)
        digests, entries, here = [str(digest) for digest in replay["digests"]], replay["moments"], int(replay["here"])
        if len(digests) != len(entries) + 1:
            raise UserError(f"the replay is damaged: it has {len(digests)} digests for {len(entries) + 1} nodes")
        if len(digests) > max_nodes:
            raise UserError(f"the replay has {len(digests)} nodes, but at most {max_nodes} are accepted")
        if type(replay["seed"]) is not int or not 0 <= replay["seed"] < 2**31:
            raise UserError(f"the replay is damaged: its seed is {str(replay['seed'])[:20]}")
        session = PlaySession(engine, decode_obs(replay["start"], engine.model.spec), int(replay["seed"]), max_nodes)
        different = None if session.now.digest == digests[0] else 0
        for number, entry in enumerate(entries, 1):
            yield ReplayProgress(session, different, False)
            repeat(session, entry)
            if different is None and session.now.digest != digests[number]:
                different = number
        session.fork(here)
        yield ReplayProgress(session, different, True)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the replay is damaged ({type(error).__name__}: {error}): save it again") from error


def check_origin(replay: dict[str, Any], engine: Engine, model_hash: str) -> None:
    if not isinstance(replay, dict) or replay.get("worldloom_replay") != FORMAT:
        raise UserError(f"this is not a worldloom replay of version {FORMAT}: choose a file that Replay has saved")
    if replay["model"] != model_hash:
        raise UserError(
            f"the replay was made with the checkpoint {str(replay['model'])[:12]}, but this one is {model_hash[:12]}: "
            "open it with the run it was made with"
        )
    if replay["particles"] != engine.particles:
        raise UserError(f"the replay was made with particles {replay['particles']!r}, not {engine.particles}")


def repeat(session: PlaySession, entry: dict[str, Any]) -> None:
    """Make the node that `entry` describes."""
    session.fork(int(entry["from"]))
    kind = entry["do"]
    if kind == "step":
        session.execute(session.request_step(entry["action"]))
    elif kind == "watch":
        session.observe(entry["action"], decode_obs(entry["obs"], session.spec))
    elif kind in ("look", "edit"):
        session.execute(session.request_correction(decode_obs(entry["obs"], session.spec), kind))
    else:
        raise UserError(f"the replay is damaged: it has a node of the unknown kind {str(kind)[:20]!r}")


def encode_node(node: Node) -> dict[str, Any]:
    entry: dict[str, Any] = {"from": node.source, "do": node.kind}
    if node.kind in ("step", "watch"):
        entry["action"] = list(node.action or ())
    if node.observation:
        entry["obs"] = encode_obs(node.observation)
    return entry


def encode_obs(obs: Arrays) -> dict[str, Any]:
    return {
        key: {
            "dtype": str(value.dtype),
            "shape": list(value.shape),
            "data": base64.b64encode(zlib.compress(np.ascontiguousarray(value).tobytes())).decode(),
        }
        for key, value in obs.items()
    }


def decode_obs(data: dict[str, Any], spec: DataSpec) -> Arrays:
    """The keys that the model observes. Raises `UserError` for a damaged or too large array."""
    return {key: decode_array(key, data[key]) for key in spec.obs if key in data}


def decode_array(key: str, value: dict[str, Any]) -> np.ndarray:
    shape, dtype = tuple(int(n) for n in value["shape"]), value["dtype"]
    if dtype not in DTYPES or len(shape) > 3 or min(shape, default=1) < 1:
        raise UserError(
            f"the replay's {key!r} is {dtype} {shape}: an observation has at most 3 axes of uint8 or float32"
        )
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(value["data"], validate=True), min(size, MOST_BYTES) + 1)
    except (ValueError, zlib.error) as error:
        raise UserError(f"the replay's {key!r} is damaged: {error}") from error
    if len(raw) != size:
        raise UserError(f"the replay's {key!r} holds {len(raw)} bytes, not {size}")
    return np.frombuffer(raw, dtype).reshape(shape)
