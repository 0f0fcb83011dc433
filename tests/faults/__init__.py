"""Faults and bad input: what must happen, for every command."""
