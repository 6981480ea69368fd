"""One player in a model: what each request of the page does and returns. Independent of the web server.

An answer is a JSON object or, with pictures, bytes (`messages.pack`). A request that fails raises `UserError` and
changes nothing.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from functools import singledispatchmethod
from typing import Any

import msgspec
import numpy as np

from worldloom.errors import UserError
from worldloom.play import messages
from worldloom.play.context import ServerContext
from worldloom.play.exporting import Exports, export
from worldloom.play.messages import MOST_BYTES, MOST_PLAN_STEPS, MOST_PLANS, VERSION, pack
from worldloom.play.replay import replay_steps, to_replay
from worldloom.play.session import Arrays, Node, NodeRequest, PlaySession, check_action, difference
from worldloom.play.starts import Reality, Start
from worldloom.play.turns import Turns

Outgoing = dict[str, Any] | bytes
Answers = AsyncIterator[Outgoing | None]


class ModelPlayer:
    """A session of one page. `name` identifies it when the page reconnects."""

    session: PlaySession
    start: Start
    unsaved = False

    def __init__(self, name: str, context: ServerContext, turns: Turns, exports: Exports):
        self.name, self.context, self.turns, self.exports = name, context, turns, exports
        self.reality: Reality | None = None
        self.options = messages.Options()

    async def begin(self, name: str | None = None, seed: int = 0) -> None:
        """Begin a new tree in place of the old one. Raises `UserError` for an unknown start."""
        try:
            start, reality = await asyncio.to_thread(self.context.open_start, name, seed)
        except KeyError as error:
            raise UserError(f"there is no start {name!r}: choose one of those offered") from error
        try:
            session = await self.turns.run(lambda: self.context.begin(start, seed))
        except BaseException:
            if reality is not None:
                reality.close()
            raise
        self.close()
        self.start, self.reality, self.session = start, reality, session

    def welcome(self, request: messages.Request) -> dict[str, Any]:
        limits = {"moments": self.context.max_nodes, "plans": MOST_PLANS, "plan_steps": MOST_PLAN_STEPS}
        known = None if self.reality is None else "env" if self.start.name == "environment" else "recording"
        return {
            "type": "welcome",
            "id": request.id,
            "version": VERSION,
            "session": self.name,
            **self.context.facts(),
            "reality": known,
            "recording": known == "recording",
            "moments": len(self.session.nodes),
            "limits": limits,
        }

    async def greet(self, request: messages.Request) -> list[Outgoing]:
        return [self.welcome(request), await self.show(self.session.now, request)]

    def close(self) -> None:
        if self.reality is not None:
            self.reality.close()

    @singledispatchmethod
    async def _answer(self, request: Any) -> list[Outgoing]:
        raise UserError(f"{type(request).__name__.lower()} is not available in a model: play with --record for it")

    async def answer(self, request: messages.Request) -> Answers:
        """All answers to one request, and None where a long request may be cancelled."""
        if isinstance(request, messages.Load):
            async for outgoing in self._load(request):
                yield outgoing
        elif isinstance(request, messages.Grid):
            async for outgoing in self._grid(request):
                yield outgoing
        else:
            for outgoing in await self._answer(request):
                yield outgoing

    @_answer.register
    async def _ping(self, request: messages.Ping) -> list[Outgoing]:
        return [{"type": "pong", "id": request.id}]

    @_answer.register
    async def _new(self, request: messages.New) -> list[Outgoing]:
        await self.begin(request.start, request.seed)
        return await self.greet(request)

    @_answer.register
    async def _step(self, request: messages.Step) -> list[Outgoing]:
        action = await self._choose(request)
        known = self.session.known(action)
        node = self.session.node(known) if known is not None else await self._commit(self.session.request_step(action))
        return [await self.show(self.session.fork(node.number), request)]

    async def _choose(self, request: messages.Step) -> Any:
        """The action of the player, the agent or the recording. Raises `UserError` where there is none."""
        if request.by == "agent":
            if self.context.actor is None:
                raise UserError("there is no agent: give --agent, or open the folder of a learned policy")
            belief = self.session.now.result.belief
            return await self.turns.run(lambda: self.context.agent_action(belief))
        if request.by == "recording":
            action = None if self.reality is None else self.reality.next_action(self.session.path())
            if action is None:
                raise UserError("the recording ends here, or there is none")
            return action
        if request.action is None:
            raise UserError("a step needs an action")
        return request.action

    @_answer.register
    async def _rewind(self, request: messages.Rewind) -> list[Outgoing]:
        return [await self.show(self.session.rewind(request.steps), request)]

    @_answer.register
    async def _go(self, request: messages.Go) -> list[Outgoing]:
        return [await self.show(self.session.fork(request.moment), request)]

    @_answer.register
    async def _show(self, request: messages.Show) -> list[Outgoing]:
        nodes = [self.session.node(number) for number in request.moments]
        return [await self.show(node, request) for node in nodes]

    @_answer.register
    async def _tree(self, request: messages.Tree) -> list[Outgoing]:
        nodes = await asyncio.to_thread(lambda: [self._facts(node) for node in self.session.nodes])
        return [{"type": "tree", "id": request.id, "moments": nodes}]

    @_answer.register
    async def _edit(self, request: messages.Edit) -> list[Outgoing]:
        picture = self._picture(request)
        node = await self._commit(self.session.request_correction({request.key: picture}, "edit"))
        return [await self.show(self.session.fork(node.number), request)]

    def _picture(self, request: messages.Edit) -> np.ndarray:
        of = self.context.spec.obs.get(request.key)
        if of is None or of.kind != "image":
            raise UserError(f"{request.key!r} is not an image key of this model")
        height, width = of.shape[1:]
        try:
            raw = base64.b64decode(request.pixels, validate=True)
        except ValueError as error:
            raise UserError(f"the pixels are not base64: {error}") from error
        if len(raw) != height * width * 3:
            raise UserError(f"the picture has {len(raw)} bytes, not {height} x {width} x 3")
        return np.frombuffer(raw, np.uint8).reshape(height, width, 3)

    @_answer.register
    async def _anchor(self, request: messages.Anchor) -> list[Outgoing]:
        real = await self._real(self.session.now)
        if real is None:
            raise UserError(
                "the real observation is not known here: the session has left the recording, or there is none"
            )
        node = await self._commit(self.session.request_correction(real, "look"))
        return [await self.show(self.session.fork(node.number), request)]

    @_answer.register
    async def _options(self, request: messages.Options) -> list[Outgoing]:
        self.options = request
        return [await self.show(self.session.now, request)]

    @_answer.register
    async def _save(self, request: messages.Save) -> list[Outgoing]:
        replay = await asyncio.to_thread(to_replay, self.session, self.context.model_hash)
        if (size := len(msgspec.json.encode(replay))) > MOST_BYTES - 1000:
            what = f"the replay would have {size} bytes, and more than {MOST_BYTES} cannot be loaded"
            raise UserError(f"{what}: export the branch as an mp4 or a dataset")
        return [{"type": "replay", "id": request.id, "replay": replay}]

    @_answer.register
    async def _export(self, request: messages.Export) -> list[Outgoing]:
        path, start = self.session.path(), self.start
        name, file = await asyncio.to_thread(export, request.kind, self.context, start, path, self.exports.folder)
        return [{"type": "file", "id": request.id, "name": name, "url": self.exports.offer(name, file)}]

    async def _load(self, request: messages.Load) -> Answers:
        """Play a replay one node at a time, so that other players are served in between; then greet the page."""
        made = replay_steps(self.context.engine, request.replay, self.context.model_hash, self.context.max_nodes)
        while True:
            step = await self.turns.run(lambda: next(made, None))
            if step is None or step.done:
                break
            yield None
        assert step is not None
        self.close()
        self.session, self.reality = step.session, None
        self.start = Start("replay", "a replay", self.session.first_obs)
        loaded = {"moments": len(self.session.nodes), "identical": step.different is None}
        yield {"type": "loaded", "id": request.id, **loaded, "different": step.different}
        for outgoing in await self.greet(request):
            yield outgoing

    async def _grid(self, request: messages.Grid) -> Answers:
        """All plans, one step of all of them at a time."""
        session, plans = self.session, request.plans
        for action in (action for plan in plans for action in plan):
            check_action(action, self.context.spec)  # check all of them before the first step
        at = [session.node(request.moment).number] * len(plans)
        session.check_room(sum(session.unknown(plan, request.moment) for plan in plans))
        found: list[list[Node]] = [[] for _ in plans]
        for t in range(max(map(len, plans))):
            going = [i for i, plan in enumerate(plans) if t < len(plan)]
            nodes = await self._step_all([(at[i], plans[i][t]) for i in going])
            for i, node in zip(going, nodes, strict=True):
                at[i] = node.number
                found[i].append(node)
                yield await self.show(node, request, plan=i)
        numbers = [[node.number for node in nodes] for nodes in found]
        yield {"type": "grid", "id": request.id, "plans": numbers, "divergence": divergence(found)}

    async def _step_all(self, wanted: list[tuple[int, Any]]) -> list[Node]:
        """One step from each of several nodes. Equal steps share one node."""
        session, fresh = self.session, dict[Any, NodeRequest]()
        for at, action in wanted:
            key = (at, *check_action(action, self.context.spec).tolist())
            if session.known(action, at) is None and key not in fresh:
                fresh[key] = session.request_step(action, at)
        results = await self.turns.query([query for pending in fresh.values() for query in pending.queries])
        for pending in fresh.values():
            session.commit(pending, results[: len(pending.queries)])
            results = results[len(pending.queries) :]
        numbers = [session.known(action, at) for at, action in wanted]
        return [session.node(number) for number in numbers if number is not None]

    async def _commit(self, pending: NodeRequest) -> Node:
        return self.session.commit(pending, await self.turns.query(pending.queries))

    async def _real(self, node: Node) -> Arrays | None:
        if self.reality is None:
            return None
        reality, path = self.reality, self.session.path(node.number)
        return await asyncio.to_thread(reality.at, path)

    async def show(self, node: Node, request: messages.Request, plan: int | None = None) -> bytes:
        """The message of a node: its numbers, decoded pictures and, if enabled, real pictures and uncertainty."""
        pictures = [(key, "dream", picture) for key, picture in node.result.pictures.items()]
        real = None
        if self.options.reality and plan is None:
            obs = await self._real(node) or {}
            pictures += [(key, "real", obs[key]) for key in self.context.spec.image_keys if key in obs]
            real = {key: obs[key].tolist() for key in node.result.vectors if key in obs}
        if self.options.heat and plan is None:
            deviations = await self.turns.run(lambda: self.context.engine.uncertain_pixels(node.result.belief))
            pictures += [(key, "heat", to_heat(values)) for key, values in deviations.items()]
        header = {
            "type": "moment",
            "id": request.id,
            "here": node.number == self.session.here,
            "plan": plan,
            "moment": self._facts(node, real),
        }
        return pack_pictures(header, pictures)

    def _facts(self, node: Node, real: dict[str, list[float]] | None = None) -> dict[str, Any]:
        """The numbers of a node. real: its real vectors, empty where unknown, None if not requested."""
        return {
            **describe(node),
            "real": real,
            "persistence": self._persistence(node),
            "trust": self._trust(node),
        }

    def _persistence(self, node: Node) -> dict[str, float]:
        return {} if node.edited is None else self.session.persistence(node.number)

    def _trust(self, node: Node) -> dict[str, Any] | None:
        trust = self.context.trust
        if trust is None:
            return None
        left = trust.left(node.open_loop_steps, node.result.spread)
        return {"left": left, "good": left >= 1, "spread": node.result.spread}


def describe(node: Node) -> dict[str, Any]:
    """The numbers of a node that do not depend on options or the server. Keys are those of the wire."""
    return {
        "number": node.number,
        "parent": node.parent,
        "kind": node.kind,
        "action": node.action,
        "steps": node.steps,
        "blind": node.open_loop_steps,
        "signals": node.result.signals,
        "vectors": {key: value.tolist() for key, value in node.result.vectors.items()},
        "residual": node.residual,
    }


def pack_pictures(header: dict[str, Any], pictures: list[tuple[str, str, np.ndarray]]) -> bytes:
    """A binary answer with the header's list of its pictures."""
    listed = [
        {"key": key, "role": role, "height": p.shape[0], "width": p.shape[1], "channels": p.shape[2]}
        for key, role, p in pictures
    ]
    return pack({**header, "pictures": listed}, [np.ascontiguousarray(p).tobytes() for _, _, p in pictures])


def to_heat(deviation: np.ndarray) -> np.ndarray:
    """Standard deviations `[H, W]` as uint8 `[H, W, 1]`: 0.25, a quarter of the range, is the maximum."""
    return (np.clip(deviation * 4, 0, 1) * 255).astype(np.uint8)[..., None]


def divergence(plans: list[list[Node]]) -> list[list[float]]:
    """Distance of each plan from the mean of all plans, by step: of pictures, or of vectors where there are none."""
    found: list[list[float]] = [[] for _ in plans]
    for t in range(max(map(len, plans))):
        going = [i for i, plan in enumerate(plans) if t < len(plan)]
        decoded = [comparable(plans[i][t]) for i in going]
        mean = np.mean(decoded, 0)
        for i, values in zip(going, decoded, strict=True):
            found[i].append(float(np.sqrt(np.square(values - mean).mean())))
    return found


def comparable(node: Node) -> np.ndarray:
    """All pictures of a node as one vector, in [0, 1]; its vectors where there are no pictures."""
    result = node.result
    parts = [difference(p, np.zeros_like(p)).ravel() for p in result.pictures.values()]
    parts = parts or [value.ravel() for value in result.vectors.values()]
    return np.concatenate(parts) if parts else np.zeros(1)
