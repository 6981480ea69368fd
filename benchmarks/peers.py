"""Other implementations of DreamerV3, timed beside ours in the same run when you have them on this machine.

    export WORLDLOOM_PEER_DREAMERV3=PYTHON:CHECKOUT WORLDLOOM_PEER_R2DREAMER=PYTHON:CHECKOUT
    python benchmarks/peers.py [--json]

CHECKOUT is a clone of the repository named in `PEERS` and PYTHON an interpreter in which its requirements are installed
(those of environments and GPUs are not needed). What exactly is timed stands at the head of `peer_driver.py`.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from report import Row, print_rows

from worldloom.errors import UserError, unknown

Work = Literal["vector", "image"]
WORK: tuple[Work, ...] = ("vector", "image")
DRIVER = Path(__file__).with_name("peer_driver.py")


@dataclass(frozen=True)
class Peer:
    """`repository` is what CHECKOUT holds; `needs` is what PYTHON must be able to import."""

    repository: str
    needs: str

    @property
    def variable(self) -> str:
        return f"WORLDLOOM_PEER_{self.repository.split('/')[1].upper().replace('-', '_')}"


PEERS = {
    "dreamerv3": Peer(
        "danijar/dreamerv3",
        "jax==0.4.33 'numpy<2' chex einops elements granular jaxtyping ninjax optax portal ruamel.yaml",
    ),
    "r2dreamer": Peer("NM512/r2dreamer", "torch tensordict hydra-core gymnasium tensorboard"),
}


def measure(peer: str, work: Work, updates: int = 10) -> list[Row]:
    """One update of `peer` on `work`: median and least CPU-ms of `updates`, and the number of parameters.

    A peer that is not installed is one row without a value that says how to point at it; one that fails likewise, with
    the end of its output on stderr. Raises `UserError` for an unknown peer or a variable that points nowhere.
    """
    if peer not in PEERS:
        raise unknown("peer", peer, PEERS)
    if work not in WORK:
        raise unknown("work", work, WORK)
    name, setting = f"size1m update, {work}", os.environ.get(PEERS[peer].variable)
    if not setting:
        hint = f"not installed; set {PEERS[peer].variable}=PYTHON:CHECKOUT"
        return [_row(name, None, f"{PEERS[peer].repository} ({hint})")]
    python, checkout = installed(PEERS[peer].variable, setting)
    command = [str(python), str(DRIVER), peer, str(checkout), work, str(updates)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        print(f"{' '.join(command)}\n{finished.stderr[-2000:]}", file=sys.stderr)
        hint = f"failed, see stderr; {python} needs {PEERS[peer].needs}"
        return [_row(name, None, f"{PEERS[peer].repository} ({hint})")]
    result = json.loads(finished.stdout.splitlines()[-1])
    source = f"{PEERS[peer].repository}, {result['library']}"
    return [
        _row(name, median(result["cpu_ms"]), source),
        _row(f"{name}, least of {updates}", min(result["cpu_ms"]), source),
        _row(f"{name}, parameters", result["parameters"], source, "parameters"),
    ]


def installed(variable: str, setting: str) -> tuple[Path, Path]:
    """The interpreter and the checkout that `PYTHON:CHECKOUT` points at, made absolute without following links."""
    python, separator, checkout = setting.partition(os.pathsep)
    if not separator or not Path(python).is_file() or not Path(checkout).is_dir():
        raise UserError(
            f"{variable}={setting!r} does not point at a peer. Set it to PYTHON{os.pathsep}CHECKOUT, an interpreter "
            "and the folder of a clone, such as peer/bin/python:clones/peer"
        )
    return Path(python).absolute(), Path(checkout).absolute()


def _row(name: str, value: float | None, source: str, unit: str = "CPU-ms") -> Row:
    return Row(name, value, unit, threads=1, dtype="float32", source=source)


def main() -> None:
    rows = []
    for work in WORK:
        for peer in PEERS:
            print(f"timing {peer}, {work}: seconds to minutes", file=sys.stderr)
            rows += measure(peer, work)
    print_rows(rows)


if __name__ == "__main__":
    main()
