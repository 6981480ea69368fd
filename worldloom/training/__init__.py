"""Training a world model: loop, optimiser, resuming, several processes."""
