"""A walk as a file: the seed, the weights' hash and what was done. Played again, every frame comes out the same.

JSON throughout. Nothing in a replay is executed, and everything in it is checked as it is walked.
"""

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldloom.errors import UserError
from worldloom.play.engine import Arrays, Engine
from worldloom.play.session import Moment, Session

FORMAT = 1
MOST_BYTES = 64_000_000
DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class Walked:
    """A replay that was walked again. `different` is the first moment that does not look as it did."""

    session: Session
    different: int | None


def to_replay(session: Session, model_hash: str) -> dict[str, Any]:
    """Everything needed to see the same again."""
    return {
        "worldloom_replay": FORMAT,
        "model": model_hash,
        "seed": session.seed,
        "particles": session.engine.particles,
        "width": session.engine.width,
        "here": session.here,
        "start": encode_obs(session.first_obs),
        "moments": [encode_moment(moment) for moment in session.moments[1:]],
        "digests": [moment.digest for moment in session.moments],
    }


def walk(engine: Engine, replay: dict[str, Any], model_hash: str) -> Walked:
    """The session that a replay describes. Raises `UserError` for another checkpoint or a damaged file."""
    try:
        check_origin(replay, engine, model_hash)
        session = Session(engine, decode_obs(replay["start"]), int(replay["seed"]))
        for entry in replay["moments"]:
            repeat(session, entry)
        here, digests = int(replay["here"]), [str(digest) for digest in replay["digests"]]
        session.fork(here)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"the replay is damaged ({type(error).__name__}: {error}): save it again") from error
    made = [moment.digest for moment in session.moments]
    if len(made) != len(digests):
        raise UserError(f"the replay is damaged: it has {len(digests)} digests for {len(made)} moments")
    pairs = enumerate(zip(made, digests, strict=True))
    return Walked(session, next((i for i, (now, then) in pairs if now != then), None))


def check_origin(replay: dict[str, Any], engine: Engine, model_hash: str) -> None:
    if not isinstance(replay, dict) or replay.get("worldloom_replay") != FORMAT:
        raise UserError(f"this is no worldloom replay of version {FORMAT}")
    if replay["model"] != model_hash:
        raise UserError(
            f"the replay was made with the checkpoint {str(replay['model'])[:12]}, but this one is {model_hash[:12]}: "
            "open it with the run it was made with"
        )
    for name in ("particles", "width"):
        if replay[name] != getattr(engine, name):
            raise UserError(f"the replay was made with {name} {replay[name]}, not {getattr(engine, name)}")


def repeat(session: Session, entry: dict[str, Any]) -> None:
    """Make the moment that `entry` describes."""
    session.fork(int(entry["from"]))
    kind = entry["do"]
    if kind == "step":
        session.fulfil(session.wish_step(entry["action"]))
    elif kind == "watch":
        session.watch(entry["action"], decode_obs(entry["obs"]))
    elif kind in ("look", "edit"):
        session.fulfil(session.wish_look(decode_obs(entry["obs"]), kind))
    else:
        raise UserError(f"the replay wants {str(kind)[:20]!r}, which nobody can do")


def encode_moment(moment: Moment) -> dict[str, Any]:
    entry: dict[str, Any] = {"from": moment.source, "do": moment.kind}
    if moment.kind in ("step", "watch"):
        entry["action"] = list(moment.action or ())
    if moment.seen:
        entry["obs"] = encode_obs(moment.seen)
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


def decode_obs(data: dict[str, Any]) -> Arrays:
    """Raises `UserError` for what is no array, or one that is larger than any picture."""
    return {str(key): decode_array(str(key), value) for key, value in data.items()}


def decode_array(key: str, value: dict[str, Any]) -> np.ndarray:
    shape, dtype = tuple(int(n) for n in value["shape"]), value["dtype"]
    if dtype not in DTYPES or len(shape) > 3 or min(shape, default=1) < 1:
        raise UserError(f"the replay's {key!r} is {dtype} {shape}, which no observation is")
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(value["data"], validate=True), min(size, MOST_BYTES) + 1)
    except (ValueError, zlib.error) as error:
        raise UserError(f"the replay's {key!r} is damaged: {error}") from error
    if len(raw) != size:
        raise UserError(f"the replay's {key!r} holds {len(raw)} bytes, not {size}")
    return np.frombuffer(raw, dtype).reshape(shape)
