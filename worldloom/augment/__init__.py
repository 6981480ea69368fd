"""Datasets mixed from recorded episodes and what a model imagines beside them: `worldloom augment`."""
