"""Walk into a model: a tree of imagined moments, a server that many can play on, and one web page."""
