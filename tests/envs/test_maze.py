"""The mazes of the book: the shortest way, walls, and when they move."""

from collections import deque

import numpy as np
import pytest

from worldloom.envs import make_env
from worldloom.envs.maze import LAYOUTS, MOVES, Maze
from worldloom.errors import UserError


def shortest(drawing: str) -> int:
    """Steps from start to goal, breadth first."""
    grid = np.array([list(line) for line in drawing.split("|")])
    start = tuple(np.argwhere(grid == "S")[0])
    seen, waiting = {start}, deque([(start, 0)])
    while waiting:
        (row, column), steps = waiting.popleft()
        if grid[row, column] == "G":
            return steps
        for down, right in MOVES:
            there = row + down, column + right
            inside = 0 <= there[0] < grid.shape[0] and 0 <= there[1] < grid.shape[1]
            if inside and grid[there] != "#" and there not in seen:
                seen.add(there)
                waiting.append((there, steps + 1))
    raise AssertionError("there is no way")


def test_the_shortest_ways_are_those_of_the_book() -> None:
    found = {name: [shortest(drawing) for drawing in drawings] for name, drawings in LAYOUTS.items()}
    assert found == {"dyna": [14], "blocking": [10, 16], "shortcut": [16, 10]}


def test_walls_and_edges_leave_one_where_one_is_and_the_goal_ends_and_pays() -> None:
    env = make_env("maze")
    first = env.reset(seed=0)[0]["state"].argmax()
    assert env.step(2)[0]["state"].argmax() == first  # left of the start is the edge
    moves = [1, 1, 3, 3, 3, 0, 3, 3, 3, 3, 3, 0, 0, 0]
    outcomes = [env.step(move)[1:3] for move in moves]
    assert outcomes[:-1] == [(0.0, False)] * (len(moves) - 1)
    assert outcomes[-1] == (1.0, True)


def test_the_maze_changes_after_so_many_steps_over_all_episodes() -> None:
    env = Maze(LAYOUTS["shortcut"], 3, 64)
    for _ in range(3):
        env.reset()
        assert env.grid[3, 8] == "#"
        env.step(0)
    assert env.grid[3, 8] == "."


def test_a_layout_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="layout of a maze"):
        make_env("maze", layout="spiral")
