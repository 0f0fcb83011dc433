"""A transformer as plain functions over its own weights."""
