"""What can be read off a model: lenses, weights, neurons, attributions to the input."""
