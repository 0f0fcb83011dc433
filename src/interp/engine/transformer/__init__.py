"""A causal transformer as plain functions over its own weights."""
