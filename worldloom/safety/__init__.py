"""Rules outside the model, what it predicts of them, how reliable that is, and an agent that keeps them."""
