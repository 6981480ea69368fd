"""`worldloom plan`: a model and a planner on trial in the real environment. Played, scored, filmed, profiled."""
