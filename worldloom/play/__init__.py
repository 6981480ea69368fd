"""Act in a model: a tree of imagined nodes, a server for many players, and one web page."""
