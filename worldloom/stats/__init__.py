"""Statistics without a model: bootstrap intervals, scores, rank agreement."""
