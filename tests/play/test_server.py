"""The web server: access, limits, and robustness against any input."""

import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.play.playing import small_context, understood
from worldloom.errors import UserError
from worldloom.play.serving import listen

pytest.importorskip("websockets", reason="the extra 'play' is not installed")
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from worldloom.play.access import Access, local, needs_token
from worldloom.play.player import ModelPlayer
from worldloom.play.replay import ReplayProgress
from worldloom.play.server import Server, ServerLimits
from worldloom.play.turns import Turns

RIGHT = [1.0, 0.0]


@contextmanager
def serving(access: Access | None = None, **limits: Any) -> Iterator[tuple[str, Server]]:
    """A server of a small model in a thread; yields its address without the scheme."""
    import uvicorn

    context = small_context()
    turns = Turns(context.engine)
    server = Server(
        lambda name, exports: ModelPlayer(name, context, turns, exports),
        access,
        replace(ServerLimits(), **limits),
        turns.close,
    )
    listening = listen("127.0.0.1", 0)
    running = uvicorn.Server(uvicorn.Config(server.app, log_level="error", ws_max_size=2**24))
    thread = threading.Thread(target=lambda: running.run(sockets=[listening]), daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}", server
    finally:
        running.should_exit = True
        thread.join(10)
        listening.close()


class Page:
    """What a page does: says hello, asks, reads."""

    def __init__(self, address: str, query: str = "", hello: bool = True, session: str | None = None, **options: Any):
        host, _, port = address.rpartition(":")
        made = socket.create_connection((host, int(port)))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as browsers do
        self.socket: ClientConnection = connect(f"ws://{address}/ws{query}", sock=made, max_size=None, **options)
        if hello:
            self.send({"type": "hello", "version": 1, "session": session})
            self.welcome, self.first = self.next(), self.next()

    def send(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def next(self, timeout: float = 20) -> dict[str, Any]:
        raw = self.socket.recv(timeout)
        return understood(raw if isinstance(raw, bytes) else json.loads(raw))

    def ask(self, asked: str, **fields: Any) -> dict[str, Any]:
        self.send({"type": asked, "id": 1, **fields})
        return self.next()

    def close(self) -> None:
        self.socket.close()


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for it. Fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_page_reconnects_to_its_session() -> None:
    with serving() as (address, _):
        page = Page(address)
        assert page.welcome["mode"] == "dream"
        node = page.ask("step", action=RIGHT)["moment"]
        page.close()
        again = Page(address, session=page.welcome["session"])
        assert again.welcome["session"] == page.welcome["session"]
        assert again.first["moment"]["number"] == node["number"]
        other = Page(address, session="not a session")
        assert other.welcome["session"] not in (page.welcome["session"], "not a session")
        assert other.first["moment"]["number"] != node["number"]
        elsewhere = Page(address, session=page.welcome["session"])
        assert again.next()["code"] == "elsewhere"
        assert elsewhere.ask("ping")["type"] == "pong"


def get(address: str, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}") as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_files_are_served_by_the_names_they_have_and_by_no_other() -> None:
    with serving() as (address, _):
        page = Page(address)
        url = page.ask("export", kind="png")["url"]
        assert get(address, url)[1][:4] == b"\x89PNG"
        for path in (
            "/files/x/node.png",
            url.replace("node.png", "..%2F..%2Fetc%2Fpasswd"),
            url.replace("node.png", "other.png"),
            "/page/..%2Fserver.py",
            "/page/../server.py",
            "/page/%2e%2e%2fserver.py",
            "/server.py",
        ):
            status, body = get(address, path)
            assert status == 404, path
            assert b"class Server" not in body


def test_another_site_and_a_wrong_token_are_refused_with_the_reason() -> None:
    with serving(Access("secret")) as (address, server):
        for query, options, message in [
            ("", {}, "token is missing or wrong"),
            ("?token=secre", {}, "token is missing or wrong"),
            ("?token=%00%ff", {}, "token is missing or wrong"),
            ("?token=secret", {"origin": "http://evil.example"}, "evil.example may not play"),
        ]:
            page = Page(address, query, hello=False, **options)
            goodbye = page.next()
            assert goodbye["type"] == "bye"
            assert message in goodbye["message"]
            with pytest.raises(ConnectionClosed):
                page.next()
        assert get(address, "/")[0] == 403
        assert Page(address, "?token=secret", origin=f"http://{address}").ask("ping")["type"] == "pong"
        assert len(server.seats) == 1


def test_a_host_name_of_another_site_is_refused() -> None:
    with serving() as (address, server):
        port = address.rpartition(":")[2]
        with socket.create_connection(("127.0.0.1", int(port))) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: evil.example:" + port.encode() + b"\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: raw.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"evil.example is not this machine" in answer
        assert get(address, "/")[0] == 200
        assert server.seats == {}


def test_every_limit_answers_with_its_name() -> None:
    with serving(message_bytes=2000, messages_per_second=1, burst=5, sessions=2, idle_seconds=1) as (address, server):
        page, other = Page(address), Page(address)
        full = Page(address, hello=False)
        full.send({"type": "hello", "version": 1})
        assert full.next()["code"] == "full"
        page.send("x" * 3000)
        assert page.next()["code"] == "size"
        for _ in range(8):
            other.send({"type": "ping"})
        answers = [other.next()["type"] for _ in range(5)]
        assert answers == ["pong"] * 5
        assert other.next()["code"] == "rate"
        late = Page(address)  # those who left make room
        assert late.next()["code"] == "idle"
        assert len(server.seats) <= 2
        wrong = Page(address, hello=False)
        wrong.send({"type": "hello", "version": 9})
        assert "version 9" in wrong.next()["message"]


def test_a_connection_that_does_not_say_hello_is_closed_with_the_reason() -> None:
    with serving(hello_seconds=0.2) as (address, server):
        silent, page = Page(address, hello=False), Page(address)
        goodbye = silent.next()
        assert (goodbye["type"], goodbye["code"]) == ("bye", "hello")
        assert "no hello came within 0.2 s" in goodbye["message"]
        with pytest.raises(ConnectionClosed):
            silent.next()
        time.sleep(0.3)
        assert page.ask("ping")["type"] == "pong", "the limit ends with hello"
        assert len(server.seats) == 1


def test_a_disconnect_during_a_long_request_frees_the_seat_and_cancels_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(sessions=1) as (address, server):
        page, made = Page(address), []

        def endless(engine: Any, replay: Any, model_hash: str, most: int) -> Iterator[ReplayProgress]:
            while True:
                made.append(time.monotonic())
                time.sleep(0.01)
                yield ReplayProgress(None, None, False)  # type: ignore[arg-type]

        monkeypatch.setattr("worldloom.play.player.replay_steps", endless)
        page.send({"type": "load", "id": 1, "replay": {}})
        until(lambda: len(made) > 3)
        full = Page(address, hello=False)
        full.send({"type": "hello", "version": 1})
        assert full.next()["code"] == "full"
        page.close()
        (seat,) = server.seats.values()
        until(lambda: seat.reader.left is not None)
        assert Page(address).ask("ping")["type"] == "pong"
        until(lambda: not seat.turn.locked())
        count = len(made)
        time.sleep(0.1)
        assert len(made) == count, "a disconnect cancels the work"


def test_a_page_that_reconnects_during_a_long_request_waits_for_its_next_part_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving() as (address, _):
        page = Page(address)

        def slow(engine: Any, replay: Any, model_hash: str, most: int) -> Iterator[ReplayProgress]:
            for _ in range(1000):
                time.sleep(0.01)
                yield ReplayProgress(None, None, False)  # type: ignore[arg-type]

        monkeypatch.setattr("worldloom.play.player.replay_steps", slow)
        page.send({"type": "load", "id": 1, "replay": {}})
        time.sleep(0.1)
        page.close()
        began = time.monotonic()
        again = Page(address, session=page.welcome["session"])
        assert again.welcome["session"] == page.welcome["session"]
        assert again.first["moment"]["number"] == page.first["moment"]["number"], "what was not loaded changes nothing"
        assert time.monotonic() - began < 3


def test_a_page_that_reads_nothing_delays_no_other_page() -> None:
    with serving(send_seconds=1) as (address, _):
        slow, quick = Page(address), Page(address)
        for _ in range(400):
            slow.send({"type": "step", "action": RIGHT})
        began = time.monotonic()
        for _ in range(20):
            assert quick.ask("step", action=RIGHT)["type"] == "moment"
        assert time.monotonic() - began < 20, "an answer each, however many the other one is owed"


def test_a_port_in_use_leads_to_the_next_one(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with listen("127.0.0.1", port) as made:
            assert made.getsockname()[1] > port
        assert f"port {port} is in use" in capsys.readouterr().out
    with pytest.raises(UserError, match="between 0 and 65535"):
        listen("127.0.0.1", 70_000)
    with pytest.raises(UserError, match="cannot be bound"):
        listen("203.0.113.1", 0)


def test_a_page_that_leaves_while_it_is_greeted_holds_no_seat() -> None:
    with serving(sessions=2) as (address, server):
        for _ in range(6):
            page = Page(address, hello=False)
            page.send({"type": "hello", "version": 1})
            page.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            page.socket.socket.shutdown(socket.SHUT_RDWR)
        for _ in range(100):
            if all(seat.reader.left for seat in server.seats.values()):
                break
            time.sleep(0.05)
        assert Page(address).ask("ping")["type"] == "pong"


def test_small_answers_are_not_held_back_until_the_last_one_is_acknowledged() -> None:
    with listen("127.0.0.1", 0) as made:
        assert made.proto == socket.IPPROTO_TCP, "asyncio switches Nagle's delay off for no other sockets"


def test_only_this_machine_needs_no_token() -> None:
    assert all(local(host) for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"))
    assert not any(local(host) for host in ("127.evil.example", "127.0.0.1.evil.example", "localhost.evil", ""))
    assert not local("0.0.0.0")
    assert needs_token("localhost", None) is None
    assert needs_token("0.0.0.0", "mine") == "mine"
    assert len(needs_token("0.0.0.0", None) or "") > 16
