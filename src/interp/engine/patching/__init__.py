"""Interventions over cases: sweeps, paths, ablations, and their estimates from gradients."""
