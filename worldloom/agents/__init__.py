"""Who acts: a planner or a learned policy with a model, scripted agents, and what plays them over fixed seeds."""
