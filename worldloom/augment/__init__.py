"""Datasets enlarged by what a model imagines: branches from real moments, kept where the model can be trusted."""
