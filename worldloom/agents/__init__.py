"""Agents: a planner or a learned policy with a model, scripted and reference agents; and `play`, over fixed seeds."""
