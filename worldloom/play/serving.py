"""A socket that the page is served at, and the web server that serves it."""

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
IDLE_SECONDS = 0.5  # within which a thread that has nothing to do ends


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `port`, or at the next free one. Raises `UserError` when there is none."""
    if not 0 <= port < 65536:
        raise UserError(f"--port is {port}: it must be between 0 and 65535, where 0 is any that is free")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in range(port, min(port + NEXT_PORTS, 65536)):
        # The protocol is named because asyncio looks at it before it switches Nagle's delay off: 40 ms an answer.
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
    """Serve until Ctrl-C. What is still at work then is not waited for, except for what is being saved."""
    import uvicorn

    from worldloom.play.server import Limits

    class Serving(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:
                end_at_once()
            super().handle_exit(sig, frame)

    # One byte more than is taken, so that it is ours to say that a message is too large.
    largest = Limits().message_bytes + 1
    # No keep-alive: who is silent too long is seen out.
    config = uvicorn.Config(
        app, log_level="warning", ws_max_size=largest, ws_per_message_deflate=False, ws_ping_timeout=None
    )
    server = Serving(config)
    if hasattr(signal, "SIGHUP"):  # the terminal was closed: what is being recorded is saved as at Ctrl-C
        signal.signal(signal.SIGHUP, server.handle_exit)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn passes on what ended it
        server.run(sockets=[listening])
    leave_threads()


def leave_threads() -> None:
    """End the process if a thread is still at work, which Python would wait for."""
    deadline = time.monotonic() + IDLE_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
