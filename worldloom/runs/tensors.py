"""Files of named tensors: safetensors, their sha256, and the check that they are those a module wants."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from worldloom.errors import UserError

PICKLES = {b"PK": "a zip archive, as torch.save writes", b"\x80": "a pickle"}


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # A copy of each, because safetensors refuses tensors that share memory, as tied weights do.
    return tensors_to_bytes({k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()})


def read_tensors(path: Path, expected_hash: str, remedy: str) -> dict[str, Tensor]:
    """The tensors of one file. Raises `UserError` with the `remedy` where it is missing, cut, changed or a pickle."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    try:
        tensors = tensors_from_bytes(data)
    except SafetensorError as error:
        # Asked only now: the first byte of a good file is the length of its header, which can be any, a pickle's too.
        for magic, what in PICKLES.items():
            if data.startswith(magic):
                raise UserError(f"{path} is {what}, which can run code, and was not opened: {remedy}") from error
        raise UserError(f"{path} is cut or damaged ({error}; {len(data)} bytes): {remedy}") from error
    if sha256(data) != expected_hash:
        raise UserError(f"{path} is not the file its state.json was written with (sha256 differs): {remedy}")
    return tensors


def check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors whose names, shapes or types are not those `wanted`."""
    for name, tensor in wanted.items():
        if name not in found:
            raise UserError(f"{path} has no tensor {name!r}: it belongs to another configuration")
        ours, theirs = (tuple(tensor.shape), tensor.dtype), (tuple(found[name].shape), found[name].dtype)
        if ours != theirs:
            raise UserError(f"{path}: tensor {name!r} is {theirs}, want {ours}: it belongs to another configuration")
    for name in found:
        if name not in wanted:
            raise UserError(f"{path} has an unknown tensor {name!r}: it belongs to another configuration")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
