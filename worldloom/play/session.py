"""A session of play in a model: a tree of nodes, in which rewinding, branching and comparing are lookups.

Every node follows from the seed, the weights and the actions and observations. The noise of a step depends on the seed
and on the number of steps from the root, not on the branch: two branches differ by their actions and observations only.

P particles, A action size, D vector size, H W image height and width.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from worldloom.data.spec import DataSpec, KeySpec
from worldloom.errors import UserError
from worldloom.play.engine import Arrays, Engine, Query, Result

# As on the wire. "watch" is a step with an observation, "look" corrects a node by one.
Kind = Literal["start", "step", "watch", "look", "edit"]
MAX_NODES = 10_000


@dataclass(frozen=True)
class Node:
    """One node of the tree: `steps` from the root, and `open_loop_steps` since the last observation.

            source: the current node when this one was made. For a correction or an edit that is not the parent but the
        corrected node, which stays in the tree as a branch of its own.
    observation: what the model was given at this node; empty for a prediction.
    residual: by key, the prediction error (root mean square, pictures in [0, 1]) of a corrected node.
    twin: below an edit at the node `edited`, the result of the same actions without the edit.
    """

    number: int
    source: int | None
    parent: int | None
    kind: Kind
    action: tuple[float, ...] | None
    steps: int
    open_loop_steps: int
    result: Result
    observation: Arrays = field(default_factory=dict)
    residual: dict[str, float] = field(default_factory=dict)
    twin: Result | None = None
    edited: int | None = None

    @property
    def digest(self) -> str:
        """sha256 of the pictures, vectors and signals."""
        found = hashlib.sha256()
        for decoded in (self.result.pictures, self.result.vectors):
            for key in sorted(decoded):
                found.update(np.ascontiguousarray(decoded[key]).tobytes())
        found.update(repr(sorted(self.result.signals.items())).encode())
        return found.hexdigest()


@dataclass(frozen=True)
class NodeRequest:
    """A node to be made: the queries to the engine, and the fields that are known before their results."""

    queries: tuple[Query, ...]
    kind: Kind
    source: int | None = None
    parent: int | None = None
    action: tuple[float, ...] | None = None
    observation: Arrays = field(default_factory=dict)


class PlaySession:
    """`step`, `observe`, `rewind`, `fork`, `reanchor` and `edit` on a tree of nodes. `here` is the current node.

    `step`, `observe`, `reanchor` and `edit` run the engine themselves. A server of many players makes the request
    (`request_step` and so on), runs its queries, and passes the results to `commit`.
    """

    def __init__(self, engine: Engine, obs: Mapping[str, np.ndarray], seed: int = 0, max_nodes: int = MAX_NODES):
        self.engine, self.seed, self.max_nodes = engine, seed, max_nodes
        self.first_obs = check_obs(obs, self.spec)
        self.nodes: list[Node] = []
        self.children: dict[int, list[int]] = {}
        start = Query(self._noise_seed(0), obs=to_tensors(self.first_obs, self.spec))
        self.here = self.execute(NodeRequest((start,), "start", observation=self.first_obs)).number

    @property
    def spec(self) -> DataSpec:
        return self.engine.model.spec

    @property
    def now(self) -> Node:
        return self.nodes[self.here]

    def step(self, action: int | Sequence[float] | np.ndarray) -> Node:
        """Take `action`: the number of a choice, or numbers in [-1, 1]. A known node is reused."""
        known = self.known(action)
        return self.fork(known) if known is not None else self.execute(self.request_step(action))

    def rewind(self, steps: int) -> Node:
        """Go back along the branch, at most to the root."""
        if steps < 0:
            raise UserError(f"rewind by {steps} steps: give 0 or more")
        path = self.path()
        return self.fork(path[max(0, len(path) - 1 - steps)].number)

    def fork(self, number: int) -> Node:
        """Go to any node of the tree; another action there starts another branch."""
        self.here = self.node(number).number
        return self.now

    def observe(self, action: int | Sequence[float] | np.ndarray, obs: Mapping[str, np.ndarray]) -> Node:
        """Take `action` and update the belief by `obs`, the real observation after it."""
        return self.execute(self.request_observe(action, obs))

    def reanchor(self, obs: Mapping[str, np.ndarray]) -> Node:
        """Correct the belief of the current node by its real observation, and keep the prediction error."""
        return self.execute(self.request_correction(obs, "look"))

    def edit(self, obs: Mapping[str, np.ndarray]) -> Node:
        """Replace the observation of the current node by `obs`; its twin continues without the edit."""
        return self.execute(self.request_correction(obs, "edit"))

    def known(self, action: int | Sequence[float] | np.ndarray, at: int | None = None) -> int | None:
        """The node that `action` has already led to from `at` (default: here), or None."""
        values = tuple(check_action(action, self.spec).tolist())
        for number in self.children.get(self.here if at is None else at, []):
            if self.nodes[number].kind == "step" and self.nodes[number].action == values:
                return number
        return None

    def unknown(self, plan: Sequence[int | Sequence[float]], at: int) -> int:
        """How many steps of a plan from `at` are not in the tree yet."""
        for done, action in enumerate(plan):
            known = self.known(action, at)
            if known is None:
                return len(plan) - done
            at = known
        return 0

    def request_step(self, action: int | Sequence[float] | np.ndarray, at: int | None = None) -> NodeRequest:
        """The request of `step` from `at` (default: here)."""
        before, row = self.now if at is None else self.node(at), check_action(action, self.spec)
        self.check_room()
        branches = (before.result, before.twin) if before.twin is not None else (before.result,)
        queries = tuple(Query(self._noise_seed(before.steps + 1), branch.belief, row) for branch in branches)
        return NodeRequest(queries, "step", before.number, before.number, tuple(row.tolist()))

    def request_observe(self, action: int | Sequence[float] | np.ndarray, obs: Mapping[str, np.ndarray]) -> NodeRequest:
        """The request of `observe`."""
        row, observation = check_action(action, self.spec), check_obs({**self.decoded(self.now), **obs}, self.spec)
        self.check_room()
        query = Query(
            self._noise_seed(self.now.steps + 1), self.now.result.belief, row, to_tensors(observation, self.spec)
        )
        return NodeRequest((query,), "watch", self.here, self.here, tuple(row.tolist()), observation)

    def request_correction(self, obs: Mapping[str, np.ndarray], kind: Literal["look", "edit"]) -> NodeRequest:
        """The request of `reanchor` and `edit`. Keys that are not given stay as decoded."""
        now, observation = self.now, check_obs({**self.decoded(self.now), **obs}, self.spec)
        self.check_room()
        belief, action = None, None
        if now.parent is not None:
            belief, action = self.nodes[now.parent].result.belief, np.asarray(now.action, np.float32)
        query = Query(self._noise_seed(now.steps), belief, action, to_tensors(observation, self.spec))
        return NodeRequest((query,), kind, self.here, now.parent, now.action, observation)

    def execute(self, request: NodeRequest) -> Node:
        """Run the queries, commit the node and go to it."""
        return self.fork(self.commit(request, self.engine.run(request.queries)).number)

    def commit(self, request: NodeRequest, results: Sequence[Result]) -> Node:
        """Add the requested node to the tree; `here` does not change."""
        source = None if request.source is None else self.nodes[request.source]
        acted, observed = request.kind in ("step", "watch"), request.kind in ("start", "watch", "look")
        twin, edited = (results[1], source.edited) if source and len(results) > 1 else (None, None)
        if source and request.kind == "edit":
            twin, edited = source.twin or source.result, len(self.nodes)
        node = Node(
            number=len(self.nodes),
            source=request.source,
            parent=request.parent,
            kind=request.kind,
            action=request.action,
            steps=source.steps + acted if source else 0,
            open_loop_steps=0 if source is None or observed else source.open_loop_steps + acted,
            result=results[0],
            observation=request.observation,
            residual=residuals(source.result, request.observation) if source and request.kind == "look" else {},
            twin=twin,
            edited=edited,
        )
        self.nodes.append(node)
        if request.parent is not None:
            self.children.setdefault(request.parent, []).append(node.number)
        return node

    def node(self, number: int) -> Node:
        if not 0 <= number < len(self.nodes):
            raise UserError(f"node {number}: there are nodes 0 to {len(self.nodes) - 1}")
        return self.nodes[number]

    def path(self, number: int | None = None) -> list[Node]:
        """The nodes from the root to `number` (default: here)."""
        found = [self.now if number is None else self.node(number)]
        while (parent := found[-1].parent) is not None:
            found.append(self.nodes[parent])
        return found[::-1]

    def persistence(self, number: int | None = None) -> dict[str, float]:
        """The share of an edit that is left at a node, by picture: 1 all of it, 0 nothing. Empty without edits.

        The difference between the node and its unedited twin, projected on the difference at the edit. An object that
        moves away from where it was painted counts as gone.
        """
        node = self.now if number is None else self.node(number)
        if node.twin is None or node.edited is None:
            return {}
        root, found = self.nodes[node.edited], {}
        assert root.twin is not None, root.number
        for key, picture in node.result.pictures.items():
            first = difference(root.result.pictures[key], root.twin.pictures[key])
            size = float((first * first).sum())
            left = difference(picture, node.twin.pictures[key])
            found[key] = float((first * left).sum()) / size if size else 0.0
        return found

    def decoded(self, node: Node) -> Arrays:
        """The decoded observation of a node, other keys as in the first observation."""
        return {**self.first_obs, **node.result.pictures, **node.result.vectors}

    def _noise_seed(self, steps: int) -> int:
        return self.seed * 1_000_033 + steps

    def check_room(self, more: int = 1) -> None:
        """Raises `UserError` unless the tree can hold `more` nodes."""
        if len(self.nodes) + more > self.max_nodes:
            full = f"the tree holds {len(self.nodes)} nodes, and {self.max_nodes} are its limit"
            raise UserError(f"{full}: save it and start a new session")


def check_action(action: int | Sequence[float] | np.ndarray, spec: DataSpec) -> np.ndarray:
    """An action in model units, float32 `[A]`. Raises `UserError` for one outside the action space."""
    kind = spec.action
    if isinstance(action, bool | str):
        raise UserError(f"the action {action!r} is not a number")
    if isinstance(action, int | np.integer):
        if kind.kind != "discrete" or not 0 <= action < kind.size:
            known = f"a choice from 0 to {kind.size - 1}" if kind.kind == "discrete" else f"{kind.size} numbers"
            raise UserError(f"the action {action} is outside the action space: want {known}")
        return np.eye(kind.size, dtype=np.float32)[action]
    try:
        row = np.asarray(action, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"the action {str(action)[:60]} is not made of numbers") from error
    if row.shape != (kind.size,) or not np.isfinite(row).all():
        raise UserError(f"the action {str(action)[:60]} is outside the action space: want {kind.size} finite numbers")
    if kind.kind == "discrete" and (sorted(row.tolist()) != [0.0] * (kind.size - 1) + [1.0]):
        raise UserError(f"the action {row.tolist()} is no choice: want one 1 and {kind.size - 1} zeros")
    if kind.kind == "continuous" and np.abs(row).max(initial=0) > 1:
        raise UserError(f"the action {row.tolist()} is outside [-1, 1]")
    return row


def check_obs(obs: Mapping[str, np.ndarray], spec: DataSpec) -> Arrays:
    """An observation of all keys as arrays: pictures uint8 `[H, W, 3]`, numbers float32. Raises `UserError`."""
    return {key: check_key(key, obs.get(key), of) for key, of in spec.obs.items()}


def check_key(key: str, value: np.ndarray | None, of: KeySpec) -> np.ndarray:
    if value is None:
        raise UserError(f"the observation has no {key!r}")
    array, shape = np.asarray(value), of.shape
    wanted = (shape[1], shape[2], shape[0]) if of.kind == "image" else shape
    if array.shape != wanted:
        raise UserError(f"{key!r} has the shape {array.shape}, but the model takes {wanted}")
    if of.kind == "image":
        if array.dtype != np.uint8:
            raise UserError(f"{key!r} is {array.dtype}, but a picture must be uint8")
        return array
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{key!r} holds a number that is not finite")
    return array


def to_tensors(obs: Mapping[str, np.ndarray], spec: DataSpec) -> dict[str, Tensor]:
    """One row, `[1, ...]`, in the layout of models."""
    found = {}
    for key, of in spec.obs.items():
        array = obs[key].transpose(2, 0, 1) if of.kind == "image" else obs[key]
        found[key] = torch.from_numpy(np.ascontiguousarray(array))[None]
    return found


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of two pictures, in [-1, 1]."""
    return (a.astype(np.float32) - b.astype(np.float32)) / 255


def residuals(expected: Result, observation: Arrays) -> dict[str, float]:
    """Root mean square between prediction and observation, by key."""
    found = {key: difference(picture, observation[key]) for key, picture in expected.pictures.items()}
    found |= {key: vector - observation[key] for key, vector in expected.vectors.items()}
    return {key: float(np.sqrt(np.square(error).mean())) for key, error in found.items()}
