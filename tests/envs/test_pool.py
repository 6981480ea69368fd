"""Workers: the same episodes for any number of workers, and no worker outlives its parent."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from worldloom.data.episode import Episode
from worldloom.envs.pool import Job, WorkerPool
from worldloom.errors import UserError


def collect(num_envs: int, count: int, env: str = "make_counter", session: int = 0) -> dict[int, Episode]:
    with WorkerPool(Job(f"tests.envs.fakes:{env}", image_size=20), num_envs) as pool:
        return dict(pool.episodes(lambda begun: begun < count, session=session))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as stat:
        return stat.read().split()[2] != "Z"


def test_episode_i_is_the_same_for_any_number_of_workers() -> None:
    one, three = collect(1, 5), collect(3, 5)
    assert sorted(one) == sorted(three) == [0, 1, 2, 3, 4]
    for index in one:
        assert np.array_equal(one[index].action, three[index].action)
        assert np.array_equal(one[index].obs["state"], three[index].obs["state"])
    drawn = {int(episode.obs["state"][0, 1]) for episode in one.values()}
    later = {int(episode.obs["state"][0, 1]) for episode in collect(1, 5, session=5).values()}
    assert len(drawn | later) == 10, "a continued recording does not repeat its first episodes"


def test_a_worker_that_is_killed_is_reported_with_its_episode() -> None:
    job = Job("tests.envs.fakes:Fragile", {"fault": "die"})
    with WorkerPool(job, 1) as pool, pytest.raises(UserError, match=r"was killed by SIGKILL while playing episode \d"):
        list(pool.episodes(lambda begun: begun < 20))


def test_leaving_the_pool_ends_its_workers_in_the_middle_of_an_episode() -> None:
    with WorkerPool(Job("tests.envs.fakes:Slow", {"goal": 10_000}), 2) as pool:
        asked_to_stop = list(pool.episodes(lambda begun: True, on_wait=lambda: pool.steps_played < 20))
        processes = [worker.process for worker in pool._workers]
    assert asked_to_stop == []
    assert [process.exitcode for process in processes] == [0, 0]


def test_workers_end_by_themselves_when_their_parent_is_killed() -> None:
    code = (
        "from worldloom.envs.pool import Job, WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    with WorkerPool(Job('tests.envs.fakes:Slow', {'goal': 10_000}), 2) as pool:\n"
        "        def told():\n"
        "            if pool.steps_played > 5: print(*[w.process.pid for w in pool._workers], flush=True)\n"
        "            return True\n"
        "        list(pool.episodes(lambda begun: True, told))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(number) for number in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(alive(worker) for worker in workers)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        if not any(alive(worker) for worker in workers):
            break
        time.sleep(0.1)
    assert not any(alive(worker) for worker in workers)


def test_an_environment_may_have_processes_of_its_own_and_they_end_with_it() -> None:
    episodes = collect(1, 1, "make_parent")
    child = int(episodes[0].obs["state"][0, 0])
    assert child > 1
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)
