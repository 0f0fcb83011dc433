"""Interchange interventions: one run is given, at a place, what another run has there, and its answer is read."""
