"""Judging a world model on held-out episodes: metrics and baselines with intervals, the card and its report."""

import os

# Read by OpenMP when torch is first imported. Threads that wait for each other by spinning starve each other on a busy
# machine: an evaluation with two threads on two shared cores was not done after 400 s, and took 156 s waiting asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
