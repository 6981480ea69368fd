"""A socket that the page is served at, and the web server that serves it."""

import errno
import signal
import socket
from typing import Any

from worldloom.errors import UserError

NEXT_PORTS = 20


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
    import uvicorn

    from worldloom.play.server import Limits

    # One byte more than is taken, so that it is ours to say that a message is too large.
    largest = Limits().message_bytes + 1
    # No keep-alive: while a long answer is made nothing is read, pongs neither. Who is silent too long is seen out.
    config = uvicorn.Config(
        app, log_level="warning", ws_max_size=largest, ws_per_message_deflate=False, ws_ping_timeout=None
    )
    server = uvicorn.Server(config)
    if hasattr(signal, "SIGHUP"):  # the terminal was closed: what is being recorded is saved as at Ctrl-C
        signal.signal(signal.SIGHUP, server.handle_exit)
    server.run(sockets=[listening])
