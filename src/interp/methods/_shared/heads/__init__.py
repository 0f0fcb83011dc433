"""How heads are scored."""
