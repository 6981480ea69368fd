"""Policies and planners evaluated in the real environment: played, scored, filmed, and compared with the model."""
