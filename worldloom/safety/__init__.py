"""Rules outside the model, what it foresees of them, how far that can be trusted, and an agent that keeps them."""
