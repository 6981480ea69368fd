"""The listening socket of the page, and the web server."""

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

from worldloom.errors import UserError
from worldloom.interrupts import end_at_once

NEXT_PORTS = 20
IDLE_SECONDS = 0.5  # within which an idle thread ends


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `port`, or at the next free one. Raises `UserError` when there is none."""
    if not 0 <= port < 65536:
        raise UserError(f"--port is {port}: it must be between 0 and 65535, where 0 is any that is free")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in range(port, min(port + NEXT_PORTS, 65536)):
        # Name the protocol: asyncio disables Nagle's algorithm (40 ms per answer) only for sockets that name TCP.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, tried))
            made.listen(128)
        except OSError as error:
            made.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise UserError(f"--host {host}: cannot be bound ({error.strerror or error})") from error
            continue
        if tried != port:
            print(f"port {port} is in use: taking {tried}", flush=True)
        return made
    raise UserError(f"ports {port} to {port + NEXT_PORTS - 1} are all in use: choose another --port")


def run(app: Any, listening: socket.socket) -> None:
    """Serve until Ctrl-C. Waits for files that are being saved, and for no other work."""
    import uvicorn

    from worldloom.play.server import ServerLimits

    class Serving(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:
                end_at_once()
            super().handle_exit(sig, frame)

    # One byte above our own limit, so that our error is sent for a message that is too large.
    largest = ServerLimits().message_bytes + 1
    # No keep-alive: the server itself closes idle connections.
    config = uvicorn.Config(
        app, log_level="warning", ws_max_size=largest, ws_per_message_deflate=False, ws_ping_timeout=None
    )
    server = Serving(config)
    if hasattr(signal, "SIGHUP"):  # the terminal was closed: save the recording as at Ctrl-C
        signal.signal(signal.SIGHUP, server.handle_exit)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again
        server.run(sockets=[listening])
    leave_threads()


def leave_threads() -> None:
    """End the process if a thread is still running: Python would wait for it."""
    deadline = time.monotonic() + IDLE_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
