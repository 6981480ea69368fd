"""What a page sends, read ahead: so its leaving is noticed while something is still made for it."""

import asyncio
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

AHEAD = 8  # messages; a page that sends more waits until some are taken


class Reader:
    """The messages of one connection, in their order."""

    def __init__(self, socket: WebSocket):
        self.socket = socket
        self.left: float | None = None
        """When the page went, by the monotonic clock; None while it is there."""
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue(AHEAD)
        self.task = asyncio.create_task(self._read())

    async def next(self, seconds: float) -> bytes:
        """Raises `WebSocketDisconnect` when the page has left, `TimeoutError` when nothing comes within `seconds`."""
        raw = None if self.left is not None else await asyncio.wait_for(self._messages.get(), seconds)
        if raw is None:
            raise WebSocketDisconnect(1005)
        return raw

    async def _read(self) -> None:
        try:
            while (message := await self.socket.receive())["type"] != "websocket.disconnect":
                text = (message.get("text") or "").encode("utf-8", "surrogatepass")
                await self._messages.put(message.get("bytes") or text)
        finally:
            self.close()

    def close(self) -> None:
        """The connection has come to its end: whoever waits for a message is told."""
        if self.left is None:
            self.left = time.monotonic()
            if self._messages.empty():
                self._messages.put_nowait(None)
            self.task.cancel()
