"""Learning a policy: while acting in an environment, or inside a trained model."""
