"""One player in a dream: what each request of the page does, and what is answered. No web in it.

An answer is a JSON object or, with pictures, bytes (`messages.pack`). A request that cannot be granted is answered with
an error and changes nothing.
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
from worldloom.play.exporting import Exports, export
from worldloom.play.messages import MOST_BYTES, MOST_PLAN_STEPS, MOST_PLANS, VERSION, pack
from worldloom.play.replay import to_replay, walking
from worldloom.play.scenes import Reality, Scene
from worldloom.play.session import Arrays, Moment, Session, Wish, check_action, difference
from worldloom.play.stage import Stage
from worldloom.play.turns import Turns

Outgoing = dict[str, Any] | bytes
Answers = AsyncIterator[Outgoing | None]


class DreamPlayer:
    """A walk on a stage. `name` is what a page says to find it again."""

    session: Session
    scene: Scene
    unsaved = False

    def __init__(self, name: str, stage: Stage, turns: Turns, exports: Exports):
        self.name, self.stage, self.turns, self.exports = name, stage, turns, exports
        self.reality: Reality | None = None
        self.options = messages.Options()

    async def begin(self, start: str | None = None, seed: int = 0) -> None:
        """Begin a new tree; the old one is given up. Raises `UserError` for a start that is not on offer."""
        try:
            scene, reality = await asyncio.to_thread(self.stage.opening, start, seed)
        except KeyError as error:
            raise UserError(f"there is no start {start!r}: choose one of those offered") from error
        try:
            session = await self.turns.run(lambda: self.stage.begin(scene, seed))
        except BaseException:
            if reality is not None:
                reality.close()
            raise
        self.close()
        self.scene, self.reality, self.session = scene, reality, session

    def welcome(self, request: messages.Request) -> dict[str, Any]:
        limits = {"moments": self.stage.most_moments, "plans": MOST_PLANS, "plan_steps": MOST_PLAN_STEPS}
        known = None if self.reality is None else "env" if self.scene.name == "environment" else "recording"
        return {
            "type": "welcome",
            "id": request.id,
            "version": VERSION,
            "session": self.name,
            **self.stage.facts(),
            "reality": known,
            "recording": known == "recording",
            "moments": len(self.session.moments),
            "limits": limits,
        }

    async def greet(self, request: messages.Request) -> list[Outgoing]:
        return [self.welcome(request), await self.show(self.session.now, request)]

    def close(self) -> None:
        if self.reality is not None:
            self.reality.close()

    @singledispatchmethod
    async def _answer(self, request: Any) -> list[Outgoing]:
        raise UserError(f"{type(request).__name__.lower()} means nothing in a dream")

    async def answer(self, request: messages.Request) -> Answers:
        """Everything that is answered to one request, and None where a long one may be given up."""
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
        moment = self.session.moment(known) if known is not None else await self._grant(self.session.wish_step(action))
        return [await self.show(self.session.fork(moment.number), request)]

    async def _choose(self, request: messages.Step) -> Any:
        """The action, whoever chooses it. Raises `UserError` where nobody can."""
        if request.by == "agent":
            if self.stage.actor is None:
                raise UserError("there is no agent that could play: open the folder of a learned policy")
            belief = self.session.now.answer.belief
            return await self.turns.run(lambda: self.stage.agent_action(belief))
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
        moments = [self.session.moment(number) for number in request.moments]
        return [await self.show(moment, request) for moment in moments]

    @_answer.register
    async def _tree(self, request: messages.Tree) -> list[Outgoing]:
        moments = await asyncio.to_thread(lambda: [self._facts(moment) for moment in self.session.moments])
        return [{"type": "tree", "id": request.id, "moments": moments}]

    @_answer.register
    async def _edit(self, request: messages.Edit) -> list[Outgoing]:
        picture = self._picture(request)
        moment = await self._grant(self.session.wish_look({request.key: picture}, "edit"))
        return [await self.show(self.session.fork(moment.number), request)]

    def _picture(self, request: messages.Edit) -> np.ndarray:
        of = self.stage.spec.obs.get(request.key)
        if of is None or of.kind != "image":
            raise UserError(f"{request.key!r} is no picture of this model")
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
        true = await self._true(self.session.now)
        if true is None:
            raise UserError("nobody knows what is true here: the walk has left what was recorded, or nothing was")
        moment = await self._grant(self.session.wish_look(true, "look"))
        return [await self.show(self.session.fork(moment.number), request)]

    @_answer.register
    async def _options(self, request: messages.Options) -> list[Outgoing]:
        self.options = request
        return [await self.show(self.session.now, request)]

    @_answer.register
    async def _save(self, request: messages.Save) -> list[Outgoing]:
        replay = await asyncio.to_thread(to_replay, self.session, self.stage.model_hash)
        if (size := len(msgspec.json.encode(replay))) > MOST_BYTES - 1000:
            what = f"the replay would have {size} bytes, and more than {MOST_BYTES} cannot be loaded again"
            raise UserError(f"{what}: keep the branch as a film or a dataset")
        return [{"type": "replay", "id": request.id, "replay": replay}]

    @_answer.register
    async def _export(self, request: messages.Export) -> list[Outgoing]:
        path, scene = self.session.path(), self.scene
        name, file = await asyncio.to_thread(export, request.kind, self.stage, scene, path, self.exports.folder)
        return [{"type": "file", "id": request.id, "name": name, "url": self.exports.offer(name, file)}]

    async def _load(self, request: messages.Load) -> Answers:
        """Walk a replay a moment at a time, so that others are answered in between, and greet the page in it."""
        made = walking(self.stage.engine, request.replay, self.stage.model_hash, self.stage.most_moments)
        while True:
            step = await self.turns.run(lambda: next(made, None))
            if step is None or step.done:
                break
            yield None
        assert step is not None
        self.close()
        self.session, self.reality = step.session, None
        self.scene = Scene("replay", "a replay", self.session.first_obs)
        loaded = {"moments": len(self.session.moments), "identical": step.different is None}
        yield {"type": "loaded", "id": request.id, **loaded, "different": step.different}
        for outgoing in await self.greet(request):
            yield outgoing

    async def _grid(self, request: messages.Grid) -> Answers:
        """All plans a step at a time, each step of all plans in one call."""
        session, plans = self.session, request.plans
        for action in (action for plan in plans for action in plan):
            check_action(action, self.stage.spec)  # all of them before the first is done
        at = [session.moment(request.moment).number] * len(plans)
        session.check_room(sum(session.unknown(plan, request.moment) for plan in plans))
        found: list[list[Moment]] = [[] for _ in plans]
        for t in range(max(map(len, plans))):
            going = [i for i, plan in enumerate(plans) if t < len(plan)]
            moments = await self._step_all([(at[i], plans[i][t]) for i in going])
            for i, moment in zip(going, moments, strict=True):
                at[i] = moment.number
                found[i].append(moment)
                yield await self.show(moment, request, plan=i)
        numbers = [[moment.number for moment in moments] for moments in found]
        yield {"type": "grid", "id": request.id, "plans": numbers, "divergence": divergence(found)}

    async def _step_all(self, wanted: list[tuple[int, Any]]) -> list[Moment]:
        """One step from each of several moments. Two that want the same get the same moment."""
        session, fresh = self.session, dict[Any, Wish]()
        for at, action in wanted:
            key = (at, *check_action(action, self.stage.spec).tolist())
            if session.known(action, at) is None and key not in fresh:
                fresh[key] = session.wish_step(action, at)
        answers = await self.turns.ask([ask for wish in fresh.values() for ask in wish.asks])
        for wish in fresh.values():
            session.grant(wish, answers[: len(wish.asks)])
            answers = answers[len(wish.asks) :]
        numbers = [session.known(action, at) for at, action in wanted]
        return [session.moment(number) for number in numbers if number is not None]

    async def _grant(self, wish: Wish) -> Moment:
        return self.session.grant(wish, await self.turns.ask(wish.asks))

    async def _true(self, moment: Moment) -> Arrays | None:
        if self.reality is None:
            return None
        reality, path = self.reality, self.session.path(moment.number)
        return await asyncio.to_thread(reality.at, path)

    async def show(self, moment: Moment, request: messages.Request, plan: int | None = None) -> bytes:
        """A moment as the page is shown it: numbers, what was dreamt and, where asked for, what is true and heat."""
        pictures = [(key, "dream", picture) for key, picture in moment.answer.pictures.items()]
        real = None
        if self.options.reality and plan is None:
            true = await self._true(moment) or {}
            pictures += [(key, "real", true[key]) for key in self.stage.spec.image_keys if key in true]
            real = {key: true[key].tolist() for key in moment.answer.vectors if key in true}
        if self.options.heat and plan is None:
            unsure = await self.turns.run(lambda: self.stage.engine.uncertain_pixels(moment.answer.belief))
            pictures += [(key, "heat", to_heat(values)) for key, values in unsure.items()]
        header = {
            "type": "moment",
            "id": request.id,
            "here": moment.number == self.session.here,
            "plan": plan,
            "moment": self._facts(moment, real),
        }
        return pack_pictures(header, pictures)

    def _facts(self, moment: Moment, real: dict[str, list[float]] | None = None) -> dict[str, Any]:
        """The numbers of a moment. `real` are its true vectors: empty where nobody knows them, None if nobody asked."""
        return {
            **describe(moment),
            "real": real,
            "persistence": self._persistence(moment),
            "trust": self._trust(moment),
        }

    def _persistence(self, moment: Moment) -> dict[str, float]:
        return {} if moment.edited is None else self.session.persistence(moment.number)

    def _trust(self, moment: Moment) -> dict[str, Any] | None:
        trust = self.stage.trust
        if trust is None:
            return None
        left = trust.left(moment.blind, moment.answer.spread)
        return {"left": left, "good": left >= 1, "spread": moment.answer.spread}


def describe(moment: Moment) -> dict[str, Any]:
    """What a moment is in itself, whoever looks at it."""
    return {
        "number": moment.number,
        "parent": moment.parent,
        "kind": moment.kind,
        "action": moment.action,
        "steps": moment.steps,
        "blind": moment.blind,
        "signals": moment.answer.signals,
        "vectors": {key: value.tolist() for key, value in moment.answer.vectors.items()},
        "residual": moment.residual,
    }


def pack_pictures(header: dict[str, Any], pictures: list[tuple[str, str, np.ndarray]]) -> bytes:
    """A binary answer with the header's list of its pictures."""
    listed = [
        {"key": key, "role": role, "height": p.shape[0], "width": p.shape[1], "channels": p.shape[2]}
        for key, role, p in pictures
    ]
    return pack({**header, "pictures": listed}, [np.ascontiguousarray(p).tobytes() for _, _, p in pictures])


def to_heat(unsure: np.ndarray) -> np.ndarray:
    """Standard deviations `[H, W]` as uint8 `[H, W, 1]`: a quarter of the range from black to white is all of it."""
    return (np.clip(unsure * 4, 0, 1) * 255).astype(np.uint8)[..., None]


def divergence(plans: list[list[Moment]]) -> list[list[float]]:
    """How far each plan's moment lies from the mean of all plans, step by step: pictures, or numbers where none are."""
    found: list[list[float]] = [[] for _ in plans]
    for t in range(max(map(len, plans))):
        going = [i for i, plan in enumerate(plans) if t < len(plan)]
        shown = [comparable(plans[i][t]) for i in going]
        middle = np.mean(shown, 0)
        for i, values in zip(going, shown, strict=True):
            found[i].append(float(np.sqrt(np.square(values - middle).mean())))
    return found


def comparable(moment: Moment) -> np.ndarray:
    answer = moment.answer
    parts = [difference(p, np.zeros_like(p)).ravel() for p in answer.pictures.values()]
    parts = parts or [value.ravel() for value in answer.vectors.values()]
    return np.concatenate(parts) if parts else np.zeros(1)
