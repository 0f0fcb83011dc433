"""Dictionaries of features: what they are, the files they come in, how they are trained, and attribution graphs."""
