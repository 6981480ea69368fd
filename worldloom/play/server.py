"""The web server of play: one page, one WebSocket per player, and a limit on every resource.

`access` decides which connections are accepted. A page that exceeds a limit receives the name of the limit.
"""

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from worldloom.errors import UserError, origin
from worldloom.play import messages
from worldloom.play.access import Access
from worldloom.play.exporting import Exports
from worldloom.play.reader import Reader
from worldloom.play.turns import Threads

PAGE = files("worldloom.play") / "page"
END_SECONDS = 60.0  # for saving recorded episodes when the server stops
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' blob: data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
ELSEWHERE = "this session continues in another window"
POLICY, TOO_BIG, BUSY, GONE = 1008, 1009, 1013, 1001  # WebSocket close codes


@dataclass(frozen=True)
class ServerLimits:
    """Limits of one page and of all pages together."""

    sessions: int = 32
    message_bytes: int = messages.MOST_BYTES
    messages_per_second: float = 240
    burst: int = 480
    hello_seconds: float = 10
    """Time for the first message, hello."""
    idle_seconds: float = 900
    kept_seconds: float = 300
    """How long a session is kept after a disconnect, so that its page can reconnect."""
    send_seconds: float = 10


class Player(Protocol):
    """The other side of a page: `ModelPlayer` or `RealPlayer`.

    `answer` yields messages, and None between the parts of long work, which is cancelled if the page has disconnected.
    """

    name: str

    @property
    def unsaved(self) -> bool:
        """Whether `close` has an episode to save."""

    async def begin(self, name: str | None = None, seed: int = 0) -> None: ...
    async def greet(self, request: messages.Request) -> list[dict[str, Any] | bytes]: ...
    def answer(self, request: messages.Request) -> AsyncIterator[dict[str, Any] | bytes | None]: ...
    def close(self) -> None: ...


@dataclass
class Seat:
    """One player, and its current or last connection."""

    player: Player
    reader: Reader
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the player works: a page that reconnects waits for the work that it left."""

    async def release(self) -> None:
        """Close the player when its work is done. Prints an error where its episode cannot be saved."""
        async with self.turn:
            try:
                self.player.close()
            except Exception as error:
                print(f"worldloom: error: {error}", file=sys.stderr, flush=True)


@dataclass
class RateLimit:
    """A token bucket: a burst of `capacity` messages, then `rate` per second."""

    rate: float
    capacity: float
    tokens: float = 0.0
    updated: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = self.capacity

    def spend(self) -> bool:
        """Take one token. False if there is none."""
        now = time.monotonic()
        self.tokens, self.updated = min(self.capacity, self.tokens + (now - self.updated) * self.rate), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Refused(Exception):
    """Closes a connection with a reason for the page."""

    def __init__(self, code: int, reason: str, message: str):
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Server:
    """`app` is the ASGI application. `make` makes a player for a new page; `finish` runs when the server stops."""

    def __init__(
        self,
        make: Callable[[str, Exports], Player],
        access: Access | None = None,
        limits: ServerLimits | None = None,
        finish: Callable[[], None] = lambda: None,
    ):
        self.make, self.access, self.limits, self.finish = make, access or Access(), limits or ServerLimits(), finish
        self.exports = Exports()
        self.seats: dict[str, Seat] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/page/{name}", self._page),
                Route("/files/{key}/{name}", self._file),
                WebSocketRoute("/ws", self._socket),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(self._sweep_forever())
        asyncio.get_running_loop().set_default_executor(Threads(thread_name_prefix="worldloom-play"))
        try:
            yield
        finally:
            sweeper.cancel()
            self.finish()
            saving = [self._release(name) for name, seat in list(self.seats.items()) if seat.player.unsaved]
            for name in list(self.seats):
                self._release(name)
            _, late = await asyncio.wait(saving, timeout=END_SECONDS) if saving else ((), ())
            for _ in late:
                print(
                    "worldloom: error: an unfinished episode was not saved: its environment does not respond",
                    file=sys.stderr,
                )
            self.exports.close()

    async def _page(self, request: Request) -> Response:
        if reason := self.access.refuses(request) if request.url.path == "/" else None:
            return PlainTextResponse(reason, 403, HEADERS)
        name = request.path_params.get("name", "index.html")
        known = {entry.name: entry for entry in PAGE.iterdir()}
        if name not in known:
            return PlainTextResponse(f"there is no {name[:100]!r} here", 404, HEADERS)
        kind = TYPES.get("." + name.rsplit(".", 1)[-1], "application/octet-stream")
        return Response(known[name].read_bytes(), media_type=kind, headers=HEADERS)

    async def _file(self, request: Request) -> Response:
        """An exported file: its unguessable name is the permission."""
        key = f"{request.path_params['key']}/{request.path_params['name']}"
        if key not in self.exports.files or not self.exports.files[key].is_file():
            return PlainTextResponse("there is no such file, or it was deleted: export it again", 404, HEADERS)
        name = request.path_params["name"]
        return FileResponse(self.exports.files[key], filename=name, headers=HEADERS)

    async def _socket(self, socket: WebSocket) -> None:
        """One connection, from accept to close."""
        if reason := self.access.refuses(socket):
            # Accept first: a page cannot read the reason of a failed handshake.
            await socket.accept()
            await self._bye(socket, Refused(POLICY, "refused", reason))
            return
        await socket.accept()
        reader = Reader(socket)
        playing = self._keep(self._play(reader))
        # Return as soon as the page disconnects. Its running request is cancelled at its next part.
        await asyncio.wait((playing, reader.task), return_when=asyncio.FIRST_COMPLETED)

    async def _play(self, reader: Reader) -> None:
        """Hello, greeting, and requests until the page disconnects."""
        socket = reader.socket
        try:
            seat, hello = await self._sit(reader)
            async with seat.turn:
                for outgoing in await seat.player.greet(hello):
                    await self._send(socket, outgoing)
            await self._serve(reader, seat)
        except WebSocketDisconnect:
            pass
        except Refused as refusal:
            await self._bye(socket, refusal)
        finally:
            reader.close()

    async def _sit(self, reader: Reader) -> tuple[Seat, messages.Hello]:
        """The seat of a page, its earlier one or a new one, and its hello."""
        try:
            hello = messages.read(await self._receive(reader, self.limits.hello_seconds, "hello"))
        except messages.MALFORMED as error:
            raise Refused(POLICY, "malformed", str(error)) from error
        if not isinstance(hello, messages.Hello):
            raise Refused(POLICY, "hello", "the first message must be a hello")
        if hello.version != messages.VERSION:
            what = f"the page speaks version {hello.version}, the server {messages.VERSION}: reload the page"
            raise Refused(POLICY, "version", what)
        seat = self.seats.get(hello.session or "")
        if seat is None:
            return await self._new_seat(reader), hello
        earlier, seat.reader = seat.reader, reader
        if earlier.left is None:
            await self._bye(earlier.socket, Refused(GONE, "elsewhere", ELSEWHERE))
        return seat, hello

    async def _new_seat(self, reader: Reader) -> Seat:
        if len(self.seats) >= self.limits.sessions:
            self._make_room()
        if len(self.seats) >= self.limits.sessions:
            what = f"all {self.limits.sessions} seats are taken: try again later"
            raise Refused(BUSY, "full", what)
        name = secrets.token_urlsafe(16)
        try:
            seat = self.seats[name] = Seat(self.make(name, self.exports), reader)
            async with seat.turn:
                await seat.player.begin()
        except Exception as error:
            if name in self.seats:
                self._release(name)
            what = str(error) if isinstance(error, UserError) else origin(error)
            raise Refused(BUSY, "start", what) from error
        return seat

    async def _serve(self, reader: Reader, seat: Seat) -> None:
        """Answer requests in order: a page that sends faster than it reads delays only itself."""
        rate_limit = RateLimit(self.limits.messages_per_second, self.limits.burst)
        while True:
            raw = await self._receive(reader, self.limits.idle_seconds, "idle")
            if not rate_limit.spend():
                what = f"more than {self.limits.messages_per_second:g} messages a second: slow down"
                raise Refused(POLICY, "rate", what)
            await self._answer(reader, seat, raw)

    async def _answer(self, reader: Reader, seat: Seat, raw: bytes) -> None:
        number, socket = 0, reader.socket
        try:
            request = messages.read(raw)
            number = request.id
            if isinstance(request, messages.Hello):
                raise UserError("hello was already received: send it once")
            async with seat.turn:
                if seat.reader is not reader:
                    raise Refused(GONE, "elsewhere", ELSEWHERE)
                async for outgoing in seat.player.answer(request):
                    if reader.left is not None:
                        raise WebSocketDisconnect(1005)
                    if outgoing is not None:
                        await self._send(socket, outgoing)
        except messages.MALFORMED as error:
            await self._send(socket, problem(number, "malformed", str(error)))
        except UserError as error:
            await self._send(socket, problem(number, "refused", str(error)))
        except (Refused, WebSocketDisconnect):
            raise
        except Exception as error:  # a bug, or an environment that fails: report it and continue
            print(f"worldloom: error: {origin(error)}", file=sys.stderr, flush=True)
            await self._send(socket, problem(number, "internal", origin(error)))

    async def _receive(self, reader: Reader, seconds: float, wanted: str) -> bytes:
        """The next message. Raises `Refused` if it is too large or too late."""
        try:
            raw = await reader.next(seconds)
        except TimeoutError as error:
            what = f"no {'hello' if wanted == 'hello' else 'request'} came within {seconds:g} s: reload the page"
            raise Refused(GONE, wanted, what) from error
        if len(raw) > self.limits.message_bytes:
            what = f"a message of {len(raw)} bytes: at most {self.limits.message_bytes} are accepted"
            raise Refused(TOO_BIG, "size", what)
        return raw

    async def _send(self, socket: WebSocket, outgoing: dict[str, Any] | bytes) -> None:
        """Raises `Refused` if the page does not receive it in time."""
        sending = (
            socket.send_bytes(outgoing)
            if isinstance(outgoing, bytes)
            else socket.send_text(msgspec.json.encode(outgoing).decode())
        )
        try:
            await asyncio.wait_for(sending, self.limits.send_seconds)
        except TimeoutError as error:
            raise Refused(GONE, "slow", "the page did not receive its pictures in time: reload it") from error
        except RuntimeError as error:  # starlette: already disconnected
            raise WebSocketDisconnect(1006) from error

    async def _bye(self, socket: WebSocket, refusal: Refused) -> None:
        goodbye = {"type": "bye", "code": refusal.reason, "message": refusal.message}
        with contextlib.suppress(WebSocketDisconnect, Refused, RuntimeError):
            await self._send(socket, goodbye)
            await asyncio.wait_for(socket.close(refusal.code), self.limits.send_seconds)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(min(30.0, self.limits.kept_seconds))
            self._sweep(self.limits.kept_seconds)

    def _make_room(self) -> None:
        """Release the session that was disconnected longest ago."""
        left = [(seat.reader.left, name) for name, seat in self.seats.items() if seat.reader.left is not None]
        if left:
            self._release(min(left)[1])

    def _sweep(self, kept: float) -> None:
        """Release the sessions that were disconnected more than `kept` seconds ago."""
        now = time.monotonic()
        for name, seat in list(self.seats.items()):
            if seat.reader.left is not None and now - seat.reader.left >= kept:
                self._release(name)

    def _release(self, name: str) -> asyncio.Task[None]:
        """Free the seat at once; its player is closed when its work is done."""
        return self._keep(self.seats.pop(name).release())

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in a task, with a reference: asyncio may drop tasks without one."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


def problem(number: int, code: str, message: str) -> dict[str, Any]:
    return {"type": "error", "id": number, "code": code, "message": message[:500]}
