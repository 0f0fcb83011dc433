"""Commands that read activations and weights."""
