"""Evaluate a world model on held-out episodes: metrics and baselines with intervals, the card and its report."""
