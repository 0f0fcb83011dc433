"""Edges between components: their scores, and running a subgraph alone."""
