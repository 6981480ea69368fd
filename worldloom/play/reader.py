"""Reads the messages of a page ahead, so that a disconnect is noticed while a request is still running."""

import asyncio
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

AHEAD = 8  # messages; a page that sends more waits until some are processed


class Reader:
    """The messages of one connection, in order."""

    def __init__(self, socket: WebSocket):
        self.socket = socket
        self.left: float | None = None
        """Time of the disconnect on the monotonic clock; None while connected."""
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
        """Mark the connection as closed and wake a waiting `next`."""
        if self.left is None:
            self.left = time.monotonic()
            if self._messages.empty():
                self._messages.put_nowait(None)
            self.task.cancel()
