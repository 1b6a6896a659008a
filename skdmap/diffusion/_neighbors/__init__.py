"""Neighbour searches: graph, exact and approximate indices, stored distances, metrics."""
