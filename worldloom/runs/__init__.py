"""What a run folder is: run.json, checkpoints, the datasets it was trained on, and a place in them to start from."""
