"""Datasets mixed from recorded episodes and imagined branches of them: `worldloom augment`."""
