"""Ctrl-C pressed once and twice, as at a terminal: no traceback, the right exit code, and no process left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.toy import write_toy_dataset
from worldloom.interrupts import Interrupt, end_at_once, raise_once, second_one_ends

PROMPT = 8.0  # seconds, on a busy machine; what hangs does so for minutes
COMMAND = [sys.executable, "-m", "worldloom"]
TOY = [sys.executable, "-m", "tests.training.toy_command"]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands in a process group of their own, and clears away what a failed test leaves of them."""
    begun: list[subprocess.Popen[str]] = []

    def started(command: list[str], *words: Any) -> subprocess.Popen[str]:
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen([*command, *map(str, words)], start_new_session=True, **pipes))
        return begun[-1]

    yield started
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(done: Callable[[], Any], process: subprocess.Popen[str] | None = None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert process is None or process.poll() is None, process.communicate()  # type: ignore[union-attr]
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def children(pid: int) -> set[int]:
    """All processes that come from this one, grandchildren too."""
    try:
        found = {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return found.union(*(children(child) for child in found))


def alive(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def press(process: subprocess.Popen[str], times: int, pause: float) -> tuple[int, str, float]:
    """Ctrl-C as a terminal sends it, to the whole group: the exit code, as a shell has it, stderr and the seconds."""
    came_from_it, began = children(process.pid), time.monotonic()
    for number in range(times):
        if number:
            time.sleep(pause)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    seconds = time.monotonic() - began
    until(lambda: not any(map(alive, came_from_it)), seconds=15)
    assert "Traceback" not in err + out, err
    # A process that has all but ended dies of the signal itself.
    code = 128 - process.returncode if process.returncode < 0 else process.returncode
    return code, err, seconds


def test_recording_ends(start: Any, tmp_path: Path) -> None:
    words = ("tests.envs.fakes:Slow", tmp_path, "--episodes", 1000, "--num-envs", 2, "--image-size", 20)
    process = start(COMMAND, "record", *words)
    until(lambda: len(list((tmp_path / ".journal").glob("0*.parquet"))) > 1, process)
    assert len(children(process.pid)) >= 2
    assert press(process, 2, 0.1)[0] == 130


def test_recording_ends_while_its_environments_hang(start: Any, tmp_path: Path) -> None:
    process = start(COMMAND, "record", "tests.hanging:make", tmp_path / "out", "--episodes", 1, "--num-envs", 1)
    until(lambda: (tmp_path / "out").exists(), process)
    code, _, seconds = press(process, 2, 0.3)
    assert code == 130
    assert seconds < PROMPT, "the second Ctrl-C waits for nobody"


def test_training_ends(start: Any, tmp_path: Path) -> None:
    data = write_toy_dataset(tmp_path / "data")
    words = ("toy", data, "--out", tmp_path / "run", "--steps", 10**6, "--length", 8, "--log-every", 1)
    process = start(TOY, "train", *words, "--image-size", 16)
    until(
        lambda: (tmp_path / "run" / "log.jsonl").exists() and (tmp_path / "run" / "log.jsonl").stat().st_size, process
    )
    assert press(process, 2, 0.1)[0] == 130


def test_playing_ends(start: Any, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra 'play' is not installed")
    process = start(COMMAND, "play", "gym:CartPole-v1", "--record", tmp_path / "out", "--port", 0)
    assert "Ctrl-C ends" in process.stdout.readline()
    assert press(process, 2, 0.1)[0] in (0, 130)


@pytest.mark.parametrize("where", ["reset", "step"])
def test_playing_ends_at_once_while_the_environment_hangs(start: Any, tmp_path: Path, where: str) -> None:
    connect = pytest.importorskip("websockets.sync.client", reason="the extra 'play' is not installed").connect
    words = ("--options", f"where={where}", "--record", tmp_path / "out", "--port", 0)
    process = start(COMMAND, "play", "tests.hanging:make", *words)
    port = process.stdout.readline().split("localhost:")[1].split("/")[0]
    with connect(f"ws://127.0.0.1:{port}/ws") as page:
        page.send(json.dumps({"type": "hello", "version": 1}))
        if where == "step":
            page.recv(20)
            page.recv(20)
            page.send(json.dumps({"type": "step", "id": 1, "action": 0}))
        time.sleep(0.5)
        code, err, seconds = press(process, 1, 0.0)
    assert code == 0
    assert err == ""
    assert seconds < PROMPT


def test_playing_ends_at_once_while_a_model_is_loaded(start: Any, tmp_path: Path) -> None:
    code = (
        "import time; from worldloom.cli import main; from worldloom.runs import checkpoint\n"
        "def busy(*_):\n    print('loading', flush=True)\n    while True: time.sleep(0.01)\n"
        "checkpoint.load = busy; main()"
    )
    process = start([sys.executable, "-c", code], "play", "run", "--port", 0)
    assert "loading" in process.stdout.readline()
    exit_code, err, seconds = press(process, 1, 0.0)
    assert (exit_code, err) == (130, "worldloom: stopped by Ctrl-C\n")
    assert seconds < PROMPT


def test_what_asks_after_its_step_arms_the_command_and_leaves_everything_else_as_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with second_one_ends():
            assert signal.getsignal(signal.SIGINT) is raise_once
            with Interrupt() as interrupt:
                assert not interrupt.asked
            assert signal.getsignal(signal.SIGINT) is raise_once
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with second_one_ends(), Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.asked
            assert signal.getsignal(signal.SIGINT) is end_at_once
        assert signal.getsignal(signal.SIGINT) is end_at_once, "until the process has ended"
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with second_one_ends():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "as nohup has it"
    finally:
        signal.signal(signal.SIGINT, before)
