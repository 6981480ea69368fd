"""Who acts: planners with a model, policies learned in dreams, and what plays them in real environments."""
